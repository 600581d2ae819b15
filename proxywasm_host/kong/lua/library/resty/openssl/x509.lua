-- Certificates: only a check whether text is one.
local _, host = ...
return {
  new = function(pem)
    if type(pem) ~= "string" or not pem:find("BEGIN CERTIFICATE", 1, true) then return nil, "x509.new: not a certificate in PEM" end
    local kind, message = host.load_key(pem)
    if not kind then return nil, message end
    return { pem = pem, to_PEM = function(self) return self.pem end }
  end,
}
