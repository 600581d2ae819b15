-- kong.nginx: there is none, so that only the subsystem is known.
return {
  get_subsystem = function() return "http" end,
  get_statistics = function() return nil, "there is no nginx whose statistics could be shown" end,
}
