-- Headers about limits: plugins collect them in `ngx.ctx`, then set them.
local error, format, pairs, tostring, type = error, string.format, pairs, tostring, type
local KEY = "__rate_limiting_context__"
local rate_limiting = {}

function rate_limiting.store_response_header(ctx, name, value)
  if type(name) ~= "string" then
    error(format("arg #2 `key` for function `store_response_header` must be a string, got %s", type(name)), 2)
  end
  if type(value) ~= "number" and type(value) ~= "string" then
    error(format("arg #3 `value` for function `store_response_header` must be a string or a number, got %s", type(value)), 2)
  end
  ctx[KEY] = ctx[KEY] or {}
  ctx[KEY][name] = value
end
function rate_limiting.get_stored_response_header(ctx, name) return ctx[KEY] and ctx[KEY][name] end
function rate_limiting.apply_response_headers(ctx)
  for name, value in pairs(ctx[KEY] or {}) do ngx.header[name] = tostring(value) end
end
return rate_limiting
