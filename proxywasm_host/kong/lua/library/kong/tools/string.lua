-- Strings.
local byte, find, format, gsub, lower, sub = string.byte, string.find, string.format, string.gsub, string.lower, string.sub
local stringx = require "pl.stringx"
local tools = { join = stringx.join, split = stringx.split }

local function once(value, separator, plain)
  if value == nil or separator == nil then return value, nil end
  if separator == "" then return "", value end
  local first, last = find(value, separator, nil, plain)
  if not first then return value, nil end
  return sub(value, 1, first - 1), sub(value, last + 1)
end
function tools.split_once(value, separator) return once(value, separator, true) end
function tools.psplit_once(value, pattern) return once(value, pattern, false) end

local function parts_of(value, separator, n, plain)
  if value == nil or n and n < 1 then return {}, 0 end
  if separator == nil then return { value }, 1 end
  local parts, at = {}, 1
  if separator == "" then
    parts[1] = ""
    for i = 1, #value do
      if n and #parts == n - 1 then break end
      parts[#parts + 1], at = sub(value, i, i), i + 1
    end
  else
    while not n or #parts < n - 1 do
      local first, last = find(value, separator, at, plain)
      if not first then break end
      parts[#parts + 1] = sub(value, at, first - 1)
      at = last + 1
    end
  end
  parts[#parts + 1] = sub(value, at)
  return parts, #parts
end
local function each(parts)
  local i = 0
  return function()
    i = i + 1
    return parts[i]
  end
end
function tools.splitn(value, separator, n) return parts_of(value, separator, n, true) end
function tools.psplitn(value, pattern, n) return parts_of(value, pattern, n, false) end
function tools.isplitn(value, separator, n) return each((parts_of(value, separator, n, true))) end
function tools.ipsplitn(value, pattern, n) return each((parts_of(value, pattern, n, false))) end
function tools.strip(value)
  if value == nil then return "" end
  return (gsub(gsub(tostring(value), "^[ \t-\r]+", ""), "[ \t-\r]+$", ""))
end
local encodings = {
  "^[%z\1-\127]", "^[\194-\223][\128-\191]", "^\224[\160-\191][\128-\191]", "^[\225-\236][\128-\191][\128-\191]",
  "^\237[\128-\159][\128-\191]", "^[\238-\239][\128-\191][\128-\191]", "^\240[\144-\191][\128-\191][\128-\191]",
  "^[\241-\243][\128-\191][\128-\191][\128-\191]", "^\244[\128-\143][\128-\191][\128-\191]",
}
function tools.validate_utf8(value)
  local text, at = tostring(value), 1
  while at <= #text do
    local last
    for i = 1, #encodings do
      local _, found = find(text, encodings[i], at)
      last = last or found
    end
    if not last then return false, at end
    at = last + 1
  end
  return true
end
local units = { k = { 2 ^ 10, "KiB" }, m = { 2 ^ 20, "MiB" }, g = { 2 ^ 30, "GiB" } }
function tools.bytes_to_str(bytes, unit, scale)
  local u = lower(unit or "")
  if u == "" or u == "b" then return format("%d", bytes) end
  scale = scale or 2
  if type(scale) ~= "number" or scale < 0 then error("scale must be equal or greater than 0", 2) end
  if not units[u] then error("invalid unit '" .. unit .. "' (expected 'k/K', 'm/M', or 'g/G')", 2) end
  return format("%." .. scale .. "f %s", bytes / units[u][1], units[u][2])
end
function tools.parse_ngx_size(size)
  local number, unit = size:match("^(%d+)([kKmMgG]?)$")
  return (tonumber(number) or 0) * (unit and units[lower(unit)] and units[lower(unit)][1] or 1)
end
function tools.replace_dashes(s) return (gsub(s, "-", "_")) end
function tools.replace_dashes_lower(s) return (gsub(lower(s), "-", "_")) end
local function decoded(s)
  return ngx.decode_base64(s) or require("ngx.base64").decode_base64url(s) or s
end
function tools.try_decode_base64(value)
  if type(value) == "string" then return decoded(value) end
  if type(value) == "table" then
    for i, each_of in ipairs(value) do value[i] = type(each_of) == "string" and decoded(each_of) or each_of end
  end
  return value
end
return tools
