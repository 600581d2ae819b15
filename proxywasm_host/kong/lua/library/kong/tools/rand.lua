-- Random text.
local _, host = ...
return {
  get_rand_bytes = function(n) return host.random(n) end,
  random_string = function() return (host.uuid():gsub("-", "")) end,
}
