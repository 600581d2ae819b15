-- Limits the time of Lua's patterns. While `string.find` and the like run, no hook is called, and the time of a pattern
-- such as ".-.-.-x" grows with a power of the text's length. So a pattern that may take more than BUDGET steps is
-- matched here, in Lua, which can be stopped; LuaJIT matches all others. Results and messages are the same.
local native = { find = string.find, match = string.match, gmatch = string.gmatch, gsub = string.gsub }
local native_find, native_match, native_gmatch, native_gsub = native.find, native.match, native.gmatch, native.gsub
local byte, char, sub, len = string.byte, string.char, string.sub, string.len
local error, type, tostring, tonumber, pairs, unpack, concat, huge =
  error, type, tostring, tonumber, pairs, unpack, table.concat, math.huge

local BUDGET = 1e8 -- a few tenths of a second
local MAX_CAPTURES, MAX_DEPTH = 32, 200
local REMEMBERED, SHORT = 1024, 1000 -- most patterns, and bytes of each
local ANY = -1

-- The longest text that LuaJIT may match with a pattern -------------------------------------------------------------------

local function longest(pattern)
  local power, factor, at, inside = byte(pattern) == 94 and 0 or 1, len(pattern), 1, false
  while at <= len(pattern) do
    local c = sub(pattern, at, at)
    if c == "%" then
      at = at + 1
      if native_find(sub(pattern, at, at), "^[b%d]") then power = power + 1 end
    elseif inside then
      inside = c ~= "]"
    elseif c == "[" then
      inside = true
      if sub(pattern, at + 1, at + 1) == "^" then at = at + 1 end
      if sub(pattern, at + 1, at + 1) == "]" then at = at + 1 end
    elseif c == "*" or c == "+" or c == "-" then
      power = power + 1
    elseif c == "?" then
      factor = factor * 2
    end
    at = at + 1
  end
  if factor > BUDGET then return -1 end
  return power == 0 and huge or (BUDGET / factor) ^ (1 / power)
end

local limits, remembered = {}, 0
local function limit_of(pattern)
  local limit = limits[pattern]
  if not limit then
    if len(pattern) > SHORT then return longest(pattern) end
    if remembered == REMEMBERED then limits, remembered = {}, 0 end
    limit = longest(pattern)
    limits[pattern], remembered = limit, remembered + 1
  end
  return limit
end

-- Patterns as lists of items -------------------------------------------------------------------------------------------

local classes = {}
for c in native.gmatch("acdlpsuwxzgACDLPSUWXZG", ".") do
  local set = {}
  for b = 0, 255 do set[b] = native.find(char(b), "^%" .. c) ~= nil end
  classes[byte(c)] = set
end

-- Returns the place of the bracket that ends a set; a bracket in the first place is a member of the set.
local function set_end(pattern, at)
  repeat
    local c = byte(pattern, at)
    if not c then error("malformed pattern (missing ']')", 0) end
    at = at + 1
    if c == 37 then
      if at > len(pattern) then error("malformed pattern (missing ']')", 0) end
      at = at + 1
    end
  until byte(pattern, at) == 93
  return at
end

local function set_at(pattern, at)
  local set, negated = {}, byte(pattern, at + 1) == 94
  at = at + (negated and 2 or 1)
  local last = set_end(pattern, at)
  while at < last do
    local c = byte(pattern, at)
    if c == 37 then
      local escaped = byte(pattern, at + 1)
      if classes[escaped] then
        for b, is in pairs(classes[escaped]) do set[b] = set[b] or is end
      else
        set[escaped] = true
      end
      at = at + 2
    elseif byte(pattern, at + 1) == 45 and at + 2 < last then
      for b = c, byte(pattern, at + 2) do set[b] = true end
      at = at + 3
    else
      set[c] = true
      at = at + 1
    end
  end
  local final = {}
  for b = 0, 255 do final[b] = (set[b] or false) ~= negated end
  return final, last + 1
end

-- Returns one item: `what` is a byte, ANY or a set; `times` one of * + - ?; other items have a `kind`.
local function items_of(pattern, from)
  local items, at, size, open, captures = {}, from, len(pattern), {}, 0
  while at <= size do
    local c, item = byte(pattern, at), {}
    if c == 40 then
      captures = captures + 1
      if captures > MAX_CAPTURES then error("too many captures", 0) end
      if byte(pattern, at + 1) == 41 then
        item.kind, at = "position", at + 2
      else
        item.kind, at = "open", at + 1
        open[#open + 1] = captures
      end
      item.capture = captures
    elseif c == 41 then
      if #open == 0 then error("invalid pattern capture", 0) end
      item.kind, item.capture, at = "close", open[#open], at + 1
      open[#open] = nil
    elseif c == 36 and at == size then
      item.kind, at = "end", at + 1
    elseif c == 37 and byte(pattern, at + 1) == 98 then
      item.kind, item.opening, item.closing = "balance", byte(pattern, at + 2), byte(pattern, at + 3)
      if not item.closing then error("unbalanced pattern", 0) end
      at = at + 4
    elseif c == 37 and byte(pattern, at + 1) == 102 then
      if byte(pattern, at + 2) ~= 91 then error("missing '[' after '%f' in pattern", 0) end
      item.kind = "frontier"
      item.what, at = set_at(pattern, at + 2)
    elseif c == 37 and native.find(pattern, "^%d", at + 1) then
      item.kind, item.capture, at = "back", byte(pattern, at + 1) - 48, at + 2
      if item.capture == 0 or item.capture > captures then error("invalid capture index", 0) end
      for _, still in pairs(open) do
        if still == item.capture then error("invalid capture index", 0) end
      end
    else
      if c == 91 then
        item.what, at = set_at(pattern, at)
      elseif c == 37 then
        local escaped = byte(pattern, at + 1)
        if not escaped then error("malformed pattern (ends with '%')", 0) end
        item.what, at = classes[escaped] or escaped, at + 2
      else
        item.what, at = c == 46 and ANY or c, at + 1
      end
      local times = sub(pattern, at, at)
      if times == "*" or times == "+" or times == "-" or times == "?" then item.times, at = times, at + 1 end
    end
    items[#items + 1] = item
  end
  if #open > 0 then error("unfinished capture", 0) end
  return items, captures
end

local function is(what, b)
  if not b then return false end
  if what == ANY then return true end
  if type(what) == "table" then return what[b] end
  return what == b
end

-- Matching -------------------------------------------------------------------------------------------------------------

local match_from

local function balanced(text, at, item)
  if byte(text, at) ~= item.opening then return nil end
  local depth = 1
  for i = at + 1, len(text) do
    local b = byte(text, i)
    if b == item.closing then
      depth = depth - 1
      if depth == 0 then return i + 1 end
    elseif b == item.opening then
      depth = depth + 1
    end
  end
end

local function same(text, from, to, at)
  if at + (to - from) - 1 > len(text) then return false end
  for i = 0, to - from - 1 do
    if byte(text, from + i) ~= byte(text, at + i) then return false end
  end
  return true
end

-- Returns the place after the match, or nothing. `found` gets the start and end of each capture.
function match_from(items, number, text, at, found, depth)
  if depth > MAX_DEPTH then error("pattern too complex", 0) end
  while true do
    local item = items[number]
    if not item then return at end
    local kind, times = item.kind, item.times
    if kind == nil and times == nil then
      if not is(item.what, byte(text, at)) then return nil end
      at, number = at + 1, number + 1
    elseif kind == nil then
      if times == "?" then
        if is(item.what, byte(text, at)) then
          local ended = match_from(items, number + 1, text, at + 1, found, depth + 1)
          if ended then return ended end
        end
        number = number + 1
      elseif times == "-" then
        while true do
          local ended = match_from(items, number + 1, text, at, found, depth + 1)
          if ended then return ended end
          if not is(item.what, byte(text, at)) then return nil end
          at = at + 1
        end
      else
        local last = at
        while is(item.what, byte(text, last)) do last = last + 1 end
        for from = last, at + (times == "+" and 1 or 0), -1 do
          local ended = match_from(items, number + 1, text, from, found, depth + 1)
          if ended then return ended end
        end
        return nil
      end
    elseif kind == "open" or kind == "close" then
      local captures = kind == "open" and found.first or found.last
      local before = captures[item.capture]
      captures[item.capture] = at
      local ended = match_from(items, number + 1, text, at, found, depth + 1)
      if not ended then captures[item.capture] = before end
      return ended
    elseif kind == "position" then
      found.first[item.capture], found.last[item.capture] = at, false
      number = number + 1
    elseif kind == "end" then
      return at == len(text) + 1 and at or nil
    elseif kind == "balance" then
      at = balanced(text, at, item)
      if not at then return nil end
      number = number + 1
    elseif kind == "frontier" then
      local before = at > 1 and byte(text, at - 1) or 0
      if item.what[before] or not item.what[byte(text, at) or 0] then return nil end
      number = number + 1
    else
      local first, last = found.first[item.capture], found.last[item.capture]
      if not same(text, first, last, at) then return nil end
      at, number = at + (last - first), number + 1
    end
  end
end

local function capture(text, found, which)
  local first, last = found.first[which], found.last[which]
  if last == false then return first end
  return sub(text, first, last - 1)
end

local function captured(text, found, count, first, last)
  if count == 0 then return first and sub(text, first, last - 1) end
  local values = {}
  for i = 1, count do values[i] = capture(text, found, i) end
  return unpack(values, 1, count)
end

-- Returns start and end of the first match at or after a place; an anchored pattern is tried at that place only.
local function search(items, anchored, text, at)
  local found = { first = {}, last = {} }
  repeat
    local ended = match_from(items, 1, text, at, found, 0)
    if ended then return at, ended, found end
    at = at + 1
  until anchored or at > len(text) + 1
end

local function prepared(pattern, anchors)
  local anchored = anchors and byte(pattern) == 94
  local items, count = items_of(pattern, anchored and 2 or 1)
  return items, count, anchored
end

local function start_of(text, init)
  init = tonumber(init) or 1
  if init < 0 then init = len(text) + init + 1 end
  return init < 1 and 1 or init > len(text) and len(text) + 1 or init
end

local function find_plain(text, pattern, at)
  local size = len(pattern)
  for from = at, len(text) - size + 1 do
    local i = 1
    while i <= size and byte(text, from + i - 1) == byte(pattern, i) do i = i + 1 end
    if i > size then return from, from + size - 1 end
  end
  return nil
end

-- The replaced functions -----------------------------------------------------------------------------------------------

local function text_of(value)
  local kind = type(value)
  if kind == "string" then return value end
  return kind == "number" and tostring(value) or nil
end

-- Returns text and pattern if they must be matched here.
local function dear(text, pattern)
  text, pattern = text_of(text), text_of(pattern)
  if text and pattern and len(text) > limit_of(pattern) then return text, pattern end
end

function string.find(text, pattern, init, plain)
  local limit = limits[pattern]
  if limit and type(text) == "string" and len(text) <= limit then return native_find(text, pattern, init, plain) end
  local subject, ours = dear(text, pattern)
  if not subject then return native_find(text, pattern, init, plain) end
  local at = start_of(subject, init)
  if plain or not native.find(ours, "[%^%$%*%+%?%.%(%[%%%-]") then return find_plain(subject, ours, at) end
  local items, count, anchored = prepared(ours, true)
  local first, last, found = search(items, anchored, subject, at)
  if not first then return nil end
  if count == 0 then return first, last - 1 end
  return first, last - 1, captured(subject, found, count)
end

function string.match(text, pattern, init)
  local limit = limits[pattern]
  if limit and type(text) == "string" and len(text) <= limit then return native_match(text, pattern, init) end
  local subject, ours = dear(text, pattern)
  if not subject then return native_match(text, pattern, init) end
  local at = start_of(subject, init)
  local items, count, anchored = prepared(ours, true)
  local first, last, found = search(items, anchored, subject, at)
  if not first then return nil end
  return captured(subject, found, count, first, last)
end

function string.gmatch(text, pattern)
  local limit = limits[pattern]
  if limit and type(text) == "string" and len(text) <= limit then return native_gmatch(text, pattern) end
  local subject, ours = dear(text, pattern)
  if not subject then return native_gmatch(text, pattern) end
  local items, count = prepared(ours, false)
  local at = 1
  return function()
    if at > len(subject) + 1 then return nil end
    local first, last, found = search(items, false, subject, at)
    if not first then
      at = len(subject) + 2
      return nil
    end
    at = last > first and last or last + 1
    return captured(subject, found, count, first, last)
  end
end

local function filled(replacement, subject, found, count, first, last)
  return (native_gsub(replacement, "%%(.?)", function(which)
    if which == "0" then return sub(subject, first, last - 1) end
    local number = tonumber(which)
    if not number then return which end
    if number == 1 and count == 0 then return sub(subject, first, last - 1) end
    if number > count then error("invalid capture index", 0) end
    return tostring(capture(subject, found, number))
  end))
end

function string.gsub(text, pattern, replacement, most)
  local limit = limits[pattern]
  if limit and type(text) == "string" and len(text) <= limit then return native_gsub(text, pattern, replacement, most) end
  local subject, ours = dear(text, pattern)
  local kind = type(replacement)
  if not subject or (kind ~= "string" and kind ~= "number" and kind ~= "table" and kind ~= "function") then
    return native_gsub(text, pattern, replacement, most)
  end
  local items, count, anchored = prepared(ours, true)
  local out, at, done = {}, 1, 0
  most = tonumber(most) or huge
  while done < most do
    local found = { first = {}, last = {} }
    local last = match_from(items, 1, subject, at, found, 0)
    if last then
      done = done + 1
      local value
      if kind == "table" then
        value = replacement[(captured(subject, found, count, at, last))]
      elseif kind == "function" then
        value = replacement(captured(subject, found, count, at, last))
      else
        value = filled(tostring(replacement), subject, found, count, at, last)
      end
      if not value then
        value = sub(subject, at, last - 1)
      elseif type(value) ~= "string" and type(value) ~= "number" then
        error("invalid replacement value (a " .. type(value) .. ")", 0)
      end
      out[#out + 1] = value
    end
    if last and last > at then
      at = last
    elseif at <= len(subject) then
      out[#out + 1] = sub(subject, at, at)
      at = at + 1
    else
      break
    end
    if anchored then break end
  end
  out[#out + 1] = sub(subject, at)
  return concat(out), done
end

-- For tests: sets BUDGET.
return function(steps) BUDGET, limits, remembered = steps, {}, 0 end
