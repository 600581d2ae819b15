-- kong.nginx: only the subsystem, because there is no nginx.
return {
  get_subsystem = function() return "http" end,
  get_statistics = function() return nil, "there is no nginx whose statistics could be shown" end,
}
