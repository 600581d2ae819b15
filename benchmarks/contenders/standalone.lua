-- LuaJIT alone, controlled as `line_protocol.py` describes:  luajit standalone.lua  in the folder of the plugin.
local ffi = require "ffi"
ffi.cdef [[
  typedef struct { long seconds; long nanoseconds; } timespec;
  int clock_gettime(int clock, timespec *now);
]]
local now = ffi.new "timespec"
-- Processor time of this thread.
local function nanoseconds()
  ffi.C.clock_gettime(3, now) -- CLOCK_THREAD_CPUTIME_ID
  return tonumber(now.seconds) * 1e9 + tonumber(now.nanoseconds)
end

local phase = loadfile "kong.lua" (dofile "plugin.lua")

local function one_request()
  local request = { ":path", "/", ":method", "GET", ":authority", "localhost", "user-agent", "curl/8", "accept", "*/*" }
  phase("access", request)
  local response = { ":status", "200", "server", "x", "content-type", "text/plain" }
  phase("header_filter", response)
  return request, response
end

local function show(which, headers)
  for i = 1, #headers, 2 do
    io.write(which, " ", headers[i], ": ", headers[i + 1], "\n")
  end
end

for line in io.lines() do
  if line == "show" then
    local request, response = one_request()
    show("request", request)
    show("response", response)
    io.write "\n"
  else
    local started = nanoseconds()
    for _ = 1, tonumber(line) do one_request() end
    io.write(string.format("%d\n", nanoseconds() - started))
  end
  io.flush()
end
