-- Code in configurations. It runs in the sandbox of plugins, with a part of their globals.
local sandbox = {}
local names = {
  "assert", "error", "ipairs", "next", "pairs", "pcall", "print", "select", "tonumber", "tostring", "type", "unpack", "xpcall",
  "bit", "coroutine", "math", "string", "table", "ngx", "kong",
}
local environment = {}
for _, name in ipairs(names) do environment[name] = _G[name] end
environment.os = { time = os.time, date = os.date, clock = os.clock, difftime = os.difftime }
environment.require = function(name) error(("require '%s' not allowed within sandbox"):format(name), 2) end
environment._G = environment

sandbox.configuration = { enabled = true, sandbox_enabled = true, environment = environment, sandbox_mt = { __index = environment } }
function sandbox.sandbox(chunk, name, _, env)
  local f, message = load(chunk, type(name) == "string" and name or "sandbox", "t", setmetatable(env or {}, { __index = environment }))
  if not f then error(message, 0) end
  return f
end
sandbox.sandbox_lua, sandbox.sandbox_schema, sandbox.sandbox_handler = sandbox.sandbox, sandbox.sandbox, sandbox.sandbox
function sandbox.validate_function(chunk, ...)
  local ok, f = pcall(sandbox.sandbox, chunk, ...)
  if not ok then return false, "Error parsing function: " .. f end
  local ran, value = pcall(f)
  if not ran then return false, value end
  if type(value) == "function" then return value end
  return false, "Bad return value from function, expected function type, got " .. type(value)
end
function sandbox.parse(...) return assert(sandbox.validate_function(...)) end
function sandbox.validate(...)
  local f, message = sandbox.validate_function(...)
  if not f then return false, message end
  return true
end
function sandbox.validate_safe(chunk, ...)
  local ok, message = pcall(sandbox.sandbox, chunk, ...)
  if not ok then return false, "Error parsing function: " .. message end
  return true
end
return sandbox
