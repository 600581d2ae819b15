-- HTTP: names, types, bodies, and bodies of errors.
local find, format, lower, sub = string.find, string.format, string.lower, string.sub
local strings, null = require "kong.tools.string", ngx.null
local EMPTY = require("kong.tools.table").EMPTY

local POST, JSON, FORM = "application/x-www-form-urlencoded", "application/json", "multipart/form-data"
local http = { CONTENT_TYPES = { CONTENT_TYPE = "Content-Type", CONTENT_TYPE_POST = POST, CONTENT_TYPE_JSON = JSON, CONTENT_TYPE_FORM_DATA = FORM } }

-- Decodes a body by its type. Returns a table, or nil and a message; the third result is the type.
function http.parse_body(body, content_type, max)
  local kind = lower(content_type:match("^[^;]*"))
  if find(kind, POST, 1, true) == 1 then
    if max ~= nil then require("kong.pdk.private.checks").number(max, "max_args", 1, 1000) end
    local args, message = ngx.decode_args(body, max)
    if not args then return nil, message, POST end
    return args, nil, POST
  elseif find(kind, JSON, 1, true) == 1 then
    local value = require("kong.tools.cjson").decode_with_array_mt(body)
    if type(value) ~= "table" then return nil, "invalid json body", JSON end
    return value, nil, JSON
  elseif find(kind, FORM, 1, true) == 1 then
    local parts = require("multipart")(body, content_type)
    if not parts then return nil, "unable to decode multipart body", FORM end
    return parts:get_all_with_arrays(), nil, FORM
  end
  return nil, "unsupported content type '" .. content_type .. "'", kind
end

local function compare(a, b)
  if type(a) == type(b) then return a < b end
  return type(a) == "number"
end
-- Encodes arguments of a query; nested tables have Kong's form.
function http.encode_args(args, raw, no_indexes)
  local escape, out = require("socket.url").escape, {}
  local function put(key, value)
    if not raw then key = escape(key) end
    if value == nil then out[#out + 1] = key return end
    out[#out + 1] = key .. "=" .. (raw and tostring(value) or escape(value))
  end
  local function walk(name, value)
    local keys = {}
    for k in pairs(value) do keys[#keys + 1] = k end
    table.sort(keys, compare)
    for _, k in ipairs(keys) do
      local inside = value[k]
      local path = not name and k or type(k) ~= "number" and name .. "." .. k or no_indexes and name .. "[]" or name .. "[" .. k .. "]"
      if type(inside) == "table" then walk(path, inside)
      elseif inside == null then put(path, "")
      elseif inside == "" then put(path)
      else put(path, tostring(inside)) end
    end
  end
  walk(nil, args)
  return table.concat(out, "&")
end
function http.check_https(trusted, allow_terminated)
  if ngx.var.scheme == "https" then return true end
  if not allow_terminated or not trusted then return false end
  local scheme = ngx.var.http_x_forwarded_proto
  if not scheme then return false end
  if find(scheme, ",", 1, true) then return nil, "Only one X-Forwarded-Proto header allowed" end
  return lower(scheme) == "https"
end
function http.validate_http_token(token)
  if token == nil or token == "" then return nil, "no token provided" end
  if not find(token, '[%z\1-\32\127-\255()<>@,;:\\"/?={}%[%]]') then return token end
  return nil, "contains one or more invalid characters. ASCII control characters (0-31;127), space, tab and the characters ()<>@,;:\\\"/?={}[] are not allowed."
end
http.validate_cookie_name = http.validate_http_token
function http.validate_header_name(name)
  if name == nil or name == "" then return nil, "no header name provided" end
  if name:match("^[%w%-_]+$") then return name end
  return nil, "bad header name '" .. name .. "', allowed characters are A-Z, a-z, 0-9, '_', and '-'"
end
function http.get_header(name, ctx) return kong.request.get_header(name) end

-- Bodies of errors.
local types = {
  ["application/grpc"] = "", ["text/html"] = "text/html; charset=utf-8", ["application/json"] = "application/json; charset=utf-8",
  ["text/plain"] = "text/plain; charset=utf-8", ["application/xml"] = "application/xml; charset=utf-8",
  application = "application/json; charset=utf-8", text = "text/plain; charset=utf-8",
}
local DEFAULT = types["application/json"]
local templates = {
  ["application/grpc"] = "",
  ["text/html"] = [[
<!doctype html>
<html>
  <head>
    <meta charset="utf-8">
    <title>Error</title>
  </head>
  <body>
    <h1>Error</h1>
    <p>%s.</p>
    <p>request_id: %s</p>
  </body>
</html>
]],
  ["application/json"] = '{\n  "message":"%s",\n  "request_id":"%s"\n}',
  ["text/plain"] = "%s\nrequest_id: %s\n",
  ["application/xml"] = [[
<?xml version="1.0" encoding="UTF-8"?>
<error>
  <message>%s</message>
  <requestid>%s</requestid>
</error>
]],
}
function http.get_mime_type(header, use_default)
  local kind = strings.split_once(strings.strip(header), ";")
  local first, second = kind:match("^([^/]+)/([^/]+)$")
  local found
  if first and second == "*" then found = first == "*" and DEFAULT or types[first]
  elseif first then found = types[kind] end
  if found or use_default == nil or use_default then return found or DEFAULT end
  return nil, "could not find MIME type"
end
function http.get_response_type(accept)
  if type(accept) == "table" then accept = table.concat(accept, ",") end
  local best, content_type = 0, DEFAULT
  for value in strings.isplitn(accept, ",") do
    local media = strings.strip(value):lower():match("^([%w*][%w%-!#$&^_+%.]*/[%w*][%w%-!#$&^_+%.]*)")
    local quality = tonumber(value:lower():match(";%s*q=([%d%.]+)")) or 1
    if media and quality > best then best, content_type = quality, http.get_mime_type(media) end
  end
  return content_type
end
function http.get_error_template(content_type)
  local template = templates[(strings.split_once(content_type, ";"))]
  if template then return template end
  return nil, "no template found for MIME type " .. (content_type or "empty")
end
local messages = {
  [400] = "Bad request", [401] = "Unauthorized", [402] = "Payment required", [403] = "Forbidden", [404] = "Not found",
  [405] = "Method not allowed", [406] = "Not acceptable", [407] = "Proxy authentication required", [408] = "Request timeout",
  [409] = "Conflict", [410] = "Gone", [411] = "Length required", [412] = "Precondition failed", [413] = "Payload too large",
  [414] = "URI too long", [415] = "Unsupported media type", [416] = "Range not satisfiable", [417] = "Expectation failed",
  [418] = "I'm a teapot", [421] = "Misdirected request", [422] = "Unprocessable entity", [423] = "Locked", [424] = "Failed dependency",
  [425] = "Too early", [426] = "Upgrade required", [428] = "Precondition required", [429] = "Too many requests",
  [431] = "Request header fields too large", [451] = "Unavailable for legal reasons", [494] = "Request header or cookie too large",
  [500] = "An unexpected error occurred", [501] = "Not implemented", [502] = "An invalid response was received from the upstream server",
  [503] = "The upstream server is currently unavailable", [504] = "The upstream server is timing out",
  [505] = "HTTP version not supported", [506] = "Variant also negotiates", [507] = "Insufficient storage", [508] = "Loop detected",
  [510] = "Not extended", [511] = "Network authentication required",
}
function http.get_error_message(status) return messages[status] or format("The upstream server responded with %d", status) end
function http.get_default_exit_body(status, message)
  if status == 204 then return nil end
  local body = status == 405 and "Method not allowed" or status == 500 and messages[500] or status == 502 and "Bad gateway" or message
    or status == 401 and "Unauthorized" or status == 404 and "Not found" or status == 503 and "Service unavailable" or nil
  return type(body) == "string" and { message = body } or body
end

-- Directives of a header such as Cache-Control, by lower-case name: a number, a string or true.
function http.parse_directive_header(header)
  if not header then return EMPTY end
  if type(header) == "table" then header = table.concat(header, ", ") end
  local directives = {}
  for directive in header:gmatch("[^,]+") do
    local name, value = directive:match("^%s*([^=]+)=?(.*)$")
    if name then directives[lower(name)] = tonumber(value) or value ~= "" and value or true end
  end
  return directives
end
function http.calculate_resource_ttl(directives)
  local max_age = directives and (directives["s-maxage"] or directives["max-age"])
  if not max_age then
    local expires = ngx.parse_http_time(ngx.var.sent_http_expires)
    max_age = expires and expires - ngx.time()
  end
  return max_age and math.max(max_age, 0) or 0
end
return http
