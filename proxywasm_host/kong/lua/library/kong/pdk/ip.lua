-- kong.ip: whether a proxy is trusted is decided in Python, for `kong.request.get_forwarded_…` as well.
local matcher
return {
  is_trusted = function(ip)
    local trusted = kong.configuration.trusted_ips
    if #trusted == 0 then return false end
    matcher = matcher or require("resty.ipmatcher").new(trusted)
    return matcher:match(ip) and true or false
  end,
}
