-- Only the calls by which plugins append lines to files that the embedder allows; there is no other FFI.
local _, host = ...
local files, number, problem = {}, 2, 0
local messages = { [2] = "No such file or directory", [9] = "Bad file descriptor", [13] = "Permission denied" }

local C = {}
function C.open(path)
  local ok = host.append_to_file(path, "")
  if not ok then
    problem = 13
    return -1
  end
  number = number + 1
  files[number] = path
  return number
end
function C.write(fd, data, size)
  if not files[fd] then
    problem = 9
    return -1
  end
  local ok = host.append_to_file(files[fd], data:sub(1, size))
  if not ok then
    problem = 13
    return -1
  end
  return size
end
function C.close(fd)
  files[fd] = nil
  return 0
end
function C.strerror(code) return messages[code] or "Unknown error" end
setmetatable(C, { __index = function(_, name) error("the FFI is not in the sandbox: C." .. tostring(name), 2) end })

return setmetatable({
  C = C, cdef = function() end, errno = function() return problem end, string = function(s) return s end,
  new = function(kind, value)
    if kind == "int" then return value end
    error("the FFI is not in the sandbox: new('" .. tostring(kind) .. "')", 2)
  end,
  os = jit.os, arch = jit.arch,
}, { __index = function(_, name) error("the FFI is not in the sandbox: " .. tostring(name), 2) end })
