-- kong.cache: values that plugins have looked up, by key, until they expire or the configuration changes.
local _, host = ...
local lrucache = require "resty.lrucache"

local cache = {}
local entries, generation = lrucache.new(10000), nil
local MISS = {}

local function current_entries()
  local now = host.generation()
  if now ~= generation then
    entries:flush_all()
    generation = now
  end
  return entries
end

-- Returns the value, an error, and 1 for a cached value or 3 for one from `load`.
function cache:get(key, options, load, ...)
  if type(key) ~= "string" then error("key must be a string", 2) end
  local kept = current_entries():get(key)
  if kept ~= nil then
    if kept == MISS then kept = nil end
    return kept, nil, 1
  end
  if type(load) ~= "function" then return nil, "no callback for the key " .. key end
  local value, message, ttl = load(...)
  if message then return nil, message end
  options = options or {}
  if value == nil then entries:set(key, MISS, options.neg_ttl or 3600)
  else entries:set(key, value, type(ttl) == "number" and ttl > 0 and ttl or options.ttl) end
  return value, nil, 3
end
function cache:get_bulk(bulk)
  local results = {}
  for i = 1, bulk.n or #bulk, 4 do
    local value, message, level = self:get(bulk[i], bulk[i + 1], bulk[i + 2], bulk[i + 3])
    results[#results + 1], results[#results + 2], results[#results + 3] = value, message, level
  end
  return results
end
function cache:probe(key)
  local kept = current_entries():get(key)
  return nil, nil, kept ~= MISS and kept or nil
end
function cache:safe_set(key, value) current_entries():set(key, value) return true end
function cache:renew(key, options, load, ...)
  self:invalidate(key)
  return self:get(key, options, load, ...)
end
function cache:invalidate(key) entries:delete(key) return true end
cache.invalidate_local = cache.invalidate
function cache:purge() entries:flush_all() return true end
return cache
