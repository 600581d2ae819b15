-- kong.response: the response to the client.
local _, host = ...
local checks, phases = require "kong.pdk.private.checks", require "kong.pdk.private.phases"
local cjson, tools = require "cjson.safe", require "kong.tools.http"
local current, effect, get, only = host.current, host.effect, host.get, phases.only
local error, find, format, lower, pairs, type = error, string.find, string.format, string.lower, pairs, type

local response = {}

response.get_status = only(phases.response, function() return get("status") end)
response.get_source = function() return get("source") or "error" end
response.get_header = only(phases.response, function(name)
  if type(name) ~= "string" then error("header name must be a string", 2) end
  return host.header("response", name)
end)
response.get_headers = only(phases.response, function(max)
  if max ~= nil then checks.number(max, "max_headers", 1, 1000) end
  return ngx.resp.get_headers(max)
end)

local function check_status(status, least, level)
  if type(status) ~= "number" then error("code must be a number", level) end
  if status < least or status > 599 then error(format("code must be a number between %u and 599", least), level) end
end
response.set_status = only(phases.to_response, function(status)
  check_status(status, 100, 3)
  ngx.status = status
end)

local function set(name, value)
  local lowered = lower(name)
  if lowered == "transfer-encoding" or lowered == "transfer_encoding" then
    kong.log.warn("manually setting Transfer-Encoding. Ignored.")
  else
    host.set_header("response", name, checks.normalize_multi_header(value))
  end
end
response.set_header = only(phases.to_response, function(name, value)
  checks.validate_header(name, value)
  set(name, value)
end)
response.add_header = only(phases.to_response, function(name, value)
  checks.validate_header(name, value)
  host.add_header("response", name, checks.normalize_multi_header(value))
end)
response.clear_header = only(phases.to_response, function(name)
  if type(name) ~= "string" then error("header name must be a string", 2) end
  host.remove_header("response", name)
end)
response.set_headers = only(phases.to_response, function(headers)
  checks.validate_headers(headers)
  for name, value in pairs(headers) do set(name, value) end
end)

-- Holds back all parts until the last one, which gets the whole body.
response.get_raw_body = only(phases.body_filter, function()
  local state, chunk, last = current.state, get("chunk"), get("last")
  local own = kong.ctx.plugin
  local parts = state.parts and state.parts[own]
  if last and not parts then return chunk end
  state.parts = state.parts or {}
  parts = parts or {}
  state.parts[own] = parts
  parts[#parts + 1] = chunk
  if not last then
    host.set("chunk", "")
    return nil
  end
  state.parts[own] = nil
  local body = table.concat(parts)
  host.set("chunk", body)
  return body
end)
response.set_raw_body = only(phases.body_filter, function(body)
  if type(body) ~= "string" then error("body must be a string", 2) end
  local state = current.state
  if state.parts then state.parts[kong.ctx.plugin] = nil end
  host.set("chunk", body)
  host.set("last", true)
end)

local GRPC_STATUS = { [200] = 0, [400] = 3, [401] = 16, [403] = 7, [404] = 5, [409] = 6, [429] = 8, [499] = 1, [500] = 13, [501] = 12, [503] = 14, [504] = 4 }
local GRPC_MESSAGE = {
  [0] = "OK", "Canceled", "Unknown", "InvalidArgument", "DeadlineExceeded", "NotFound", "AlreadyExists", "PermissionDenied",
  "ResourceExhausted", "FailedPrecondition", "Aborted", "OutOfRange", "Unimplemented", "Internal", "Unavailable", "DataLoss", "Unauthenticated",
}
local function is_grpc_request()
  local content_type = host.header("request", "content-type")
  return content_type and find(content_type, "application/grpc", 1, true) == 1 and get("http_version") == 2
end

-- As in Kong, a body that is not a string becomes JSON, and gRPC has its status in headers.
local function send(status, body, headers)
  current.state.status = status
  for name, value in pairs(headers or {}) do set(name, value) end
  local content_type = host.header("response", "content-type")
  local grpc_output = content_type and find(content_type, "application/grpc", 1, true) == 1
  local grpc = grpc_output or (not content_type and is_grpc_request())
  local grpc_status
  if grpc and not host.header("response", "grpc-status") then
    local rounded = status >= 200 and status <= 599 and math.floor(status / 100) * 100
    grpc_status = GRPC_STATUS[status] or (rounded ~= 300 and GRPC_STATUS[rounded]) or 2
    host.set_header("response", "grpc-status", grpc_status)
  end
  if type(body) == "table" then
    if grpc then
      if grpc_output then error("table body encoding with gRPC is not supported", 3) end
      body = type(body.message) == "string" and body.message or nil
    else
      local json, message = cjson.encode(body)
      if not json then error(format("body encoding failed while flushing response: %s", message), 3) end
      body = json
      if not content_type then host.set_header("response", "Content-Type", "application/json; charset=utf-8") end
    end
  end
  if grpc and not grpc_output and body ~= nil then
    host.set_header("response", "grpc-message", body)
    body = ""
  elseif grpc_status and not host.header("response", "grpc-message") then
    host.set_header("response", "grpc-message", GRPC_MESSAGE[grpc_status])
  end
  body = body or ""
  if not host.header("response", "content-length") then host.set_header("response", "Content-Length", #body) end
  host.exit(status, body)
  return effect("exit")
end

local function check_headers(headers)
  if headers == nil then return end
  if type(headers) ~= "table" then error("headers must be a nil or table", 3) end
  checks.validate_headers(headers)
end

local exit = only(phases.to_response, function(status, body, headers)
  check_status(status, 100, 3)
  if body ~= nil and type(body) ~= "string" and type(body) ~= "table" then error("body must be a nil, string or table", 2) end
  check_headers(headers)
  return send(status, body, headers)
end)

-- In `preread` the connection is closed, without an answer.
function response.exit(status, ...)
  if current.state.phase ~= "preread" then return exit(status, ...) end
  check_status(status, 100, 2)
  host.exit(status, "")
  return effect("exit")
end

response.error = only(phases.to_response, function(status, message, headers)
  check_status(status, 400, 3)
  if type(message) == "table" then
    local json, problem = cjson.encode(message)
    if not json then error("could not JSON encode the error message: " .. problem, 2) end
    message = json
  end
  if message ~= nil and type(message) ~= "string" then error("message must be a nil, a string or a table", 2) end
  check_headers(headers)
  local all = {}
  for name, value in pairs(headers or {}) do all[name] = value end
  local content_type = all["Content-Type"]
  if type(content_type) == "table" then content_type = content_type[1] end
  if not content_type then
    content_type = is_grpc_request() and "application/grpc" or tools.get_response_type(host.header("request", "accept"))
  end
  all["Content-Type"] = content_type
  local template, body = tools.get_error_template(content_type), nil
  if template and template ~= "" then
    body = format(template, message or tools.get_error_message(status), get("id") or "")
  end
  return send(status, body, all)
end)
return response
