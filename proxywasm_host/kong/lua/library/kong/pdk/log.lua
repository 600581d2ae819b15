-- kong.log: log lines, and the record of a request that logging plugins write.
local _, host = ...
local phases = require "kong.pdk.private.phases"
local text = require "kong.pdk.private.text"
local tools = require "kong.tools.table"
local current, get, null, only = host.current, host.get, host.null, phases.only
local concat, error, find, ipairs, next, pairs, select, setmetatable, sub, tonumber, tostring, type =
  table.concat, error, string.find, ipairs, next, pairs, select, setmetatable, string.sub, tonumber, tostring, type

local levels = { debug = 8, info = 7, notice = 6, warn = 5, err = 4, crit = 3, alert = 2, emerg = 1 }

-- A value in readable form.
local function inspected(value, depth, seen)
  if type(value) == "string" then return ("%q"):format(value) end
  if type(value) ~= "table" then return value == null and "null" or tostring(value) end
  if seen[value] or depth > 8 then return "{…}" end
  seen[value] = true
  local parts = {}
  for k, v in pairs(value) do
    local key = type(k) == "string" and k:match("^[%a_][%w_]*$") or "[" .. inspected(k, depth + 1, seen) .. "]"
    parts[#parts + 1] = (type(k) == "number" and "" or key .. " = ") .. inspected(v, depth + 1, seen)
  end
  seen[value] = nil
  return "{ " .. concat(parts, ", ") .. " }"
end

local function writable(value, visited)
  local kind = type(value)
  if value == nil or value == null or kind == "number" or kind == "string" or kind == "boolean" then return true end
  if kind ~= "table" or visited[value] then return false end
  visited[value] = true
  for k, v in pairs(value) do
    local key = type(k)
    if (key ~= "string" and key ~= "number" and key ~= "boolean") or not writable(v, visited) then return false end
  end
  return true
end
local BAD_VALUE = "value must be nil, a number, string, boolean or a non-self-referencial table containing numbers, string and booleans"

-- Splits a key: `a.b` is b in a; `a\.b` is a single name with a dot.
local function path_of(key)
  local path, part = {}, ""
  for piece in (key .. "."):gmatch("(.-)%.") do
    if piece:sub(-1) == "\\" then part = part .. piece:sub(1, -2) .. "."
    else
      path[#path + 1] = part .. piece
      part = ""
    end
  end
  return path
end
local function edit(root, key, value, mode)
  local path, node = path_of(key), root
  for i = 1, #path - 1 do
    local inside = node[path[i]]
    if inside == nil then
      if mode == "replace" then return end
      inside = {}
      node[path[i]] = inside
    elseif type(inside) ~= "table" then
      error("The key '" .. key .. "' could not be used as a serialize value. Subkey '" .. path[i] .. "' is not a table. It's " .. tostring(inside))
    end
    node = inside
  end
  local last = path[#path]
  local there = node[last] ~= nil
  if mode == "set" or (mode == "add" and not there) or (mode == "replace" and there) then
    node[last] = value ~= null and value or nil
  end
end

local set_serialize_value = only(phases.request, function(key, value, options)
  if type(key) ~= "string" or key == "" then error("key must be a string", 2) end
  local mode = options and options.mode or "set"
  if mode ~= "set" and mode ~= "add" and mode ~= "replace" then error("mode must be 'set', 'add' or 'replace'", 2) end
  if not writable(value, {}) then error(BAD_VALUE, 2) end
  if mode == "set" then return host.set_log_value(key, value) end
  local state = current.state
  state.log_edits = state.log_edits or {}
  state.log_edits[#state.log_edits + 1] = { key, value, mode }
end)

local serialize = only(phases.log, function()
  local request_uri = get("request_uri")
  local headers, response_headers = ngx.req.get_headers(0), ngx.resp.get_headers(0)
  for _, name in ipairs { "authorization", "proxy-authorization" } do
    if headers[name] then headers[name] = "REDACTED" end
  end
  local upstream_uri = get("upstream_path") or ""
  if upstream_uri ~= "" and get("query") ~= "" then upstream_uri = upstream_uri .. "?" .. get("query") end
  local credential, consumer = kong.client.get_credential(), kong.client.get_consumer()
  local elapsed = math.floor((host.now() - get("started")) * 1000 + 0.5)
  local root = {
    request = {
      id = get("id"), uri = request_uri, url = get("scheme") .. "://" .. get("host") .. ":" .. get("port") .. request_uri,
      querystring = ngx.decode_args(get("query")), method = get("method"), headers = headers,
      size = tonumber(headers["content-length"]) or 0,
    },
    upstream_uri = upstream_uri, upstream_status = tostring(get("service_status") or ""),
    response = { status = get("status"), headers = response_headers, size = tonumber(response_headers["content-length"]) or 0 },
    latencies = { kong = elapsed, proxy = -1, request = elapsed, receive = 0 },
    tries = {},
    authenticated_entity = credential and { id = credential.id, consumer_id = (credential.consumer or {}).id },
    route = tools.cycle_aware_deep_copy(host.current.entity("route")), service = tools.cycle_aware_deep_copy(host.current.entity("service")),
    consumer = tools.cycle_aware_deep_copy(consumer), client_ip = get("forwarded_ip"), started_at = get("started") * 1000,
    source = get("source") == "service" and "upstream" or "kong",
    workspace = kong.default_workspace, workspace_name = "default",
  }
  for key, value in pairs(host.log_values()) do edit(root, key, value, "set") end
  for _, change in ipairs(current.state.log_edits or {}) do edit(root, change[1], change[2], change[3]) end
  return root
end)

local function new(namespace)
  if type(namespace) ~= "string" then error("namespace must be a string", 2) end
  if namespace == "" then error("namespace cannot be an empty string", 2) end
  local function prefix() return "[" .. (namespace == "core" and current.state.plugin or namespace) .. "] " end
  local log = { set_serialize_value = set_serialize_value, serialize = serialize, new = new, trace = function() end, set_format = function() end }
  for name, level in pairs(levels) do
    log[name] = function(...) host.log(level, prefix() .. text(...)) end
  end
  log.inspect = setmetatable({ on = function() end, off = function() end }, {
    __call = function(_, ...)
      local parts = {}
      for i = 1, select("#", ...) do parts[i] = inspected((select(i, ...)), 0, {}) end
      host.log(levels.debug, prefix() .. concat(parts, " "))
    end,
  })
  log.deprecation = setmetatable({ write = log.warn }, { __call = function(_, ...) log.warn((...)) end })
  return setmetatable(log, { __call = function(_, ...) log.notice(...) end })
end
return new "core"
