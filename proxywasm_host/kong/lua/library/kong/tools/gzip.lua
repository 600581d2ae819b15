-- Compresses and decompresses bodies with gzip. Returns a string, or nil and a message.
local _, host = ...
local function try(f)
  return function(text)
    local ok, result = pcall(f, text)
    if not ok then return nil, result end
    return result
  end
end
return { deflate_gzip = try(host.gzip), inflate_gzip = try(host.gunzip) }
