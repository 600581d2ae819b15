-- Penlight's functions of strings.
local stringx = {}
function stringx.split(s, separator, n)
  local parts, at = {}, 1
  if s == "" then return parts end
  if not separator or separator == "" then
    for word in s:gmatch("%S+") do parts[#parts + 1] = word end
    return parts
  end
  while not (n and #parts >= n - 1) do
    local first, last = s:find(separator, at, true)
    if not first then break end
    parts[#parts + 1] = s:sub(at, first - 1)
    at = last + 1
  end
  parts[#parts + 1] = s:sub(at)
  return parts
end
function stringx.strip(s, characters)
  if not characters then return (s:gsub("^%s+", ""):gsub("%s+$", "")) end
  local set = "[" .. characters:gsub("[%]%^%-%%]", "%%%0") .. "]+"
  return (s:gsub("^" .. set, ""):gsub(set .. "$", ""))
end
function stringx.join(separator, list) return table.concat(list, separator) end
function stringx.startswith(s, prefix) return s:sub(1, #prefix) == prefix end
function stringx.endswith(s, suffix) return suffix == "" or s:sub(-#suffix) == suffix end
function stringx.replace(s, old, new)
  return (s:gsub(old:gsub("%p", "%%%0"), (new:gsub("%%", "%%%%"))))
end
function stringx.title(s) return (s:gsub("(%S)(%S*)", function(f, r) return f:upper() .. r:lower() end)) end
return stringx
