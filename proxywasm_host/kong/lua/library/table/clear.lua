return function(t) for k in pairs(t) do t[k] = nil end end
