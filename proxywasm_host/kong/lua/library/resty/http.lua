-- The interface of lua-resty-http; the gateway makes the requests.
local _, host = ...
local effect, url = host.effect, require "socket.url"
local by_any_case = { __index = function(t, name) return type(name) == "string" and rawget(t, name:lower()) or nil end }

local Http = { _VERSION = "0.17.2" }
Http.__index = Http
function Http.new() return setmetatable({ timeout = 60 }, Http) end
function Http:set_timeout(milliseconds) self.timeout = milliseconds and milliseconds / 1000 or 60 end
function Http:set_timeouts(connect, send, read) self:set_timeout(math.max(connect or 0, send or 0, read or 0)) end
function Http:set_keepalive() return 1 end
function Http:close() return 1 end
function Http:get_reused_times() return 0 end
function Http:set_proxy_options() end

local function body_of(body)
  if type(body) == "function" then
    local parts = {}
    for part in body do parts[#parts + 1] = part end
    return table.concat(parts)
  elseif type(body) == "table" then
    return table.concat(body)
  end
  return body and tostring(body) or ""
end
local function send(self, address, params)
  local flat = {}
  for name, value in pairs(params.headers or {}) do
    for _, each in ipairs(type(value) == "table" and value or { value }) do
      if name:lower() ~= "content-length" then flat[#flat + 1], flat[#flat + 2] = tostring(name), tostring(each) end
    end
  end
  local status, headers, body = effect("http", params.method or "GET", address, flat, body_of(params.body), self.timeout, params.ssl_verify ~= false)
  if not status then return nil, headers end
  local by_name = setmetatable({}, by_any_case)
  for i = 1, #headers, 2 do
    local name, value = headers[i]:lower(), headers[i + 1]
    local before = rawget(by_name, name)
    if before == nil then by_name[name] = value
    elseif type(before) == "table" then before[#before + 1] = value
    else by_name[name] = { before, value } end
  end
  local unread = body
  return {
    status = status, reason = "", headers = by_name, body = body, has_body = body ~= "", trailer_headers = {},
    read_body = function() return body end,
    body_reader = function()
      local part = unread
      unread = nil
      return part ~= "" and part or nil
    end,
  }
end
local function query_of(query)
  if not query or query == "" then return "" end
  if type(query) == "table" then query = ngx.encode_args(query) end
  return query:sub(1, 1) == "?" and query or "?" .. query
end
function Http:request_uri(uri, params)
  params = params or {}
  local parsed = url.parse(uri)
  if not parsed or not parsed.host or not (parsed.scheme == "http" or parsed.scheme == "https") then return nil, "bad uri: " .. tostring(uri) end
  if params.path then uri = parsed.scheme .. "://" .. parsed.authority .. params.path end
  return send(self, uri .. query_of(params.query), params)
end
function Http:connect(options, port)
  if type(options) ~= "table" then options = { host = options, port = port } end
  self.scheme, self.host, self.port = options.scheme or "http", options.host, options.port
  self.verify = options.ssl_verify
  return true
end
function Http:ssl_handshake(_, _, verify)
  self.scheme, self.verify = "https", verify
  return true
end
function Http:request(params)
  if not self.host then return nil, "not connected" end
  local authority = self.host .. (self.port and ":" .. self.port or "")
  params.ssl_verify = self.verify
  return send(self, self.scheme .. "://" .. authority .. (params.path or "/") .. query_of(params.query), params)
end
function Http:parse_uri(uri, with_query)
  local parsed = url.parse(uri)
  if not parsed or not parsed.host then return nil, "bad uri: " .. tostring(uri) end
  local path = parsed.path or "/"
  if with_query ~= false then return { parsed.scheme, parsed.host, tonumber(parsed.port) or (parsed.scheme == "https" and 443 or 80), path .. query_of(parsed.query) } end
  return { parsed.scheme, parsed.host, tonumber(parsed.port) or (parsed.scheme == "https" and 443 or 80), path, parsed.query or "" }
end
return Http
