return function(t) local n = 0 for _ in pairs(t) do n = n + 1 if t[n] == nil then return false end end return true end
