-- Random UUIDs.
local _, host = ...
local function generate() return host.uuid() end
return setmetatable({
  seed = function() end, generate_v4 = generate,
  is_valid = function(s) return require("kong.tools.uuid").is_valid_uuid(s) end,
}, { __call = generate })
