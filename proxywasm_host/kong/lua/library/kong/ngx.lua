-- The part of OpenResty's `ngx` that plugins use, for the current request.
local _, host = ...
local text = require "kong.pdk.private.text"

local current, null, effect = host.current, host.null, host.effect
local get, concat, floor = host.get, table.concat, math.floor
local byte, find, format, gsub, lower, sub = string.byte, string.find, string.format, string.gsub, string.lower, string.sub
local error, ipairs, pairs, rawset, select, setmetatable, sort, tonumber, tostring, type =
  error, ipairs, pairs, rawset, select, setmetatable, table.sort, tonumber, tostring, type

local ngx = {
  null = null, shared = {}, header = {}, var = {}, arg = {}, re = {}, req = {}, resp = {}, timer = {}, worker = {}, socket = {}, thread = {},
  config = { subsystem = "http", debug = false, ngx_lua_version = 10026, nginx_version = 1025003, prefix = function() return "" end },
  OK = 0, ERROR = -1, AGAIN = -2, DONE = -4, DECLINED = -5,
  STDERR = 0, EMERG = 1, ALERT = 2, CRIT = 3, ERR = 4, WARN = 5, NOTICE = 6, INFO = 7, DEBUG = 8,
}
for i, name in ipairs { "GET", "HEAD", "POST", "PUT", "DELETE", "MKCOL", "COPY", "MOVE", "OPTIONS", "PROPFIND", "PROPPATCH", "LOCK", "UNLOCK", "PATCH", "TRACE" } do
  ngx["HTTP_" .. name] = 2 ^ i
end
for name, status in pairs {
  CONTINUE = 100, SWITCHING_PROTOCOLS = 101, OK = 200, CREATED = 201, ACCEPTED = 202, NO_CONTENT = 204, PARTIAL_CONTENT = 206,
  SPECIAL_RESPONSE = 300, MOVED_PERMANENTLY = 301, MOVED_TEMPORARILY = 302, SEE_OTHER = 303, NOT_MODIFIED = 304,
  TEMPORARY_REDIRECT = 307, PERMANENT_REDIRECT = 308, BAD_REQUEST = 400, UNAUTHORIZED = 401, PAYMENT_REQUIRED = 402,
  FORBIDDEN = 403, NOT_FOUND = 404, NOT_ALLOWED = 405, NOT_ACCEPTABLE = 406, REQUEST_TIMEOUT = 408, CONFLICT = 409, GONE = 410,
  UPGRADE_REQUIRED = 426, TOO_MANY_REQUESTS = 429, CLOSE = 444, ILLEGAL = 451, INTERNAL_SERVER_ERROR = 500,
  METHOD_NOT_IMPLEMENTED = 501, NOT_IMPLEMENTED = 501, BAD_GATEWAY = 502, SERVICE_UNAVAILABLE = 503, GATEWAY_TIMEOUT = 504,
  VERSION_NOT_SUPPORTED = 505, INSUFFICIENT_STORAGE = 507,
} do ngx["HTTP_" .. name] = status end

-- Log -----------------------------------------------------------------------------------------------------------------

function ngx.log(level, ...) host.log(level, text(...)) end
function print(...) host.log(ngx.NOTICE, text(...)) end

-- Time ----------------------------------------------------------------------------------------------------------------

function ngx.now() return floor(host.now() * 1000) / 1000 end
function ngx.time() return floor(host.now()) end
function ngx.update_time() end
function ngx.today() return os.date("!%Y-%m-%d", ngx.time()) end
function ngx.utctime() return os.date("!%Y-%m-%d %H:%M:%S", ngx.time()) end
function ngx.localtime() return os.date("%Y-%m-%d %H:%M:%S", ngx.time()) end
function ngx.http_time(seconds) return os.date("!%a, %d %b %Y %H:%M:%S GMT", seconds) end
function ngx.cookie_time(seconds) return os.date("!%a, %d-%b-%y %H:%M:%S GMT", seconds) end
function ngx.parse_http_time(value) return host.parse_http_time(value) end
function ngx.sleep(seconds)
  seconds = tonumber(seconds)
  if not seconds or seconds < 0 then error("invalid sleep duration \"" .. tostring(seconds) .. "\"", 2) end
  effect("sleep", seconds)
end

-- Text ----------------------------------------------------------------------------------------------------------------

local function percent(c) return format("%%%02X", byte(c)) end
function ngx.escape_uri(value, kind)
  return (gsub(tostring(value), kind == 0 and "[^%w%-%._~!*'();:@&=+$,/?#%[%]]" or "[^%w%-%._~]", percent))
end
function ngx.unescape_uri(value)
  return (gsub(gsub(tostring(value), "+", " "), "%%(%x%x)", function(hex) return string.char(tonumber(hex, 16)) end))
end
local function pair(out, key, value)
  if value == true then out[#out + 1] = ngx.escape_uri(key)
  elseif value == false or value == nil then return
  elseif type(value) == "table" then
    for _, each in ipairs(value) do
      if type(each) == "table" then error("attempt to use table as query arg value", 3) end
      pair(out, key, each)
    end
  elseif type(value) == "string" or type(value) == "number" then
    out[#out + 1] = ngx.escape_uri(key) .. "=" .. ngx.escape_uri(value)
  else error("attempt to use " .. type(value) .. " as query arg value", 3) end
end
function ngx.encode_args(args)
  local out, keys = {}, {}
  for key in pairs(args) do
    if type(key) ~= "string" and type(key) ~= "number" then error("attempt to use a non-string key in the \"args\" option table", 2) end
    keys[#keys + 1] = key
  end
  sort(keys, function(a, b) return tostring(a) < tostring(b) end)
  for _, key in ipairs(keys) do pair(out, key, args[key]) end
  return concat(out, "&")
end
function ngx.decode_args(query, max)
  local args, n = {}, 0
  max = max or 100
  for part in string.gmatch(query or "", "[^&]+") do
    if max > 0 and n == max then return args, "truncated" end
    local at = find(part, "=", 1, true)
    local key, value
    if at then key, value = ngx.unescape_uri(sub(part, 1, at - 1)), ngx.unescape_uri(sub(part, at + 1))
    else key, value = ngx.unescape_uri(part), true end
    if key ~= "" then
      local before = args[key]
      if before == nil then args[key] = value
      elseif type(before) == "table" then before[#before + 1] = value
      else args[key] = { before, value } end
      n = n + 1
    end
  end
  return args
end
for _, name in ipairs {
  "encode_base64", "decode_base64", "md5", "md5_bin", "sha1_bin", "hmac_sha1", "crc32_short", "crc32_long", "quote_sql_str",
} do
  local f = host[name]
  ngx[name] = function(...) return f(...) end
end

-- Regular expressions (PCRE) ------------------------------------------------------------------------------------------

-- Python returns positions and names of groups: { first, last, group, first, last, …, name, group, … }.
local function captures(subject, found, into)
  local m = into or {}
  for i = 1, #found.first do
    local first = found.first[i]
    m[i - 1] = first and sub(subject, first, found.last[i]) or false
  end
  for name, group in pairs(found.names) do m[name] = m[group] end
  return m
end
function ngx.re.match(subject, pattern, options, ctx, into)
  subject = tostring(subject)
  local found, message = host.re_search(subject, pattern, options or "", ctx and ctx.pos or 1)
  if not found then return nil, message end
  if ctx then ctx.pos = found.last[1] + 1 end
  return captures(subject, found, into)
end
function ngx.re.find(subject, pattern, options, ctx, nth)
  local found, message = host.re_search(tostring(subject), pattern, options or "", ctx and ctx.pos or 1)
  if not found then return nil, nil, message end
  if ctx then ctx.pos = found.last[1] + 1 end
  local first = found.first[(nth or 0) + 1]
  if not first then return nil, nil, nth and nth >= #found.first and "nth out of bound" or nil end
  return first, found.last[(nth or 0) + 1]
end
function ngx.re.gmatch(subject, pattern, options)
  subject = tostring(subject)
  local all, message = host.re_all(subject, pattern, options or "", 0)
  if not all then return nil, message end
  local i = 0
  return function()
    i = i + 1
    return all[i] and captures(subject, all[i])
  end
end
local function replacement(value)
  if type(value) == "function" then return function(m) return tostring(value(m)) end end
  value = tostring(value)
  if not find(value, "$", 1, true) then return function() return value end end
  return function(m)
    return (gsub(value, "%$({?)([%w_$]+)(}?)", function(open, name, close)
      if sub(name, 1, 1) == "$" then return sub(name, 1, 1) .. sub(name, 2) .. close end
      if open ~= "" then return tostring(m[tonumber(name) or name] or "") end
      local digits = name:match("^%d+")
      if digits then return tostring(m[tonumber(digits)] or "") .. sub(name, #digits + 1) .. close end
      return tostring(m[name] or "") .. close
    end))
  end
end
local function substitute(subject, pattern, replace, options, limit)
  subject = tostring(subject)
  local all, message = host.re_all(subject, pattern, options or "", limit)
  if not all then return nil, nil, message end
  local out, at, with = {}, 1, replacement(replace)
  for i = 1, #all do
    local found = all[i]
    out[#out + 1] = sub(subject, at, found.first[1] - 1)
    out[#out + 1] = with(captures(subject, found))
    at = found.last[1] + 1
  end
  out[#out + 1] = sub(subject, at)
  return concat(out), #all
end
function ngx.re.sub(subject, pattern, replace, options) return substitute(subject, pattern, replace, options, 1) end
function ngx.re.gsub(subject, pattern, replace, options) return substitute(subject, pattern, replace, options, 0) end

-- The request ---------------------------------------------------------------------------------------------------------

-- Headers by lower-case name; they are also found in any case and with underscores, as in OpenResty.
local by_any_case = {
  __index = function(t, name)
    if type(name) ~= "string" then return nil end
    return rawget(t, (gsub(lower(name), "_", "-")))
  end,
}
-- Names are in lower case; with `raw`, each word in them begins with a capital.
local function headers(message, max, raw)
  local found, truncated = host.headers(message, max or 100)
  if not raw then return setmetatable(found, by_any_case), truncated end
  local written = {}
  for name, value in pairs(found) do written[gsub(name, "%f[%w]%l", string.upper)] = value end
  return written, truncated
end
function ngx.headers_of(message, max) return headers(message, max) end
function ngx.req.get_headers(max, raw) return headers("request", max, raw) end
function ngx.resp.get_headers(max, raw) return headers("response", max, raw) end
function ngx.req.set_header(name, value)
  if value == nil then host.remove_header("request", name) else host.set_header("request", name, value) end
end
function ngx.req.clear_header(name) host.remove_header("request", name) end
function ngx.req.get_method() return get("method") end
local methods = {}
for name, value in pairs(ngx) do
  local method = name:match("^HTTP_(%u+)$")
  if method and value >= 2 and value <= 2 ^ 15 and value ~= 200 then methods[value] = method end
end
function ngx.req.set_method(id)
  local method = methods[id]
  if not method then error("unsupported HTTP method: " .. tostring(id), 2) end
  host.set("method", method)
end
function ngx.req.http_version() return get("http_version") end
function ngx.req.start_time() return get("started") end
function ngx.req.raw_header()
  return get("method") .. " " .. get("request_uri") .. " HTTP/" .. format("%.1f", get("http_version")) .. "\r\n" .. host.header_lines() .. "\r\n"
end
function ngx.req.get_uri_args(max) return ngx.decode_args(get("query"), max) end
function ngx.req.set_uri_args(args) host.set("query", type(args) == "table" and ngx.encode_args(args) or tostring(args)) end
function ngx.req.set_uri(path) host.set("upstream_path", path) end
function ngx.req.read_body() if get("body") == nil then effect("read_body") end end
function ngx.req.get_body_data()
  local body = get("body")
  return body ~= "" and body or nil
end
function ngx.req.get_body_file() return nil end
function ngx.req.discard_body() end
function ngx.req.set_body_data(data) host.set("body", data) end
function ngx.req.get_post_args(max) return ngx.decode_args(get("body") or "", max) end
function ngx.req.is_internal() return false end

-- Headers that are set before the response arrives are added to it (`host.set_header`).
setmetatable(ngx.header, {
  __index = function(_, name)
    local values = host.header_values("response", (gsub(name, "_", "-")))
    return #values > 1 and values or values[1]
  end,
  __newindex = function(_, name, value)
    name = gsub(name, "_", "-")
    if value == nil or (type(value) == "table" and #value == 0) then host.remove_header("response", name)
    else host.set_header("response", name, value) end
  end,
})

setmetatable(ngx.arg, {
  __index = function(_, i)
    if i == 1 then return get("chunk") end
    if i == 2 then return get("last") end
  end,
  __newindex = function(_, i, value)
    if i == 1 then host.set("chunk", value == nil and "" or value)
    elseif i == 2 then host.set("last", value) end
  end,
})

local variables = {
  args = function() local q = get("query") return q ~= "" and q or nil end,
  query_string = function() local q = get("query") return q ~= "" and q or nil end,
  is_args = function() return get("query") ~= "" and "?" or "" end,
  uri = function() return get("path") end,
  request = function() return get("method") .. " " .. get("request_uri") .. " HTTP/" .. format("%.1f", get("http_version")) end,
  request_body = function() return get("body") end,
  content_type = function() return host.header("request", "content-type") end,
  content_length = function() return host.header("request", "content-length") end,
  https = function() return get("scheme") == "https" and "on" or "" end,
  server_protocol = function() return "HTTP/" .. format("%.1f", get("http_version")) end,
  request_time = function() return format("%.3f", host.now() - get("started")) end,
  pid = function() return tostring(host.pid()) end,
  time_iso8601 = function() return os.date("%Y-%m-%dT%H:%M:%S+00:00", ngx.time()) end,
  msec = function() return format("%.3f", ngx.now()) end,
}
for variable, value in pairs {
  method = "method", scheme = "scheme", host = "host", remote_addr = "forwarded_ip", realip_remote_addr = "ip",
  binary_remote_addr = "binary_ip", request_method = "method", request_uri = "request_uri", request_id = "id", kong_request_id = "id",
  status = "status", upstream_status = "service_status", upstream_uri = "upstream_path", upstream_scheme = "upstream_scheme",
  upstream_host = "upstream_host", upstream_x_forwarded_prefix = "forwarded_prefix", server_addr = "server_addr",
  connection = "connection", connection_requests = "connection_requests", bytes_sent = "bytes_sent", request_length = "request_length",
} do variables[variable] = function() return get(value) end end
for variable, value in pairs {
  remote_port = "forwarded_port", realip_remote_port = "port_of_client", server_port = "port",
} do
  variables[variable] = function()
    local port = get(value)
    return port and tostring(port)
  end
end
local writable = {
  args = "query", upstream_uri = "upstream_path", upstream_scheme = "upstream_scheme", upstream_host = "upstream_host",
}
local prefixes = {
  http = function(name) return host.header("request", name) end,
  sent = function(name)
    local values = host.header_values("response", name)
    return #values > 0 and concat(values, ", ") or nil
  end,
  upstream = function(name) return host.header("service", name) end,
}
setmetatable(ngx.var, {
  __index = function(_, name)
    local variable = variables[name]
    if variable then return variable() end
    local prefix, header = name:match("^(%a-)_?http_([%w_]+)$")
    if prefix then return prefixes[prefix == "" and "http" or prefix](gsub(header, "_", "-"), nil) end
    local argument = name:match("^arg_(.+)$")
    if argument then
      local value = ngx.decode_args(get("query"))[argument]
      return type(value) == "table" and value[1] or value
    end
    local cookie = name:match("^cookie_(.+)$")
    if cookie then
      for key, value in string.gmatch(host.header("request", "cookie") or "", "([^=;%s]+)=([^;]*)") do
        if key == cookie then return value end
      end
    end
    return current.state.variables and current.state.variables[name]
  end,
  __newindex = function(_, name, value)
    if writable[name] then return host.set(writable[name], value) end
    if variables[name] then error("variable \"" .. name .. "\" not changeable", 2) end
    local state = current.state
    state.variables = state.variables or {}
    state.variables[name] = value
  end,
})

-- Endings -------------------------------------------------------------------------------------------------------------

local function printed(value, out)
  if type(value) == "table" then
    for _, each in ipairs(value) do printed(each, out) end
  else
    out[#out + 1] = value == null and "null" or tostring(value)
  end
end
function ngx.print(...)
  local state, out = current.state, {}
  for i = 1, select("#", ...) do printed((select(i, ...)), out) end
  state.printed = (state.printed or "") .. concat(out)
  return 1
end
function ngx.say(...) return ngx.print(..., "\n") end
function ngx.flush() return 1 end
function ngx.eof() return 1 end
function ngx.send_headers() return 1 end
function ngx.exit(status)
  local state = current.state
  if state.phase == "header_filter" or status < 200 and not state.printed or not get("has_request") then
    if status >= 200 then host.set("status", status) end
    return effect("exit")
  end
  if status < 200 then status = state.status or 200 end
  host.exit(status, state.printed or "")
  return effect("exit")
end
function ngx.redirect(uri, status)
  host.set_header("response", "Location", uri)
  host.exit(status or 302, "")
  return effect("exit")
end
function ngx.get_phase() return current.state.phase == "init_worker" and "init_worker" or current.state.phase end
ngx.get_raw_phase = ngx.get_phase

-- The route, service, consumer or credential of the request. Each entity is a single table: plugins use it as a key.
local tables, many = {}, 0
function current.entity(name)
  local number = host.entity_number(name)
  if not number then return nil end
  local entity = tables[number]
  if not entity then
    many = many + 1
    if many > 10000 then
      tables, many = {}, 1
      host.forget_entities()
      number = host.entity_number(name)
    end
    entity = host.entity_table(name)
    tables[number] = entity
  end
  return entity
end

-- The entries of `ngx.ctx` that Kong sets and plugins read.
local in_ctx = {
  route = function() return host.current.entity("route") end,
  service = function() return host.current.entity("service") end,
  router_matches = function()
    local named, captures = host.captures()
    for name, value in pairs(named) do captures[name] = value end
    return { uri_captures = captures }
  end,
  KONG_PHASE = function() return current.state.phase end,
}
current.ctx = {
  __index = function(_, name)
    local value = in_ctx[name]
    if value and get("has_request") then return value() end
  end,
}

setmetatable(ngx, {
  __index = function(_, name)
    if name == "ctx" then return current.state.ctx end
    if name == "status" then return current.state.status or get("status") or 0 end
    if name == "headers_sent" then
      local phase = current.state.phase
      return phase == "body_filter" or phase == "log"
    end
    if name == "is_subrequest" then return false end
  end,
  __newindex = function(t, name, value)
    if name == "ctx" then current.state.ctx = value
    elseif name == "status" then
      current.state.status = value
      host.set("status", value)
    else rawset(t, name, value) end
  end,
})

-- Timers, threads, sockets --------------------------------------------------------------------------------------------

function ngx.timer.at(delay, f, ...)
  if type(f) ~= "function" then error("bad argument #2 to 'at' (function expected, got " .. type(f) .. ")", 2) end
  if type(delay) ~= "number" or delay < 0 then error("delay cannot be a negative number", 2) end
  host.timer(delay, f, ...)
  return true
end
function ngx.timer.every(delay, f, ...)
  if type(delay) ~= "number" or delay <= 0 then error("delay must be greater than 0", 2) end
  local function again(premature, ...)
    host.timer(delay, again, ...)
    f(premature, ...)
  end
  host.timer(delay, again, ...)
  return true
end
function ngx.timer.running_count() return 0 end
function ngx.timer.pending_count() return 0 end
function ngx.worker.id() return 0 end
function ngx.worker.count() return 1 end
function ngx.worker.pid() return host.pid() end
function ngx.worker.pids() return { host.pid() } end
function ngx.worker.exiting() return false end

-- A thread runs only when it is waited for: threads run one after the other.
function ngx.thread.spawn(f, ...) return { f = f, n = select("#", ...), ... } end
function ngx.thread.wait(...)
  local thread = ...
  if not thread.results then thread.results = table.pack(pcall(thread.f, unpack(thread, 1, thread.n))) end
  return unpack(thread.results, 1, thread.results.n)
end
function ngx.thread.kill() return true end

local Socket = {}
Socket.__index = Socket
local function tcp() return setmetatable({ buffer = "", connect_timeout = 60, send_timeout = 60, read_timeout = 60 }, Socket) end
ngx.socket.tcp, ngx.socket.stream = tcp, tcp
function ngx.socket.connect(...)
  local socket = tcp()
  local ok, message = socket:connect(...)
  if not ok then return nil, message end
  return socket
end
function Socket:settimeout(milliseconds) self:settimeouts(milliseconds, milliseconds, milliseconds) end
function Socket:settimeouts(connect, send, read)
  self.connect_timeout, self.send_timeout, self.read_timeout = (connect or 60000) / 1000, (send or 60000) / 1000, (read or 60000) / 1000
end
function Socket:setoption() return true end
function Socket:getreusedtimes() return 0 end
function Socket:connect(name, port, options)
  if type(port) == "table" or port == nil then
    port, options = 0, port
    name = gsub(name, "^unix:", "")
  end
  self.host, self.port, self.options = name, tonumber(port), options
  return self:open(false)
end
function Socket:open(tls, server_name, verify)
  local connection, message = effect("connect", self.host, self.port, self.connect_timeout, tls, server_name, verify)
  if not connection then return nil, message end
  self.connection, self.buffer, self.closed = connection, "", false
  return 1
end
-- Connections use TLS from their first byte, so this opens a new one.
function Socket:sslhandshake(_, server_name, verify)
  if self.connection then effect("close", self.connection) end
  local ok, message = self:open(true, server_name, verify and true or false)
  if not ok then return nil, message end
  return true
end
local function flat(value, out)
  if type(value) == "table" then for _, each in ipairs(value) do flat(each, out) end
  else out[#out + 1] = tostring(value) end
  return out
end
function Socket:send(data)
  if not self.connection then return nil, "closed" end
  return effect("send", self.connection, concat(flat(data, {})), self.send_timeout)
end
function Socket:more()
  if self.closed or not self.connection then return nil, "closed" end
  local data, message = effect("receive", self.connection, 65536, self.read_timeout)
  if not data then return nil, message end
  if data == "" then
    self.closed = true
    return nil, "closed"
  end
  self.buffer = self.buffer .. data
  return true
end
function Socket:take(n)
  local data = sub(self.buffer, 1, n)
  self.buffer = sub(self.buffer, n + 1)
  return data
end
function Socket:receive(pattern)
  pattern = pattern or "*l"
  if type(pattern) == "number" then
    while #self.buffer < pattern do
      local ok, message = self:more()
      if not ok then return nil, message, self:take(#self.buffer) end
    end
    return self:take(pattern)
  end
  if pattern:sub(1, 2) == "*a" then
    while self:more() do end
    return self:take(#self.buffer)
  end
  local line, message, partial = self:receiveuntil("\n")()
  if not line then return nil, message, partial end
  return (gsub(line, "\r$", ""))
end
function Socket:receiveany(max)
  if self.buffer == "" then
    local ok, message = self:more()
    if not ok then return nil, message end
  end
  return self:take(max)
end
function Socket:receiveuntil(mark, options)
  return function()
    local from = 1
    while true do
      local first, last = find(self.buffer, mark, from, true)
      if first then
        local data = self:take(last)
        return options and options.inclusive and data or sub(data, 1, first - 1)
      end
      from = math.max(1, #self.buffer - #mark + 1)
      local ok, message = self:more()
      if not ok then return nil, message, self:take(#self.buffer) end
    end
  end
end
function Socket:close()
  if not self.connection then return nil, "closed" end
  effect("close", self.connection)
  self.connection = nil
  return 1
end

local Datagrams = {}
Datagrams.__index = Datagrams
function ngx.socket.udp() return setmetatable({ timeout = 60 }, Datagrams) end
function Datagrams:settimeout(milliseconds) self.timeout = (milliseconds or 60000) / 1000 end
function Datagrams:setpeername(name, port)
  if self.connection then self:close() end
  local message
  self.connection, message = effect("connect", name, port or 0, self.timeout, false, nil, true, true)
  if not self.connection then return nil, message end
  return true
end
function Datagrams:send(data)
  if not self.connection then return nil, "closed" end
  local sent, message = effect("send", self.connection, concat(flat(data, {})), self.timeout)
  if not sent then return nil, message end
  return true
end
function Datagrams:receive(size)
  if not self.connection then return nil, "closed" end
  return effect("receive", self.connection, size or 65536, self.timeout)
end
function Datagrams:close()
  if not self.connection then return nil, "closed" end
  local connection = self.connection
  self.connection = nil
  return effect("close", connection)
end
-- Connections are not pooled: the next request opens a new one.
function Socket:setkeepalive() return self:close() end

-- Shared dictionaries -------------------------------------------------------------------------------------------------

local Dictionary = {}
Dictionary.__index = Dictionary
for _, method in ipairs {
  "get", "get_stale", "set", "safe_set", "add", "safe_add", "replace", "incr", "delete", "ttl", "expire", "flush_all",
  "flush_expired", "get_keys", "capacity", "free_space", "lpush", "rpush", "lpop", "rpop", "llen",
} do
  local f = host["shared_" .. method]
  Dictionary[method] = function(self, ...) return f(self.name, ...) end
end
setmetatable(ngx.shared, {
  __index = function(t, name)
    if type(name) ~= "string" or not host.has_shared(name) then return nil end
    local dictionary = setmetatable({ name = name }, Dictionary)
    rawset(t, name, dictionary)
    return dictionary
  end,
})

return ngx
