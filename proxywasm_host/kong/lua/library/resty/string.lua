-- Strings of bytes.
local strings = {}
function strings.to_hex(s) return (s:gsub(".", function(c) return ("%02x"):format(c:byte()) end)) end
function strings.atoi(s) return tonumber(s:match("^%d+")) or 0 end
return strings
