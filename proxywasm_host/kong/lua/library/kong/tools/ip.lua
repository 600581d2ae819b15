-- Addresses and names of hosts, with Kong's messages.
local _, host = ...
local format, gsub, tonumber, type = string.format, string.gsub, tonumber, type
local ip = {}
function ip.is_valid_ipv4(s) return host.ip_version(s) == 4 end
function ip.is_valid_ipv6(s) return host.ip_version(s) == 6 end
function ip.is_valid_ip(s) return host.ip_version(s) ~= nil end
local function cidr(s, version, bits)
  if type(s) ~= "string" then return false end
  local address, prefix = s:match("^([^/]+)/(%d+)$")
  return address ~= nil and tonumber(prefix) <= bits and host.ip_version(address) == version
end
function ip.is_valid_cidr_v4(s) return cidr(s, 4, 32) end
function ip.is_valid_cidr_v6(s) return cidr(s, 6, 128) end
function ip.is_valid_cidr(s) return ip.is_valid_cidr_v4(s) or ip.is_valid_cidr_v6(s) end
function ip.is_valid_ip_or_cidr_v4(s) return ip.is_valid_ipv4(s) or ip.is_valid_cidr_v4(s) end
function ip.is_valid_ip_or_cidr_v6(s) return ip.is_valid_ipv6(s) or ip.is_valid_cidr_v6(s) end
function ip.is_valid_ip_or_cidr(s) return ip.is_valid_ip(s) or ip.is_valid_cidr(s) end

function ip.hostname_type(name)
  local rest, colons = gsub(name, ":", "")
  if colons > 1 then return "ipv6" end
  return rest:match("^[%d%.]+$") and "ipv4" or "name"
end
local function port_of(text)
  if text == nil then return nil end
  local port = tonumber(text)
  if not port or port > 65535 then return nil, "invalid port number" end
  return port
end
function ip.normalize_ipv4(address)
  local a, b, c, d, port = address:match("^(%d%d?%d?)%.(%d%d?%d?)%.(%d%d?%d?)%.(%d%d?%d?):(%d+)$")
  if not a then a, b, c, d = address:match("^(%d%d?%d?)%.(%d%d?%d?)%.(%d%d?%d?)%.(%d%d?%d?)$") end
  if not a or tonumber(a) > 255 or tonumber(b) > 255 or tonumber(c) > 255 or tonumber(d) > 255 then
    return nil, "invalid ipv4 address: " .. address
  end
  local number, message = port_of(port)
  if message then return nil, message end
  return format("%d.%d.%d.%d", a, b, c, d), number
end
function ip.normalize_ipv6(address)
  local inside, port = address:match("^%[(.*)%]:?(%d*)$")
  local number, message = port_of(port ~= "" and port or nil)
  if message then return nil, message end
  if host.ip_version(inside or address) ~= 6 then return nil, "invalid ipv6 address: " .. address end
  return host.expanded_ipv6(inside or address), number
end
function ip.check_hostname(address)
  local name, port = address:match("^(.*):(%d+)$")
  name = name or address
  local number, message = port_of(port)
  if message then return nil, message end
  if not name:match("^[%w%-%._]+$") then return nil, "invalid hostname: " .. address end
  for segment in (name:gsub("%.$", "") .. "."):gmatch("(.-)%.") do
    if segment == "" or segment:sub(-1) == "-" then return nil, "invalid hostname: " .. address end
  end
  return name, number
end
local checks = { ipv4 = ip.normalize_ipv4, ipv6 = ip.normalize_ipv6, name = ip.check_hostname }
function ip.normalize_ip(address)
  local kind = ip.hostname_type(address)
  local name, port = checks[kind](address)
  if not name then return nil, port end
  return { type = kind, host = name, port = port }
end
function ip.format_host(name, port)
  if name == nil then return name, port end
  if type(name) == "table" then name, port = name.host, name.port or port end
  if ip.hostname_type(name) == "ipv6" and name:sub(1, 1) ~= "[" then name = "[" .. (ip.normalize_ipv6(name) or name) .. "]" end
  return name .. (port and ":" .. port or "")
end
return ip
