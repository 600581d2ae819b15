-- The part of LuaJIT's string buffers that plugins use.
local concat, tostring, sub = table.concat, tostring, string.sub

local Buffer = {}
Buffer.__index = Buffer

function Buffer:put(...)
  for i = 1, select("#", ...) do self[#self + 1] = tostring((select(i, ...))) end
  return self
end
function Buffer:putf(format, ...) return self:put(format:format(...)) end
function Buffer:tostring() return concat(self) end
function Buffer:reset()
  for i = #self, 1, -1 do self[i] = nil end
  return self
end
Buffer.free = Buffer.reset
function Buffer:set(text) return self:reset():put(text) end
function Buffer:get(n)
  local text = concat(self)
  self:reset()
  if not n or n >= #text then return text end
  self[1] = sub(text, n + 1)
  return sub(text, 1, n)
end
function Buffer:skip(n) self:get(n) return self end
Buffer.__tostring = Buffer.tostring
Buffer.__len = function(self) return #concat(self) end
Buffer.__concat = function(a, b) return tostring(a) .. tostring(b) end

return { new = function() return setmetatable({}, Buffer) end }
