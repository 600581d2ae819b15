-- The work as a Kong plugin: the same file for LuaJIT in this process and for LuaJIT alone.
local plugin = { PRIORITY = 1000, VERSION = "1.0.0" }

function plugin:access()
  kong.request.get_path()
  kong.request.get_header("user-agent")
  kong.service.request.add_header("x-wasm", "hello")
  kong.service.request.clear_header("x-remove-me")
end

function plugin:header_filter()
  kong.service.response.get_header("server")
  kong.response.add_header("x-wasm", "hello")
  kong.response.set_header("server", "hello")
end

return plugin
