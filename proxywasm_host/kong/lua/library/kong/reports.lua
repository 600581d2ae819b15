-- Reports: they are not sent.
return { retrieve_redis_version = function() end, get_ping_value = function() end, add_ping_value = function() end, send = function() end, toggle = function() end }
