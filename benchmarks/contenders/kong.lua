-- The parts of Kong's table `kong` that the plugin needs, on header maps that are Lua arrays: name, value, name, …
-- `phase(method, headers)` runs a phase of the plugin on a header map.
local plugin = ...
local headers = {}

local function get(name)
  for i = 1, #headers, 2 do
    if headers[i] == name then return headers[i + 1] end
  end
end

local function add(name, value)
  local n = #headers
  headers[n + 1], headers[n + 2] = name, value
end

local function clear(name)
  for i = #headers - 1, 1, -2 do
    if headers[i] == name then
      table.remove(headers, i + 1)
      table.remove(headers, i)
    end
  end
end

local function set(name, value)
  for i = 1, #headers, 2 do
    if headers[i] == name then
      headers[i + 1] = value
      return
    end
  end
  add(name, value)
end

kong = {
  request = { get_path = function() return get(":path") end, get_header = get },
  service = { request = { add_header = add, clear_header = clear }, response = { get_header = get } },
  response = { add_header = add, set_header = set },
}

local function phase(method, map)
  headers = map
  plugin[method](plugin)
end

return phase
