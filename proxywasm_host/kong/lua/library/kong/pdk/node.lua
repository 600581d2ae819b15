-- kong.node
local _, host = ...
local bytes_to_str = require("kong.tools.string").bytes_to_str
return {
  get_id = function() return host.node_id() end,
  get_hostname = function() return host.hostname() end,
  get_memory_stats = function(unit, scale)
    unit = unit or "b"
    local ok, message = pcall(bytes_to_str, 0, unit, scale)
    if not ok then error(message, 2) end
    local function shown(bytes) return unit:lower() == "b" and math.floor(bytes) or bytes_to_str(bytes, unit, scale) end
    local stats = { workers_lua_vms = { { pid = host.pid(), http_allocated_gc = shown(host.memory()) } }, lua_shared_dicts = {} }
    for _, name in ipairs { "kong", "kong_locks", "kong_db_cache", "kong_db_cache_miss", "kong_cluster_events", "kong_healthchecks", "kong_rate_limiting_counters" } do
      local zone = ngx.shared[name]
      if zone then
        stats.lua_shared_dicts[name] = { capacity = shown(zone:capacity()), allocated_slabs = shown(zone:capacity() - zone:free_space()) }
      end
    end
    return stats
  end,
}
