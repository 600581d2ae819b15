-- kong.ip: Python decides whether a proxy is trusted, as for `kong.request.get_forwarded_…`.
local matcher
return {
  is_trusted = function(ip)
    local trusted = kong.configuration.trusted_ips
    if #trusted == 0 then return false end
    matcher = matcher or require("resty.ipmatcher").new(trusted)
    return matcher:match(ip) and true or false
  end,
}
