-- The environment of plugins: Lua's library without the parts that reach outside, `require`, and coroutines that wait
-- for Python. It runs once in a new LuaJIT, and returns functions for Python. Plugins cannot reach its arguments.
local host, failed, cpu_time, time_limit = ...

local native_load, native_setmetatable, native_getmetatable = load, setmetatable, getmetatable
local sethook, traceback, newproxy, memory_in_use = debug.sethook, debug.traceback, newproxy, collectgarbage
local create, native_resume, native_wrap, yield, status, running =
  coroutine.create, coroutine.resume, coroutine.wrap, coroutine.yield, coroutine.status, coroutine.running
local error, next, pcall, rawget, rawset, select, tostring, type, unpack = error, next, pcall, rawget, rawset, select, tostring, type, unpack
local os_time, os_date, os_clock, os_difftime = os.time, os.date, os.clock, os.difftime

-- A Python function that fails returns `failed` and the reason.
local function passed(first, ...)
  if first == failed then error((...), 2) end
  return first, ...
end

local functions = {}
for name, f in pairs(host) do
  functions[name] = function(...) return passed(f(...)) end
end

-- Time ----------------------------------------------------------------------------------------------------------------

-- Compiled code calls no hook, so nothing is compiled while time is limited. Reading the clock is slow, so a handler is
-- timed only after this number of instructions.
local INSTRUCTIONS = 10000
local began, left, expired = nil, math.huge, false
local message = time_limit and "the handler used more than its " .. time_limit .. " s of processor time"
local function in_plugin()
  local thread, is_main = running()
  return thread and not is_main
end
local function stop()
  if in_plugin() then error(message, 0) end
end
local function check()
  if not began then
    began = cpu_time()
  elseif cpu_time() - began > left and in_plugin() then
    -- From now on each instruction raises, so that the plugin cannot continue after a `pcall`.
    expired = true
    sethook(stop, "", 1)
    stop()
  end
end
if time_limit then
  jit.off()
  jit.flush()
  sethook(check, "", INSTRUCTIONS)
end

-- Coroutines ----------------------------------------------------------------------------------------------------------

local EFFECT = {}

-- A plugin may wait inside its own coroutines: they pass the effect outward to us, and its result inward.
local function outward(thread, ok, mark, ...)
  if ok and mark == EFFECT then return outward(thread, native_resume(thread, yield(mark, ...))) end
  return ok, mark, ...
end

coroutine.resume = function(thread, ...)
  return outward(thread, native_resume(thread, ...))
end

local function or_error(ok, ...)
  if ok then return ... end
  error((...), 0)
end

coroutine.wrap = function(f)
  local thread = create(f)
  return function(...) return or_error(outward(thread, native_resume(thread, ...))) end
end

-- Waits for an effect: `effect(name, ...)` returns its results from Python.
functions.effect = function(...) return yield(EFFECT, ...) end

-- Timers stay here until they run: Python must not keep a value of a coroutine that may be freed earlier.
local timers, number = {}, 0
functions.timer = function(seconds, f, ...)
  number = number + 1
  timers[number] = { f = f, n = select("#", ...), ... }
  functions.start_timer(seconds, number)
end
local function run_timer(which)
  local timer = timers[which]
  timers[which] = nil
  return timer.f(false, unpack(timer, 1, timer.n))
end

-- Libraries -----------------------------------------------------------------------------------------------------------

local null = newproxy(true)
do
  local meta = native_getmetatable(null)
  meta.__tostring = function() return "userdata: NULL" end
  meta.__metatable = false
end
functions.null = null
-- All strings share their metatable.
native_getmetatable("").__metatable = false

local version = { version = jit.version, version_num = jit.version_num, os = jit.os, arch = jit.arch }
local nothing = function() end
for _, name in ipairs { "on", "off", "flush" } do version[name] = nothing end
version.status = function() return not time_limit end

for _, name in ipairs {
  "python", "io", "debug", "package", "dofile", "loadfile", "newproxy", "module", "gcinfo", "print",
} do
  _G[name] = nil
end
string.dump = nil
jit = version
os = {
  time = os_time, date = os_date, clock = os_clock, difftime = os_difftime,
  getenv = function(name) return functions.getenv(name) end,
}
debug = { traceback = function(...) return traceback(...) end }

-- OpenResty's LuaJIT is built with this part of Lua 5.2.
local native_pairs = pairs
function pairs(t)
  local meta = native_getmetatable(t)
  local own = type(meta) == "table" and rawget(meta, "__pairs")
  if own then return own(t) end
  return native_pairs(t)
end

-- Text only: LuaJIT does not check bytecode.
load = function(chunk, name, _, ...)
  if select("#", ...) > 0 then return native_load(chunk, name, "t", (...)) end
  return native_load(chunk, name, "t")
end
loadstring = function(chunk, name) return native_load(chunk, name, "t") end
collectgarbage = function(what) return what == "count" and memory_in_use("count") or 0 end
table.unpack = unpack
table.pack = function(...) return { n = select("#", ...), ... } end

local loaded, preload, loading = {}, {}, {}
for _, name in ipairs { "bit", "coroutine", "math", "os", "string", "table" } do loaded[name] = _G[name] end
loaded._G = _G
package = { loaded = loaded, preload = preload, path = "", cpath = "", config = "/\n;\n?\n!\n-\n" }

function require(name)
  local module = loaded[name]
  if module ~= nil then return module end
  if type(name) ~= "string" then error("bad argument #1 to 'require' (string expected, got " .. type(name) .. ")", 2) end
  if loading[name] then error("loop or previous error loading module '" .. name .. "'", 2) end
  local load_it, ours = preload[name], false
  if not load_it then
    local text, chunk, message
    text, chunk, ours = functions.find_module(name)
    if not text then error(chunk, 2) end
    load_it, message = native_load(text, "@" .. chunk, "t")
    if not load_it then error("error loading module '" .. name .. "':\n\t" .. message, 2) end
  end
  loading[name] = true
  -- Our own modules may call Python.
  module = load_it(name, ours and functions or nil)
  loading[name] = nil
  if module == nil then module = loaded[name] end
  if module == nil then module = true end
  loaded[name] = module
  return module
end

-- Called by Python ----------------------------------------------------------------------------------------------------

-- The current request, which our modules read; `go_on` sets its state.
local current = {}
functions.current = current

local function outcome(thread, ok, mark, ...)
  if not ok then
    -- Not `tostring`: an error may be a table, whose `__tostring` is the plugin's code.
    local text = (type(mark) == "string" or type(mark) == "number") and mark .. "" or "(error object is a " .. type(mark) .. " value)"
    return "error", text, traceback(thread, text)
  end
  if status(thread) == "dead" then return "done", mark, ... end
  if mark == EFFECT then return "effect", ... end
  return "error", "attempt to yield from outside a coroutine", ""
end

local function begun(go_on, shared, what, ...)
  return what == "effect" and go_on or nil, shared, what, ...
end

-- Runs `f` in a new coroutine until it waits or ends. If it waits, the first result is a function that resumes it.
-- The other results, which that function returns, too: whether `kong.ctx.shared` has entries, the outcome, its values.
local function start(f, ...)
  local thread, remaining = create(f), time_limit

  local function ended(...)
    if began then remaining = remaining - (cpu_time() - began) end
    if expired then
      expired = false
      sethook(check, "", INSTRUCTIONS)
    end
    local shared = current.state.shared
    return type(shared) == "table" and next(shared) ~= nil, outcome(thread, ...)
  end

  local function go_on(state, phase, plugin, ...)
    current.state = state
    state.phase, state.plugin = phase, plugin
    began, left = nil, remaining
    return ended(native_resume(thread, ...))
  end
  return begun(go_on, go_on(...))
end

return {
  start = start, run_timer = run_timer, null = null, require = require,
  -- The state that Lua keeps for one request.
  new_state = function() return { ctx = native_setmetatable({}, current.ctx), plugins = {}, shared = {} } end,
  -- Without metatables, which plugins may have set.
  member = function(t, key) return type(t) == "table" and rawget(t, key) or nil end,
  shared = function(state) return type(state.shared) == "table" and state.shared or nil end,
  share = function(state, key, value) if type(state.shared) == "table" then rawset(state.shared, key, value) end end,
}
