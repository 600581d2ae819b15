-- kong.timer: timers, with and without a name.
local timers = {}
function timers:at(delay, f, ...) return ngx.timer.at(delay, f, ...) end
function timers:every(delay, f, ...) return ngx.timer.every(delay, f, ...) end
function timers:named_at(name, delay, f, ...)
  local ok, message = ngx.timer.at(delay, f, ...)
  return ok and name, message
end
function timers:named_every(name, delay, f, ...)
  local ok, message = ngx.timer.every(delay, f, ...)
  return ok and name, message
end
function timers:cancel() return nil, "timers cannot be cancelled" end
return timers
