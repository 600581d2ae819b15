-- kong.request: the client's request.
local _, host = ...
local checks, phases = require "kong.pdk.private.checks", require "kong.pdk.private.phases"
local cjson, tools = require "kong.tools.cjson", require "kong.tools.http"
local get, only, in_request = host.get, phases.only, phases.request
local error, find, lower, setmetatable, sub, type = error, string.find, string.lower, setmetatable, string.sub, type

local POST, JSON, FORM = "application/x-www-form-urlencoded", "application/json", "multipart/form-data"

local request = {}

for name, value in pairs {
  get_scheme = "scheme", get_host = "host", get_forwarded_scheme = "forwarded_scheme", get_forwarded_host = "forwarded_host",
  get_forwarded_port = "forwarded_port_of_request", get_forwarded_path = "forwarded_path", get_forwarded_prefix = "forwarded_prefix",
  get_http_version = "http_version", get_method = "method", get_path = "path", get_raw_path = "raw_path",
  get_path_with_query = "request_uri", get_raw_query = "query",
} do
  request[name] = only(in_request, function() return get(value) end)
end
request.get_port = only(phases.not_init, function() return get("port") end)
request.get_start_time = only(in_request, function() return get("started") * 1000 end)

request.get_query = only(in_request, function(max)
  if max ~= nil then checks.number(max, "max_args", 1, 1000) end
  return ngx.decode_args(get("query"), max)
end)
request.get_query_arg = only(in_request, function(name)
  if type(name) ~= "string" then error("query argument name must be a string", 2) end
  local value = ngx.decode_args(get("query"))[name]
  if type(value) == "table" then return value[1] end
  return value
end)
request.get_header = only(in_request, function(name)
  if type(name) ~= "string" then error("header name must be a string", 2) end
  return host.header("request", name)
end)
request.get_headers = only(in_request, function(max)
  if max ~= nil then checks.number(max, "max_headers", 1, 1000) end
  return ngx.req.get_headers(max)
end)

local function raw_body()
  ngx.req.read_body()
  return get("body") or ""
end
request.get_raw_body = only(phases.before_content, raw_body)
request.get_body = only(phases.before_content, function(mimetype, max)
  local content_type = mimetype or host.header("request", "content-type")
  if not content_type then return nil, "missing content type" end
  return tools.parse_body(raw_body(), content_type, max)
end)

request.get_uri_captures = only(in_request, function()
  local named, unnamed = host.captures()
  return { named = named, unnamed = setmetatable(unnamed, cjson.array_mt) }
end)
return request
