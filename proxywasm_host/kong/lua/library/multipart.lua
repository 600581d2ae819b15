-- multipart/form-data (RFC 7578): reading, changing, writing.
local Multipart = {}
Multipart.__index = Multipart

local function parse(body, boundary)
  local parts = {}
  local delimiter = "--" .. boundary
  local at = body:find(delimiter, 1, true)
  while at do
    local start = at + #delimiter
    if body:sub(start, start + 1) == "--" then break end
    local following = body:find("\n" .. delimiter, start, true)
    if not following then break end
    local piece = body:sub(start, following - 1):gsub("^\r?\n", ""):gsub("\r$", "")
    local head, value = piece:match("^(.-)\r?\n\r?\n(.*)$")
    if not head then head, value = piece, "" end
    local headers, name = {}, nil
    for line in head:gmatch("[^\r\n]+") do
      headers[#headers + 1] = line
      if line:lower():match("^content%-disposition:") then name = line:match('[; ]name="([^"]*)"') or line:match("[; ]name=([^;%s]+)") end
    end
    parts[#parts + 1] = { name = name, headers = headers, value = value }
    at = following + 1
  end
  return parts
end
function Multipart:get(name)
  for _, part in ipairs(self.parts) do
    if part.name == name then return part end
  end
end
function Multipart:get_all()
  local all = {}
  for _, part in ipairs(self.parts) do if part.name then all[part.name] = part.value end end
  return all
end
function Multipart:get_as_array(name)
  local values = {}
  for _, part in ipairs(self.parts) do if part.name == name then values[#values + 1] = part.value end end
  return values
end
function Multipart:get_all_as_arrays()
  local all = {}
  for _, part in ipairs(self.parts) do if part.name then all[part.name] = self:get_as_array(part.name) end end
  return all
end
function Multipart:get_all_with_arrays()
  local all = {}
  for name, values in pairs(self:get_all_as_arrays()) do all[name] = #values == 1 and values[1] or values end
  return all
end
function Multipart:set_simple(name, value, filename, content_type)
  local headers = { 'Content-Disposition: form-data; name="' .. name .. '"' .. (filename and '; filename="' .. filename .. '"' or "") }
  if content_type then headers[2] = "Content-Type: " .. content_type end
  local part = self:get(name)
  if part then part.headers, part.value = headers, value
  else table.insert(self.parts, { name = name, headers = headers, value = value }) end
end
function Multipart:delete(name)
  for i = #self.parts, 1, -1 do
    if self.parts[i].name == name then table.remove(self.parts, i) end
  end
end
function Multipart:tostring()
  local out = {}
  for _, part in ipairs(self.parts) do
    out[#out + 1] = "--" .. self.boundary .. "\r\n" .. table.concat(part.headers, "\r\n") .. "\r\n\r\n" .. tostring(part.value) .. "\r\n"
  end
  return table.concat(out) .. "--" .. self.boundary .. "--\r\n"
end
Multipart.__tostring = Multipart.tostring
return setmetatable({}, {
  __call = function(_, body, content_type)
    local boundary = content_type and (content_type:match('boundary="([^"]+)"') or content_type:match("boundary=([^;%s]+)"))
    if not boundary then return nil end
    return setmetatable({ boundary = boundary, parts = parse(body or "", boundary) }, Multipart)
  end,
})
