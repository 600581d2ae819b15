-- cjson with functions that return nil and a message instead of raising.
local cjson = require "cjson"

local function safe(f)
  return function(...)
    local ok, value = pcall(f, ...)
    if ok then return value end
    return nil, value
  end
end

local function new()
  local module = cjson.new()
  module.encode, module.decode, module.new = safe(module.encode), safe(module.decode), new
  return module
end

return new()
