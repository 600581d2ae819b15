-- The functions of several modules, under an older name.
local tools = {}
for _, name in ipairs { "string", "table", "uuid", "ip", "http", "rand" } do
  for key, value in pairs(require("kong.tools." .. name)) do tools[key] = value end
end
return tools
