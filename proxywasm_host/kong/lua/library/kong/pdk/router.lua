-- kong.router
local _, host = ...
local phases = require "kong.pdk.private.phases"
return {
  get_route = phases.only(phases.routed, function() return host.current.entity("route") end),
  get_service = phases.only(phases.routed, function() return host.current.entity("service") end),
}
