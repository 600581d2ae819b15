-- `kong`, the plugin development kit, version 3.9.
local _, host = ...
local current, rawset = host.current, rawset
local meta = require "kong.meta"

local kong = {
  version = meta.version, version_num = meta.version_num, pdk_major_version = 2, pdk_version = "2.1.0",
  configuration = {
    database = "off", role = "traditional", untrusted_lua = "sandbox", untrusted_lua_sandbox_requires = {},
    untrusted_lua_sandbox_environment = {}, trusted_ips = {}, host_ports = {}, loaded_plugins = {}, anonymous_reports = false,
    nginx_http_directives = {}, prefix = "", enabled_headers = { ["X-Kong-Request-Id"] = true },
  },
  default_workspace = "0dc6f45b-8f8d-40d2-a504-473544ee190b",
}
_G.kong = kong

-- kong.ctx, for one request: `plugin` belongs to one plugin, `shared` to all.
kong.ctx = setmetatable({}, {
  __index = function(_, name)
    local state = current.state
    if name == "shared" then return state.shared end
    if name == "core" then return state.ctx end
    if name == "plugin" then
      local plugin = state.plugin or ""
      local own = state.plugins[plugin]
      if not own then
        own = {}
        state.plugins[plugin] = own
      end
      return own
    end
  end,
  __newindex = function(t, name, value)
    local state = current.state
    if name == "plugin" then state.plugins[state.plugin or ""] = value
    elseif name == "shared" then state.shared = value
    else rawset(t, name, value) end
  end,
})

for _, name in ipairs { "table", "log", "ip", "request", "client", "router", "response", "node", "nginx", "vault", "cache", "db", "timer" } do
  kong[name] = require("kong.pdk." .. name)
end
kong.service = require "kong.pdk.service"
kong.service.request = require "kong.pdk.service.request"
kong.service.response = require "kong.pdk.service.response"
kong.core_cache = kong.cache
kong.plugin = { get_id = function() return current.state.plugin or "" end }
kong.telemetry = { log = function() return nil, "telemetry is not supported" end }
-- There is only one node, whose processes do not notify each other.
kong.cluster_events = { subscribe = function() return true end, broadcast = function() return true end }
kong.worker_events = { register = function() return true end, post = function() return true end, post_local = function() return true end, poll = function() return true end }
kong.dns = { toip = function(name, port) return name, port end, resolve = function(name) return { { address = name } } end }
return kong
