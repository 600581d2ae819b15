-- HMAC, fed part by part.
local _, host = ...
local Mac = {}
Mac.__index = Mac
function Mac.new(key, kind, _, algorithm)
  if kind ~= "HMAC" then return nil, "mac.new: only HMAC is supported, not " .. tostring(kind) end
  local known, message = host.hmac(algorithm, key, "")
  if not known then return nil, message end
  return setmetatable({ key = key, algorithm = algorithm, parts = {} }, Mac)
end
function Mac:update(data) self.parts[#self.parts + 1] = data return true end
function Mac:final(data)
  if data then self:update(data) end
  return host.hmac(self.algorithm, self.key, table.concat(self.parts))
end
function Mac:reset() self.parts = {} return true end
return Mac
