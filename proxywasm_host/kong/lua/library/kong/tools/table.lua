-- Tables.
local getmetatable, ipairs, next, pairs, select, setmetatable, type = getmetatable, ipairs, next, pairs, select, setmetatable, type
local tools = { shallow_copy = function(t) return type(t) == "table" and require("table.clone")(t) or t end }

tools.EMPTY = require("pl.tablex").readonly({})
tools.pack, tools.unpack = table.pack, function(t, i, j) return unpack(t, i or 1, j or t.n or #t) end

function tools.table_merge(a, b)
  local merged = {}
  for k, v in pairs(a or {}) do merged[k] = v end
  for k, v in pairs(b or {}) do merged[k] = v end
  return merged
end
function tools.null_aware_table_merge(a, b)
  local merged = tools.table_merge(a)
  for k, v in pairs(b or {}) do
    if merged[k] == nil or v ~= ngx.null then merged[k] = v end
  end
  return merged
end
function tools.table_contains(list, value)
  for _, v in pairs(list or {}) do if v == value then return true end end
  return false
end
function tools.is_array(t, mode)
  if type(t) ~= "table" then return false end
  local n = 0
  for _ in pairs(t) do
    n = n + 1
    if t[n] == nil and not (mode == "lapis" and t[tostring(n)] ~= nil) then return false end
  end
  return true
end
function tools.is_lapis_array(t) return tools.is_array(t, "lapis") end

-- Copies nested tables, too; a table that occurs several times is copied once.
local function copy(value, plain, keys, done)
  if type(value) ~= "table" then return value end
  if done[value] then return done[value] end
  local new = {}
  done[value] = new
  for k, v in pairs(value) do new[keys and copy(k, plain, keys, done) or k] = copy(v, plain, keys, done) end
  local meta = not plain and getmetatable(value)
  return meta and setmetatable(new, meta) or new
end
function tools.deep_copy(value, with_metatables) return copy(value, with_metatables == false, true, {}) end
function tools.cycle_aware_deep_copy(value, plain, keys, done) return copy(value, plain, keys, done or {}) end
function tools.deep_merge(a, b)
  local merged = tools.deep_copy(a)
  for k, v in pairs(b) do
    merged[k] = type(v) == "table" and type(merged[k]) == "table" and tools.deep_merge(merged[k], v) or tools.deep_copy(v)
  end
  return merged
end
tools.cycle_aware_deep_merge = tools.deep_merge
function tools.concat(...)
  local all = {}
  for i = 1, select("#", ...) do
    for _, v in ipairs((select(i, ...))) do all[#all + 1] = v end
  end
  return all
end
local several = {}
function tools.add_error(errors, key, value)
  errors = errors or {}
  if errors[key] == nil then errors[key] = value
  else
    if getmetatable(errors[key]) ~= several then errors[key] = setmetatable({ errors[key] }, several) end
    table.insert(errors[key], value)
  end
  return errors
end
function tools.table_path(t, path)
  for _, name in ipairs(path) do
    t = t[name]
    if t == nil then return nil end
  end
  return t
end
return tools
