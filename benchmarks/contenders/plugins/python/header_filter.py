"""The work as a plugin of Kong's plugin server in Python."""

version = "1.0.0"
priority = 1000
Schema = ()


class Plugin:
    def __init__(self, config):
        self.config = config

    def access(self, kong):
        kong.request.get_path()
        kong.request.get_header("user-agent")
        kong.service.request.add_header("x-wasm", "hello")
        kong.service.request.clear_header("x-remove-me")

    def response(self, kong):
        kong.service.response.get_header("server")
        kong.response.add_header("x-wasm", "hello")
        kong.response.set_header("server", "hello")
