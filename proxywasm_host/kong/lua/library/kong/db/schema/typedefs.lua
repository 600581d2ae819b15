-- Definitions that schemas share.
local Schema, constants = require "kong.db.schema", require "kong.constants"
local ip, http, strings, uri, url = require "kong.tools.ip", require "kong.tools.http", require "kong.tools.string", require "kong.tools.uri", require "socket.url"
local define, null = Schema.define, ngx.null

local function host(name)
  local found, message = ip.normalize_ip(name)
  if type(message) == "string" and message ~= "invalid port number" then return nil, "invalid value: " .. name end
  if message == "invalid port number" or found.port then return nil, "must not have a port" end
  return true
end
local function host_with_optional_port(name)
  local found, message = ip.normalize_ip(name)
  return found and true or nil, message
end
local function sni(name)
  local ok, message = host(name)
  if not ok then return nil, message end
  if ip.hostname_type(name) ~= "name" then return nil, "must not be an IP" end
  return true
end
local function wildcard_host(name)
  local at = name:find("*", 1, true)
  if at then
    if at ~= 1 and at ~= #name then return nil, "wildcard must be leftmost or rightmost character" end
    local replaced, count = name:gsub("%*", "wildcard")
    if count > 1 then return nil, "only one wildcard must be specified" end
    name = replaced
  end
  return sni(name)
end
local function valid(check, text)
  return function(value)
    if check(value) then return true end
    return nil, text:format(value)
  end
end
local function path(value)
  if not value:match("^/[%w%.%-_~/%%:@!$&'()*+,;=]*$") then
    return nil, "invalid path: '" .. value .. "' (characters outside of the reserved list of RFC 3986 found)", "rfc3986"
  end
  local bad = value:gsub("%%%x%x", "___"):match("%%.?.?")
  if bad then return nil, "invalid url-encoded value: '" .. bad .. "'", "percent" end
  return true
end
local function is_url(value)
  local parsed, message = url.parse(value)
  if not parsed then return nil, "could not parse url. " .. message end
  if not parsed.host then return nil, "missing host in url" end
  if not parsed.scheme then return nil, "missing scheme in url" end
  return true
end
local function utf8(value)
  local ok, at = strings.validate_utf8(value)
  if ok then return true end
  return nil, "invalid utf-8 character sequence detected at position " .. tostring(at)
end
local function tag(value)
  local ok, message = utf8(value)
  if not ok then return nil, message end
  if value:match("^[ \033-\043\045\046\048-\126\128-\244]+$") then return true end
  return nil, "invalid tag '" .. value .. "': expected printable ascii (except `,` and `/`) or valid utf-8 sequences"
end
local function name(value)
  if value:match("^[%w%.%-_~]+$") then return true end
  return nil, "invalid value '" .. value .. "': it must only contain alphanumeric and '., -, _, ~' characters"
end
local function utf8_name(value)
  local ok, message = utf8(value)
  if not ok then return nil, message end
  if value:match("^[%w%.%-_~\128-\244]+$") then return true end
  return nil, "invalid value '" .. value .. "': the only accepted ascii characters are alphanumerics or ., -, _, and ~"
end
local function pem(load, what)
  return function(value)
    local _, message = require(load).new(value)
    if message then return nil, "invalid " .. what .. ": " .. message end
    return true
  end
end

local http_protocols = {}
for _, protocol in ipairs(constants.PROTOCOLS) do
  if constants.PROTOCOLS_WITH_SUBSYSTEM[protocol] == "http" then http_protocols[#http_protocols + 1] = protocol end
end

local typedefs = {
  http_method = define { type = "string", match = "^%u+$" },
  protocol = define { type = "string", one_of = constants.PROTOCOLS },
  host = define { type = "string", custom_validator = host },
  redis_host = define { type = "string", custom_validator = host },
  host_with_optional_port = define { type = "string", custom_validator = host_with_optional_port },
  wildcard_host = define { type = "string", custom_validator = wildcard_host },
  ip = define { type = "string", custom_validator = valid(ip.is_valid_ip, "not an ip address: %s") },
  ip_or_cidr = define { type = "string", custom_validator = valid(ip.is_valid_ip_or_cidr, "invalid ip or cidr range: '%s'") },
  cidr_v4 = define { type = "string", custom_validator = valid(ip.is_valid_ip_or_cidr_v4, "invalid ipv4 cidr range: '%s'") },
  port = define { type = "integer", between = { 0, 65535 } },
  path = define {
    type = "string", starts_with = "/", match_none = { { pattern = "//", err = "must not have empty segments" } }, custom_validator = path,
  },
  url = define { type = "string", custom_validator = is_url },
  cookie_name = define { type = "string", custom_validator = http.validate_cookie_name },
  header_name = define { type = "string", custom_validator = http.validate_header_name },
  timeout = define { type = "integer", between = { 0, 2 ^ 31 - 2 } },
  uuid = define { type = "string", uuid = true, auto = true },
  auto_timestamp_s = define { type = "integer", timestamp = true, auto = true },
  auto_timestamp_ms = define { type = "number", timestamp = true, auto = true },
  name = define { type = "string", unique = true, custom_validator = name },
  utf8_name = define { type = "string", unique = true, custom_validator = utf8_name },
  sni = define { type = "string", custom_validator = sni },
  redis_server_name = define { type = "string", custom_validator = sni },
  certificate = define { type = "string", custom_validator = pem("resty.openssl.x509", "certificate") },
  key = define { type = "string", custom_validator = pem("resty.openssl.pkey", "key") },
  tag = define { type = "string", required = true, custom_validator = tag },
  capability = define { type = "string" },
  protocols = define {
    type = "set", required = true, default = http_protocols, elements = { type = "string", one_of = constants.PROTOCOLS },
  },
  protocols_http = define {
    type = "set", required = true, default = http_protocols, elements = { type = "string", one_of = http_protocols },
  },
  methods = define { type = "set", elements = { type = "string", match = "^%u+$" } },
  headers = define {
    type = "map", keys = { type = "string", custom_validator = http.validate_header_name },
    values = { type = "array", elements = { type = "string" } },
  },
  semantic_version = define {
    type = "string",
    match_any = { patterns = { "^%d+[%.%d]*$", "^%d+[%.%d]*%-?.*$" }, err = "invalid version number: must be in format of X.Y.Z" },
    match_none = { { pattern = "%.%.", err = "must not have empty version segments" } },
  },
  lua_code = define {
    type = "map", keys = { type = "string", len_min = 1 },
    values = { type = "string", len_min = 1, custom_validator = function(code) return require("kong.tools.sandbox").validate_safe(code) end },
  },
  queue = require "kong.tools.queue_schema",
}
typedefs.cidr = typedefs.cidr_v4
typedefs.tags = define { type = "set", elements = typedefs.tag }
for _, what in ipairs { "route", "service", "consumer" } do
  typedefs["no_" .. what] = define { type = "foreign", reference = what .. "s", eq = null }
end
return typedefs
