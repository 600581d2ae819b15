-- The interface of lua-resty-redis: commands are methods, on a connection that does not block.
local tcp, null = ngx.socket.tcp, ngx.null
local Redis = { _VERSION = "0.29" }

function Redis.new() return setmetatable({ socket = tcp(), pipeline = false }, Redis) end

local methods = {}
function methods:set_timeout(milliseconds) self.socket:settimeout(milliseconds) end
function methods:set_timeouts(...) self.socket:settimeouts(...) end
function methods:connect(host, port, options)
  if type(port) == "table" then port, options = nil, port end
  local ok, message = self.socket:connect(host, port)
  if ok and options and options.ssl then ok, message = self.socket:sslhandshake(nil, options.server_name, options.ssl_verify) end
  if not ok then return nil, message end
  return 1
end
function methods:set_keepalive(...) return self.socket:setkeepalive(...) end
function methods:get_reused_times() return 0 end
function methods:close() return self.socket:close() end
function methods:init_pipeline() self.pipeline = {} end
function methods:cancel_pipeline() self.pipeline = false end

local function written(...)
  local out = { "*" .. select("#", ...) .. "\r\n" }
  for i = 1, select("#", ...) do
    local part = tostring((select(i, ...)))
    out[#out + 1] = "$" .. #part .. "\r\n" .. part .. "\r\n"
  end
  return table.concat(out)
end
-- Returns a value; false and a message for an error of the server; nil and a message if the connection failed.
local function read(socket)
  local line, message = socket:receive()
  if not line then return nil, message end
  local kind, rest = line:sub(1, 1), line:sub(2)
  if kind == "+" then return rest end
  if kind == "-" then return false, rest end
  if kind == ":" then return tonumber(rest) end
  local size = tonumber(rest)
  if not size then return nil, "unknown reply: " .. line end
  if size < 0 then return null end
  if kind == "$" then
    local data, failure = socket:receive(size + 2)
    if not data then return nil, failure end
    return data:sub(1, size)
  end
  local values = {}
  for i = 1, size do
    local value, failure = read(socket)
    if value == nil then return nil, failure end
    values[i] = value == false and { false, failure } or value
  end
  return values
end
function methods:commit_pipeline()
  local commands = self.pipeline
  self.pipeline = false
  local ok, message = self.socket:send(commands)
  if not ok then return nil, message end
  local values = {}
  for i = 1, #commands do
    local value, failure = read(self.socket)
    if value == nil then return nil, failure end
    values[i] = value == false and { false, failure } or value
  end
  return values
end
function methods:array_to_hash(list)
  local hash = {}
  for i = 1, #list, 2 do hash[list[i]] = list[i + 1] end
  return hash
end

Redis.__index = function(_, name)
  if methods[name] then return methods[name] end
  local function command(self, ...)
    local data = written(name:upper(), ...)
    if self.pipeline then
      table.insert(self.pipeline, data)
      return
    end
    local ok, message = self.socket:send(data)
    if not ok then return nil, message end
    local value, failure = read(self.socket)
    if value == false then return nil, failure end
    return value, failure
  end
  methods[name] = command
  return command
end
return Redis
