-- Parts of URLs (RFC 3986), as in LuaSocket.
local url = {}
function url.escape(s) return (tostring(s):gsub("[^%w%-%._~]", function(c) return ("%%%02x"):format(c:byte()) end)) end
function url.unescape(s) return (tostring(s):gsub("%%(%x%x)", function(hex) return string.char(tonumber(hex, 16)) end)) end
function url.parse(text, default)
  local parsed = {}
  for k, v in pairs(default or {}) do parsed[k] = v end
  if not text or text == "" then return nil, "invalid url" end
  text = text:gsub("#(.*)$", function(f) parsed.fragment = f return "" end)
  text = text:gsub("^([%w][%w%+%-%.]*)%:", function(s) parsed.scheme = s return "" end)
  text = text:gsub("^//([^/%?]*)", function(a) parsed.authority = a return "" end)
  text = text:gsub("%?(.*)", function(q) parsed.query = q return "" end)
  text = text:gsub("%;(.*)", function(p) parsed.params = p return "" end)
  if text ~= "" then parsed.path = text end
  local authority = parsed.authority
  if not authority then return parsed end
  authority = authority:gsub("^([^@]*)@", function(u) parsed.userinfo = u return "" end)
  authority = authority:gsub(":([^:%]]*)$", function(p) parsed.port = p return "" end)
  if authority ~= "" then parsed.host = authority:match("^%[(.+)%]$") or authority end
  if parsed.userinfo then
    parsed.user = parsed.userinfo:gsub(":([^:]*)$", function(p) parsed.password = p return "" end)
  end
  return parsed
end
return url
