-- Checks whether an address is in one of several networks.
local _, host = ...
local Matcher = {}
Matcher.__index = Matcher
function Matcher.new(networks)
  local number, message = host.ip_matcher(networks)
  if not number then return nil, message end
  return setmetatable({ number = number }, Matcher)
end
function Matcher:match(ip) return host.ip_matches(self.number, ip, false) end
function Matcher:match_bin(ip) return host.ip_matches(self.number, ip, true) end
function Matcher.parse_ipv4(ip) return host.ip_version(ip) == 4 end
function Matcher.parse_ipv6(ip) return host.ip_version((ip:gsub("^%[(.*)%]$", "%1"))) == 6 end
return Matcher
