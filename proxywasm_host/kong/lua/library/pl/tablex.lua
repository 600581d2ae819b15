-- Penlight's functions of tables.
local tablex = {}
function tablex.readonly(t)
  return setmetatable({}, { __index = t, __newindex = function() error("Attempt to modify read-only table", 2) end, __len = function() return #t end, __metatable = false })
end
function tablex.deepcopy(t) return require("kong.tools.table").deep_copy(t) end
function tablex.copy(t) return require("table.clone")(t) end
function tablex.keys(t)
  local keys = {}
  for k in pairs(t) do keys[#keys + 1] = k end
  return keys
end
function tablex.values(t)
  local values = {}
  for _, v in pairs(t) do values[#values + 1] = v end
  return values
end
function tablex.size(t) return require("table.nkeys")(t) end
function tablex.map(f, t, ...)
  local mapped = {}
  for k, v in pairs(t) do mapped[k] = f(v, ...) end
  return mapped
end
function tablex.find(t, value)
  for i, v in ipairs(t) do if v == value then return i end end
end
function tablex.merge(a, b, all)
  local merged = {}
  for k, v in pairs(a) do if all or b[k] ~= nil then merged[k] = v end end
  if all then for k, v in pairs(b) do merged[k] = v end end
  return merged
end
function tablex.union(a, b) return tablex.merge(a, b, true) end
function tablex.deepcompare(a, b)
  if type(a) ~= "table" or type(b) ~= "table" then return a == b end
  for k, v in pairs(a) do if not tablex.deepcompare(v, b[k]) then return false end end
  for k in pairs(b) do if a[k] == nil then return false end end
  return true
end
return tablex
