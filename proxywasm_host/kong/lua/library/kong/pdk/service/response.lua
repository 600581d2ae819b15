-- kong.service.response: upstream's response.
local _, host = ...
local checks, phases = require "kong.pdk.private.checks", require "kong.pdk.private.phases"
local tools = require "kong.tools.http"
local get, only = host.get, phases.only

local response = {}
response.get_status = only(phases.service_response, function() return get("service_status") end)
response.get_headers = only(phases.service_response, function(max)
  if max ~= nil then checks.number(max, "max_headers", 1, 1000) end
  return ngx.headers_of("service", max)
end)
response.get_header = only(phases.service_response, function(name)
  if type(name) ~= "string" then error("name must be a string", 2) end
  return host.header("service", name)
end)
local function body()
  if not host.is_buffered() then
    error("service body is only available with buffered proxying (see: kong.service.request.enable_buffering function)", 3)
  end
  return get("service_body") or ""
end
response.get_raw_body = only(phases.service_response, function() return (body()) end)
response.get_body = only(phases.service_response, function(mimetype, max)
  local raw, content_type = body(), mimetype or host.header("service", "content-type")
  if not content_type then return nil, "missing content type" end
  return tools.parse_body(raw, content_type, max)
end)
return response
