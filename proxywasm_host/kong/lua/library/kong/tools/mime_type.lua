-- Media types (RFC 2045).
local TOKEN = "[^%z\1-\32\127-\255()<>@,;:\\\"/%[%]?={}]+"
local mime = {}
function mime.parse_mime_type(text)
  if text == "*" then return "*", "*", {} end
  local kind, subtype, at = text:match("^(" .. TOKEN .. ")/(" .. TOKEN .. ")()")
  if not kind then return nil end
  local params = {}
  while at <= #text do
    local name, next_at = text:match("^[ \t]*;[ \t]*(" .. TOKEN .. ")=()", at)
    if not name then return nil end
    local value, after = text:match("^(" .. TOKEN .. ")()", next_at)
    if not value then value, after = text:match('^"(.-)"()', next_at) end
    if not value then return nil end
    params[name:lower()], at = value, after
  end
  return kind:lower(), subtype:lower(), params
end
function mime.includes(this, other)
  if type(this) ~= "table" then error("this must be a table", 2) end
  if type(other) ~= "table" then error("other must be a table", 2) end
  if this.type == "*" then return true end
  if this.type ~= other.type then return false end
  if this.subtype == "*" or this.subtype == other.subtype then return true end
  local suffix = other.subtype:match("%+(.+)$")
  return suffix ~= nil and not this.subtype:find("+", 1, true) and this.subtype == suffix
end
return mime
