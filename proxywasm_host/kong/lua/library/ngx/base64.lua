-- Base64 for URLs.
return {
  encode_base64url = function(s) return (ngx.encode_base64(s, true):gsub("[+/]", { ["+"] = "-", ["/"] = "_" })) end,
  decode_base64url = function(s)
    if type(s) ~= "string" then return nil, "must provide a string" end
    local decoded = ngx.decode_base64((s:gsub("=+$", ""):gsub("[-_]", { ["-"] = "+", ["_"] = "/" })))
    if not decoded then return nil, "invalid input" end
    return decoded
  end,
}
