-- kong.nginx: there is no nginx, so only the subsystem is known.
return {
  get_subsystem = function() return "http" end,
  get_statistics = function() return nil, "there is no nginx whose statistics could be shown" end,
}
