-- kong.db: reads entities of the declarative configuration. They cannot be changed.
local _, host = ...
local ipairs, pairs, setmetatable, tostring, type = ipairs, pairs, setmetatable, tostring, type

local WORKSPACE = "0dc6f45b-8f8d-40d2-a504-473544ee190b"
local READ_ONLY = "cannot create, update or delete entities: the configuration is declarative"

-- The entities that plugins declare in daos.lua, by collection; see `declare`.
local declared = {}
local collections, generation = {}, nil

local Collection = {}

-- Entities of the configuration, with the defaults and transformations of their schema.
local function load(self)
  if self.all then return self.all end
  local schema = declared[self.name] and require("kong.db.schema").new(declared[self.name])
  local all = {}
  for i, entity in ipairs(host.entities(self.name)) do
    if type(entity.consumer) == "string" then
      local consumer = kong.db.consumers:select({ id = entity.consumer }) or kong.db.consumers:select_by_username(entity.consumer)
      entity.consumer = consumer and { id = consumer.id } or { id = entity.consumer }
    end
    all[i] = schema and schema:prepared(entity) or entity
  end
  self.all, self.indexes = all, {}
  return all
end
local function index(self, field)
  local all = load(self)
  local found = self.indexes[field]
  if not found then
    found = {}
    for _, entity in ipairs(all) do
      local value = entity[field]
      if type(value) == "table" then value = value.id end
      if value ~= nil then
        found[value] = found[value] or {}
        table.insert(found[value], entity)
      end
    end
    self.indexes[field] = found
  end
  return found
end
local function iterator(list)
  local i = 0
  return function()
    i = i + 1
    return list[i]
  end
end

function Collection:select(key)
  local id = type(key) == "table" and key.id or key
  return (index(self, "id")[id] or {})[1]
end
function Collection:each() return iterator(load(self)) end
function Collection:page() return load(self) end
function Collection:select_by_cache_key(key)
  for _, entity in ipairs(load(self)) do
    if self:cache_key(entity) == key then return entity end
  end
end
function Collection:cache_key(...)
  local values = { ... }
  if type(values[1]) == "table" then
    local entity, key = values[1], self.schema_of.cache_key or { "id" }
    values = {}
    for i, field in ipairs(key) do
      local value = entity[field]
      values[i] = type(value) == "table" and value.id or value
    end
  end
  for i = 1, 5 do values[i] = values[i] ~= nil and tostring(values[i]) or "" end
  return self.name .. ":" .. table.concat(values, ":", 1, 5) .. ":" .. WORKSPACE
end
local function refused() return nil, READ_ONLY end
for _, name in ipairs { "insert", "update", "upsert", "delete" } do Collection[name] = refused end

local meta = {
  __index = function(self, name)
    if Collection[name] then return Collection[name] end
    if type(name) ~= "string" then return nil end
    local field = name:match("^select_by_(.+)$")
    if field then return function(_, value) return (index(self, field)[value] or {})[1] end end
    field = name:match("^each_for_(.+)$") or name:match("^page_for_(.+)$")
    if field then
      local each = name:sub(1, 4) == "each"
      return function(_, key)
        local list = index(self, field)[type(key) == "table" and key.id or key] or {}
        return each and iterator(list) or list
      end
    end
    if name:match("^%a+_by_") then return refused end
  end,
}

local db = {
  strategy = "off", connector = { database = "off" }, daos = {},
  -- Schemas of a plugin's entities.
  declare = function(daos)
    for name, dao in pairs(daos) do
      if type(dao) == "table" then declared[dao.name or name] = dao end
    end
    generation = nil
  end,
}
return setmetatable(db, {
  __index = function(_, name)
    if type(name) ~= "string" then return nil end
    local now = host.generation()
    if now ~= generation then collections, generation = {}, now end
    local collection = collections[name]
    if not collection then
      collection = setmetatable({ name = name, schema_of = declared[name] or {} }, meta)
      collections[name] = collection
    end
    return collection
  end,
})
