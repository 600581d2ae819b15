-- kong.ip: who is trusted was decided before; `kong.request.get_forwarded_…` know it.
local matcher
return {
  is_trusted = function(ip)
    local trusted = kong.configuration.trusted_ips
    if #trusted == 0 then return false end
    matcher = matcher or require("resty.ipmatcher").new(trusted)
    return matcher:match(ip) and true or false
  end,
}
