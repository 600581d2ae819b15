-- Plugins cannot find files.
return { attributes = function(path) return nil, "cannot obtain information from file '" .. tostring(path) .. "': not in the sandbox" end }
