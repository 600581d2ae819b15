-- md5, fed part by part.
return require("resty.openssl.digest").class "md5"
