-- Does nothing: a handler's time is limited, so it need not yield.
return { yield = function() return true end }
