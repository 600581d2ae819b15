-- Keys that sign and verify.
local _, host = ...
local Key = { PADDINGS = { RSA_PKCS1_PADDING = 1, RSA_PKCS1_PSS_PADDING = 6 } }
Key.__index = Key
function Key.new(pem, options)
  if type(pem) ~= "string" then return nil, "pkey.new: only keys in PEM are supported" end
  if options and options.format == "JWK" then return nil, "pkey.new: JWK is not supported" end
  local kind, message = host.load_key(pem)
  if not kind then return nil, message end
  return setmetatable({ pem = pem, kind = kind }, Key)
end
-- `data` is text, or a hash to which the text was fed.
local function text_of(data, algorithm)
  if type(data) == "table" then return table.concat(data.parts), data.algorithm end
  return data, algorithm
end
function Key:sign(data, algorithm, padding, options)
  local text, name = text_of(data, algorithm)
  return host.sign(self.pem, text, name, padding == 6, options and options.ecdsa_use_raw or false)
end
function Key:verify(signature, data, algorithm, padding, options)
  local text, name = text_of(data, algorithm)
  return host.verify(self.pem, signature, text, name, padding == 6, options and options.ecdsa_use_raw or false)
end
function Key:to_PEM() return self.pem end
return Key
