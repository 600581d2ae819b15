-- Hashes, fed part by part.
local _, host = ...
local concat, setmetatable = table.concat, setmetatable
local digest = {}
-- The class of one algorithm, for the modules resty.sha1, …
function digest.class(algorithm)
  local Hash = { algorithm = algorithm }
  Hash.__index = Hash
  function Hash:new() return setmetatable({ parts = {} }, Hash) end
  function Hash:update(data) self.parts[#self.parts + 1] = data return true end
  function Hash:final(data)
    if data then self:update(data) end
    return host.digest(algorithm, concat(self.parts))
  end
  function Hash:reset() self.parts = {} return true end
  return Hash
end
function digest.new(algorithm)
  algorithm = (algorithm or "sha1"):lower()
  local known, message = host.digest(algorithm, "")
  if not known then return nil, message end
  return digest.class(algorithm):new()
end
return digest
