-- kong.service.request: the request to upstream.
local _, host = ...
local checks, phases = require "kong.pdk.private.checks", require "kong.pdk.private.phases"
local cjson, escape = require "cjson.safe", require("kong.tools.uri").escape
local get, only = host.get, phases.only
local error, find, ipairs, lower, pairs, sort, sub, tostring, type = error, string.find, ipairs, string.lower, pairs, table.sort, string.sub, tostring, type

local request = {}

request.enable_buffering = only(phases.to_service, function() host.enable_buffering() end)
request.set_scheme = only(phases.to_service, function(scheme)
  checks.string(scheme, "scheme")
  if scheme ~= "http" and scheme ~= "https" then error("invalid scheme: " .. scheme, 2) end
  host.set("upstream_scheme", scheme)
end)
request.set_path = only(phases.to_service, function(path)
  checks.string(path, "path")
  if sub(path, 1, 1) ~= "/" then error("path must start with /", 2) end
  host.set("upstream_path", escape(path))
end)
request.set_raw_query = only(phases.rewrite_access, function(query)
  checks.string(query, "query")
  host.set("query", query)
end)

local methods = {}
for name in ("GET HEAD PUT POST DELETE OPTIONS MKCOL COPY MOVE PROPFIND PROPPATCH LOCK UNLOCK PATCH TRACE"):gmatch("%S+") do methods[name] = true end
request.set_method = only(phases.rewrite_access, function(method)
  checks.string(method, "method")
  if not methods[method] then error("invalid method: " .. method, 2) end
  host.set("method", method)
end)

local function encoded(args)
  for key in pairs(args) do
    if type(key) ~= "string" then error("arg keys must be strings", 4) end
  end
  local ok, query = pcall(ngx.encode_args, args)
  if not ok then error(query, 4) end
  return query
end
request.set_query = only(phases.rewrite_access, function(args)
  if type(args) ~= "table" then error("args must be a table", 2) end
  host.set("query", encoded(args))
end)
request.clear_query_arg = only(phases.rewrite_access, function(name)
  if type(name) ~= "string" then error("query argument name must be a string", 2) end
  local kept = {}
  for part in string.gmatch(get("query"), "[^&]+") do
    if ngx.unescape_uri((part:gsub("=.*$", ""))) ~= name then kept[#kept + 1] = (part:gsub("%+", "%%20")) end
  end
  host.set("query", table.concat(kept, "&"))
end)

local function set(name, value)
  if lower(name) == "host" then host.set("host_header", type(value) == "table" and value[1] or tostring(value)) end
  host.set_header("request", name, checks.normalize_multi_header(value))
end
request.set_header = only(phases.to_service, function(name, value)
  checks.validate_header(name, value)
  if lower(name) == ":authority" then return nil, "cannot set :authority pseudo-header on non-grpc requests" end
  set(name, value)
end)
request.add_header = only(phases.rewrite_access, function(name, value)
  checks.validate_header(name, value)
  if lower(name) == "host" then return set(name, value) end
  host.add_header("request", name, checks.normalize_multi_header(value))
end)
request.clear_header = only(phases.rewrite_access, function(name)
  if type(name) ~= "string" then error("header must be a string", 2) end
  host.remove_header("request", name)
end)
request.set_headers = only(phases.rewrite_access, function(headers)
  if type(headers) ~= "table" then error("headers must be a table", 2) end
  checks.validate_headers(headers)
  for name, value in pairs(headers) do set(name, value) end
end)

local function replace_body(body)
  ngx.req.read_body()
  host.set("body", body)
  -- content-length is set when the request is sent upstream.
  if host.header("request", "content-length") then host.set_header("request", "content-length", #body) end
end
request.set_raw_body = only(phases.to_service, function(body)
  checks.string(body, "body")
  replace_body(body)
end)

local function form(args, mime)
  local keys, boundary = {}, mime:match('boundary="([^"]+)"') or mime:match("boundary=([^;%s]+)")
  for key, value in pairs(args) do
    if type(key) ~= "string" then error(("invalid key %q: got %s, expected string"):format(tostring(key), type(key)), 4) end
    local kind = type(value)
    if kind ~= "string" and kind ~= "number" and kind ~= "boolean" then
      error(("invalid value %q: got %s, expected string, number or boolean"):format(key, kind), 4)
    end
    keys[#keys + 1] = key
    if boundary and find(tostring(value), "\n--" .. boundary, 1, true) then boundary = nil end
  end
  boundary = boundary or (require("kong.tools.uuid").uuid():gsub("-", ""))
  sort(keys)
  local out = {}
  for _, key in ipairs(keys) do
    out[#out + 1] = "--" .. boundary .. '\r\nContent-Disposition: form-data; name="' .. key .. '"\r\n\r\n' .. tostring(args[key]) .. "\r\n"
  end
  return table.concat(out) .. "--" .. boundary .. "--\r\n", "multipart/form-data; boundary=" .. boundary
end
local writers = {
  ["application/x-www-form-urlencoded"] = function(args, mime) return encoded(args), mime end,
  ["application/json"] = function(args, mime)
    local json, message = cjson.encode(args)
    if not json then error(message, 3) end
    return json, mime
  end,
  ["multipart/form-data"] = form,
}
request.set_body = only(phases.rewrite_access, function(args, mime)
  if type(args) ~= "table" then error("args must be a table", 2) end
  if mime and type(mime) ~= "string" then error("mime must be a string", 2) end
  mime = mime or host.header("request", "content-type")
  if not mime then return nil, "content type was neither explicitly given as an argument or received as a header" end
  local write = writers[mime:match("^[^;]+")]
  if not write then error("unsupported content type " .. mime, 2) end
  local body, content_type = write(args, mime)
  replace_body(body)
  host.set_header("request", "content-type", content_type)
  return true
end)
local function stream_only() error("function cannot be called in access phase (only in: balancer, preread)", 2) end
request.disable_tls, request.enable_tls = stream_only, stream_only
return request
