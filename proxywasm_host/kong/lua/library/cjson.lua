-- cjson: encoded here, where metatables can be read; decoded in Python, whose parser is in C.
local _, host = ...

local null, json_decode = host.null, host.json_decode
local byte, find, format, gsub, concat = string.byte, string.find, string.format, string.gsub, table.concat
local floor, huge = math.floor, math.huge
local getmetatable, next, pcall, setmetatable, tostring, type = getmetatable, next, pcall, setmetatable, tostring, type

local array_mt, empty_array_mt = {}, {}
local MAX_DEPTH = 1000

local escapes = { ['"'] = '\\"', ["\\"] = "\\\\", ["/"] = "\\/", ["\b"] = "\\b", ["\f"] = "\\f", ["\n"] = "\\n", ["\r"] = "\\r", ["\t"] = "\\t", ["\127"] = "\\u007f" }
local function escape(c) return escapes[c] or format("\\u%04x", byte(c)) end
local function quoted(s)
  if find(s, '[%z\1-\31"\\/\127]') then s = gsub(s, '[%z\1-\31"\\/\127]', escape) end
  return '"' .. s .. '"'
end

local function new()
  local precision, sparse_convert, sparse_ratio, sparse_safe, arrays_with_mt = 14, false, 2, 10, false
  local empty_is_object = true

  local function number(n)
    if n ~= n or n == huge or n == -huge then error("Cannot serialise number: must not be NaN or Infinity", 0) end
    return format("%." .. precision .. "g", n)
  end

  -- Returns the length of an array, or nil for an object.
  local function length(t)
    local mt, largest, n = getmetatable(t), 0, 0
    if mt == array_mt then return #t end
    for k in next, t do
      if type(k) ~= "number" or k < 1 or k ~= floor(k) then return nil end
      if k > largest then largest = k end
      n = n + 1
    end
    if n == 0 then return (mt == empty_array_mt or not empty_is_object) and 0 or nil end
    if sparse_ratio > 0 and largest > n * sparse_ratio and largest > sparse_safe then
      if not sparse_convert then error("Cannot serialise table: excessively sparse array", 0) end
      return nil
    end
    return largest
  end

  local encode
  local function append(out, value, depth)
    local kind = type(value)
    if kind == "string" then out[#out + 1] = quoted(value)
    elseif kind == "number" then out[#out + 1] = number(value)
    elseif kind == "boolean" then out[#out + 1] = tostring(value)
    elseif value == nil or value == null then out[#out + 1] = "null"
    elseif kind == "table" then
      if depth >= MAX_DEPTH then error("Cannot serialise, excessive depth (" .. depth + 1 .. ")", 0) end
      local n = length(value)
      if n then
        out[#out + 1] = "["
        for i = 1, n do
          if i > 1 then out[#out + 1] = "," end
          append(out, value[i], depth + 1)
        end
        out[#out + 1] = "]"
      else
        out[#out + 1] = "{"
        local first = true
        for k, v in next, value do
          if not first then out[#out + 1] = "," end
          first = false
          if type(k) == "string" then out[#out + 1] = quoted(k)
          elseif type(k) == "number" then out[#out + 1] = '"' .. number(k) .. '"'
          else error("Cannot serialise " .. type(k) .. ": table key must be a number or string", 0) end
          out[#out + 1] = ":"
          append(out, v, depth + 1)
        end
        out[#out + 1] = "}"
      end
    else
      error("Cannot serialise " .. kind .. ": type not supported", 0)
    end
  end

  function encode(value)
    local out = {}
    append(out, value, 0)
    return concat(out)
  end

  -- Python returns arrays as { n, items… } in a separate table: see json_decode.
  local function decode(text)
    if type(text) ~= "string" then error("bad argument #1 to 'decode' (string expected, got " .. type(text) .. ")", 2) end
    local value, message, arrays = json_decode(text, arrays_with_mt)
    if message then error(message, 0) end
    if arrays then
      for i = 1, #arrays do setmetatable(arrays[i], array_mt) end
    end
    return value
  end

  return {
    null = null, array_mt = array_mt, empty_array_mt = empty_array_mt, empty_array = setmetatable({}, array_mt),
    _NAME = "cjson", _VERSION = "2.1.0.14",
    encode = encode, decode = decode, new = new,
    encode_number_precision = function(n) precision = n or precision return precision end,
    encode_sparse_array = function(convert, ratio, safe)
      if convert ~= nil then sparse_convert = convert end
      sparse_ratio, sparse_safe = ratio or sparse_ratio, safe or sparse_safe
      return sparse_convert, sparse_ratio, sparse_safe
    end,
    encode_max_depth = function(n) return n or MAX_DEPTH end,
    decode_max_depth = function(n) return n or MAX_DEPTH end,
    encode_empty_table_as_object = function(on) empty_is_object = on ~= false and on ~= "off" return empty_is_object end,
    decode_array_with_array_mt = function(on) arrays_with_mt = on and true or false return arrays_with_mt end,
    encode_escape_forward_slash = function(on) escapes["/"] = on ~= false and "\\/" or nil return on end,
    encode_keep_buffer = function(on) return on end,
    encode_invalid_numbers = function(on) return on end,
    decode_invalid_numbers = function(on) return on end,
  }
end

return new()
