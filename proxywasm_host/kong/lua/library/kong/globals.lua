-- The globals that plugins use without `require`: `ngx`, `kong`, and OpenResty's functions of tables.
local ngx = require "kong.ngx"
_G.ngx = ngx
for _, name in ipairs { "new", "clear", "isempty", "isarray", "nkeys", "clone" } do
  table[name] = require("table." .. name)
end
_G.kong = require "kong.pdk"
