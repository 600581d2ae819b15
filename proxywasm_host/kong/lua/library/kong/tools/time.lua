-- Times.
local time = {}
function time.time_ns() return ngx.now() * 1e9 end
function time.get_updated_now() return ngx.now() end
function time.get_now_ms() return ngx.now() * 1000 end
time.get_updated_now_ms, time.get_updated_monotonic_ms = time.get_now_ms, time.get_now_ms
function time.get_start_time_ms() return ngx.req.start_time() * 1000 end
return time
