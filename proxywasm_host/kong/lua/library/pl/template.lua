-- Templates: `$(expression)` and `$name`; lines that begin with the escape are code.
local template = {}
local function literal(s) return ("%q"):format(s):gsub("\r", "\\r"):gsub("%z", "\\0") end
local function pieces(text, out)
  local at = 1
  while true do
    local first = text:find("$", at, true)
    if not first then break end
    local from, to, expression = text:find("^(%b())", first + 1)
    if not from then from, to, expression = text:find("^([%a_][%w_]*)", first + 1) end
    if from then
      if first > at then out[#out + 1] = "_put(" .. literal(text:sub(at, first - 1)) .. ")" end
      out[#out + 1] = "_put(_text(" .. expression .. "))"
      at = to + 1
    else
      out[#out + 1] = "_put(" .. literal(text:sub(at, first)) .. ")"
      at = first + 1
    end
  end
  if at <= #text then out[#out + 1] = "_put(" .. literal(text:sub(at)) .. ")" end
end
function template.compile(text, options)
  local escape, out, lines = options and options.escape or "#", {}, {}
  local function flush()
    if #lines > 0 then pieces(table.concat(lines, "\n"), out) end
    lines = {}
  end
  if text:find("\n", 1, true) or text:sub(1, #escape) == escape then
    for line in (text .. "\n"):gmatch("(.-)\n") do
      if line:sub(1, #escape) == escape then
        lines[#lines + 1] = ""
        flush()
        out[#out + 1] = line:sub(#escape + 1)
      else
        lines[#lines + 1] = line
      end
    end
    flush()
  else
    pieces(text, out)
  end
  local code = table.concat(out, "\n")
  local f, message = loadstring(code, options and options.chunk_name or "TMP")
  if not f then return nil, message, code end
  return {
    code = code,
    render = function(_, env, parent)
      local result = {}
      local outside = parent or _G
      setfenv(f, setmetatable({
        _put = function(s) result[#result + 1] = s end,
        _text = function(v) if v == nil then return "" end return tostring(v) end,
      }, { __index = function(_, key)
        local value = env and env[key]
        if value ~= nil then return value end
        return parent and outside[key] or nil
      end }))
      local ok, failure = pcall(f)
      if not ok then return nil, failure, code end
      return table.concat(result)
    end,
  }
end
function template.substitute(text, env)
  local compiled, message = template.compile(text)
  if not compiled then return nil, message end
  return compiled:render(env, env and env._parent)
end
return template
