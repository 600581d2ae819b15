-- Checks of headers, with Kong's messages.
local error, format, ipairs, pairs, tostring, type = error, string.format, ipairs, pairs, tostring, type

local checks = {}

local function check(name, value, expected, level)
  if type(name) ~= "string" then error(format("invalid header name %q: got %s, expected string", tostring(name), type(name)), level) end
  local kind = type(value)
  if kind == "table" then
    for _, each in ipairs(value) do
      if type(each) ~= "string" then
        error(format("invalid header value in array %q: got %s, expected string", name, type(each)), level)
      end
    end
  elseif kind ~= "string" and kind ~= "number" and kind ~= "boolean" then
    error(format("invalid header value for %q: got %s, expected %s", name, kind, expected), level)
  end
end

function checks.validate_header(name, value) check(name, value, "array of string, string, number or boolean", 4) end
function checks.validate_headers(headers)
  if type(headers) ~= "table" then error("headers must be a table", 3) end
  for name, value in pairs(headers) do check(name, value, "string, number, boolean or array of strings", 4) end
end
function checks.normalize_multi_header(value)
  if type(value) ~= "table" then return tostring(value) end
  local copy = {}
  for i, each in ipairs(value) do copy[i] = each end
  return copy
end
function checks.normalize_header(value) return tostring(value) end

-- Checks that `value` is a number between two others; messages call it `what`.
function checks.number(value, what, least, most)
  if type(value) ~= "number" then error(what .. " must be a number", 3) end
  if value < least then error(what .. " must be >= " .. least, 3) end
  if value > most then error(what .. " must be <= " .. most, 3) end
end
function checks.integer(value, what, least, most)
  if type(value) ~= "number" or value % 1 ~= 0 then error(what .. " must be an integer", 3) end
  if value < least or value > most then
    error(format("%s must be an integer between %d and %d: given %d", what, least, most, value), 3)
  end
end
function checks.string(value, what)
  if type(value) ~= "string" then error(what .. " must be a string", 3) end
end
return checks
