-- A cache of bounded size that drops the least recently used value.
local now, setmetatable = ngx.now, setmetatable
local Cache = {}
Cache.__index = Cache

local function unlink(node) node.before.after, node.after.before = node.after, node.before end
local function link(cache, node)
  local first = cache.ends.after
  node.before, node.after = cache.ends, first
  cache.ends.after, first.before = node, node
end
local function empty(cache)
  local ends = {}
  ends.before, ends.after = ends, ends
  cache.ends, cache.nodes, cache.n = ends, {}, 0
end
function Cache.new(size)
  if type(size) ~= "number" or size < 1 then return nil, "size too small" end
  local cache = setmetatable({ size = size }, Cache)
  empty(cache)
  return cache
end
function Cache:get(key)
  local node = self.nodes[key]
  if not node then return nil end
  if node.expires and node.expires <= now() then return nil, node.value, node.flags end
  unlink(node)
  link(self, node)
  return node.value, nil, node.flags
end
function Cache:set(key, value, ttl, flags)
  self:delete(key)
  if self.n >= self.size then self:delete(self.ends.before.key) end
  local node = { key = key, value = value, expires = ttl and now() + ttl, flags = flags or 0 }
  self.nodes[key] = node
  self.n = self.n + 1
  link(self, node)
end
function Cache:delete(key)
  local node = self.nodes[key]
  if not node then return end
  unlink(node)
  self.nodes[key] = nil
  self.n = self.n - 1
end
function Cache:flush_all() empty(self) end
function Cache:count() return self.n end
function Cache:capacity() return self.size end
function Cache:get_keys(most)
  local keys, node = {}, self.ends.after
  while node ~= self.ends and #keys < (most or math.huge) do
    keys[#keys + 1] = node.key
    node = node.after
  end
  return keys
end
return Cache
