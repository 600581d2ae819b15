-- SHA-256 in several forms.
local _, host = ...
local sha256 = {}
function sha256.sha256_bin(s) return host.digest("sha256", s) end
function sha256.sha256_hex(s) return require("resty.string").to_hex(sha256.sha256_bin(s)) end
function sha256.sha256_base64(s) return ngx.encode_base64(sha256.sha256_bin(s)) end
function sha256.sha256_base64url(s) return require("ngx.base64").encode_base64url(sha256.sha256_bin(s)) end
return sha256
