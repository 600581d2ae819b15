-- A plugin in Lua for connections: it lets addresses through or not, as its configuration says.
local Gate = { PRIORITY = 1000, VERSION = "0.1.0" }

function Gate:preread(conf)
  kong.log.notice("gate ", kong.client.get_protocol(), " ", kong.client.get_ip(), " ", kong.router.get_route().name)
  kong.ctx.shared.gate = conf.does
  if conf.does == "wait" then ngx.sleep(0.05) end
  if conf.does == "exit" then return kong.response.exit(403) end
  if conf.does == "fail" then error("the gate is broken") end
  if conf.does == "ask" then kong.request.get_path() end
end

function Gate:log(conf)
  kong.log.notice("gate logs ", conf.does)
end

return Gate
