-- Nothing gives way: a handler has its share of time.
return { yield = function() return true end }
