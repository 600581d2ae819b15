-- kong.client: the sender of the request.
local _, host = ...
local phases = require "kong.pdk.private.phases"
local is_valid_uuid = require("kong.tools.uuid").is_valid_uuid
local current, get, only = host.current, host.get, phases.only
local error, type = error, type

local client = {}
for name, value in pairs {
  get_ip = "ip", get_forwarded_ip = "forwarded_ip", get_port = "port_of_client", get_forwarded_port = "forwarded_port",
} do
  client[name] = only(phases.not_init, function() return get(value) end)
end
client.get_credential = only(phases.access_on, function() return current.state.credential or host.current.entity("credential") end)
client.get_consumer = only(phases.access_on, function() return current.state.consumer or host.current.entity("consumer") end)
client.get_consumer_group = only(phases.access_on, function() end)
client.get_consumer_groups = client.get_consumer_group

client.authenticate = only(phases.access, function(consumer, credential)
  if consumer ~= nil and type(consumer) ~= "table" then error("consumer must be a table or nil", 2) end
  if credential ~= nil and type(credential) ~= "table" then error("credential must be a table or nil", 2) end
  if consumer == nil and credential == nil then error("either credential or consumer must be provided", 2) end
  local state = current.state
  state.consumer, state.credential = consumer, credential
  state.ctx.authenticated_consumer, state.ctx.authenticated_credential = consumer, credential
  host.authenticate(consumer, credential)
end)

client.load_consumer = only(phases.access_on, function(consumer_id, by_username)
  if type(consumer_id) ~= "string" then error("consumer_id must be a string", 2) end
  local is_id = is_valid_uuid(consumer_id)
  if not is_id and not by_username then error("cannot load a consumer with an id that is not a uuid", 2) end
  local consumer, message
  if is_id then consumer, message = kong.db.consumers:select({ id = consumer_id }) end
  if not consumer and not message and by_username then consumer, message = kong.db.consumers:select_by_username(consumer_id) end
  return consumer, message
end)

client.get_protocol = only(phases.routed, function(allow_terminated)
  local route = host.current.entity("route")
  if not route then return nil, "No active route found" end
  local protocols = route.protocols or { "http", "https" }
  if #protocols == 1 then return protocols[1] end
  return get(allow_terminated and "forwarded_scheme" or "scheme") == "https" and "https" or "http"
end)
return client
