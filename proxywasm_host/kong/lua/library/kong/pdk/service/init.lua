-- kong.service: the destination of the request.
local _, host = ...
local checks, phases = require "kong.pdk.private.checks", require "kong.pdk.private.phases"
local only = phases.only

local function refused(what) return function() return nil, what .. " is not supported" end end
local service = {}

service.set_upstream = only(phases.access, function(name)
  checks.string(name, "host")
  if not host.has_upstream(name) then return nil, "could not find an Upstream named '" .. name .. "'" end
  host.set("upstream_host", name)
  return true
end)
service.set_target = only(phases.to_service, function(name, port)
  checks.string(name, "host")
  checks.integer(port, "port", 0, 65535)
  host.set("upstream_host", name)
  host.set("upstream_port", port)
end)
service.set_retries = only(phases.access, refused "set_retries")
service.set_timeouts = only(phases.access, refused "set_timeouts")
for _, name in ipairs { "set_tls_cert_key", "set_tls_verify", "set_tls_verify_depth", "set_tls_verify_store", "set_target_retry_callback" } do
  service[name] = refused(name)
end
return service
