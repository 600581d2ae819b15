-- The phases in which a function may be called. In other phases a call is an error with Kong's message.
local _, host = ...
local current, concat, error, format = host.current, table.concat, error, string.format

local order = { "init_worker", "certificate", "client_hello", "rewrite", "access", "balancer", "response", "header_filter", "body_filter", "log", "preread", "error", "admin_api" }

local function set(...)
  local phases = {}
  for _, names in ipairs { ... } do
    for name in names:gmatch("%S+") do phases[name] = true end
  end
  return phases
end

local function listed(phases)
  local names = {}
  for _, name in ipairs(order) do
    if phases[name] then names[#names + 1] = name end
  end
  return concat(names, ", ")
end

-- `f`, limited to these phases.
local function only(phases, f)
  return function(...)
    local phase = current.state.phase
    if not phases[phase] then
      error(format("function cannot be called in %s phase (only in: %s)", phase, listed(phases)), 2)
    end
    return f(...)
  end
end

local request = "rewrite access balancer response header_filter body_filter log error admin_api"
return {
  only = only,
  request = set(request),
  before_content = set "rewrite access response error admin_api",
  access_on = set "access header_filter response body_filter log",
  routed = set "access header_filter response body_filter log preread",
  response = set "response header_filter body_filter log error admin_api",
  to_response = set "rewrite access response balancer header_filter error admin_api",
  body_filter = set "body_filter",
  service_response = set "response header_filter body_filter log",
  to_service = set "rewrite access balancer",
  rewrite_access = set "rewrite access",
  access = set "access",
  log = set "log",
  not_init = set(request, "certificate preread"),
}
