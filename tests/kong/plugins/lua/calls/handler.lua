-- A plugin in Lua that waits: for HTTP, for a connection of its own, for time; and that goes on after its request.
local Calls = { PRIORITY = 900, VERSION = "0.1.0" }
local http, ffi = require "resty.http", require "ffi"

local function over_http(url)
  local client = http.new()
  client:set_timeout(10000)
  local reply, problem = client:request_uri(url, { method = "POST", body = "from lua", headers = { ["X-Asks"] = "lua" } })
  return reply and tostring(reply.status) or problem
end

local function by_hand(host, port)
  local connection = ngx.socket.tcp()
  connection:settimeout(10000)
  local ok, problem = connection:connect(host, port)
  if not ok then return problem end
  connection:send("GET /by/hand HTTP/1.1\r\nHost: origin\r\nContent-Length: 0\r\n\r\n")
  local line = connection:receive("*l")
  connection:close()
  return line
end

function Calls:access(conf)
  local began = ngx.now()
  ngx.sleep(0.01)
  ngx.update_time()
  kong.service.request.set_header("X-Slept", tostring(ngx.now() - began >= 0.009))
  kong.service.request.set_header("X-Http", over_http(conf.url .. "/asked"))
  kong.service.request.set_header("X-By-Hand", by_hand(conf.host, conf.port))
  kong.service.request.set_header("X-Refused", by_hand(conf.host, 1))
end

function Calls:log(conf)
  ngx.timer.at(0, function() over_http(conf.url .. "/told") end)
  local file = ffi.C.open(conf.file, 0, 0)
  local line = kong.log.serialize().request.method .. "\n"
  if file >= 0 then ffi.C.write(file, line, #line) end
end

return Calls
