-- Paths of URIs (RFC 3986).
local byte, char, find, format, gsub, match, sub, upper = string.byte, string.char, string.find, string.format, string.gsub, string.match, string.sub, string.upper
local reserved = {}
for c in ("!*'();:@&=+$,/?%#[]"):gmatch(".") do reserved[byte(c)] = true end
local uri = {}
function uri.escape(path)
  return (gsub(path, "[^!#$&'()*+,/:;=?@%[%]%w%-_%.~%%]", function(c) return format("%%%02X", byte(c)) end))
end
-- Decodes characters that need no encoding, resolves `.` and `..`, and drops empty segments if asked.
function uri.normalize(path, merge_slashes)
  path = gsub(path, "%%(%x%x)", function(hex)
    local code = tonumber(hex, 16)
    return reserved[code] and "%" .. upper(hex) or char(code)
  end)
  if merge_slashes then path = gsub(path, "//+", "/") end
  if not find(path, ".", 1, true) then return path end
  local out = {}
  local trailing = match(path, "/%.%.?$") ~= nil
  for slash, segment in path:gmatch("(/?)([^/]*)") do
    if segment == ".." then out[#out] = nil
    elseif segment ~= "." and (slash ~= "" or segment ~= "") then out[#out + 1] = slash .. segment end
  end
  return table.concat(out) .. (trailing and "/" or "")
end
return uri
