-- sha256, fed part by part.
return require("resty.openssl.digest").class "sha256"
