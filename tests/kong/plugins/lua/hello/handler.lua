-- A plugin in Lua: it says what it saw in each phase.
local Hello = { PRIORITY = 1000, VERSION = "0.1.0" }

function Hello:access(conf)
  if kong.request.get_header("x-deny") == "lua" then
    return kong.response.exit(402, { message = "denied by lua" }, { ["X-By"] = "lua" })
  end
  kong.ctx.shared.lua = conf.word
  kong.service.request.set_header("X-Lua", conf.word .. " " .. kong.router.get_route().name)
end

function Hello:header_filter(conf)
  kong.response.set_header("X-Lua-Source", kong.response.get_source())
  local filter = kong.ctx.shared.filter
  if filter then
    kong.response.set_header("X-Lua-Saw", filter)
  end
end

return Hello
