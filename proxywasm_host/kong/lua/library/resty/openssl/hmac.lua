-- The older form of `resty.openssl.mac`.
local mac = require "resty.openssl.mac"
return { new = function(key, algorithm) return mac.new(key, "HMAC", nil, algorithm or "sha1") end }
