return function(t) return next(t) == nil end
