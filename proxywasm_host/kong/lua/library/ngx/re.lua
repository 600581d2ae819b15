-- ngx.re: the functions that the global `ngx.re` does not have.
local re = { opt = function() end }
function re.split(subject, pattern, options, ctx, max, result)
  local parts, at = result or {}, 1
  local context = { pos = 1 }
  while not (max and max > 0 and #parts >= max - 1) do
    local first, last, message = ngx.re.find(subject, pattern, options, context)
    if message then return nil, message end
    if not first or last < first then break end
    parts[#parts + 1] = subject:sub(at, first - 1)
    at = last + 1
  end
  parts[#parts + 1] = subject:sub(at)
  return parts
end
return re
