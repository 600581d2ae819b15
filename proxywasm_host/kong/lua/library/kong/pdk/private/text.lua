-- The arguments of a logging function as one text.
local _, host = ...
local concat, null, select, tostring = table.concat, host.null, select, tostring

return function(...)
  local parts = {}
  for i = 1, select("#", ...) do
    local value = (select(i, ...))
    parts[i] = value == null and "null" or tostring(value)
  end
  return concat(parts)
end
