"""A plugin for connections: it closes them if its configuration says so."""

version = "0.1.0"
priority = 10
Schema = ({"deny": {"type": "boolean"}}, {"ask": {"type": "boolean"}})


class Plugin:
    def __init__(self, config):
        self.config = config

    def preread(self, kong):
        kong.log.notice("py_gate saw ", kong.ctx.shared.get("gate"), " from ", kong.client.get_ip())
        if self.config.get("ask"):
            kong.log.notice("py_gate got ", kong.request.get_path())
        if self.config.get("deny"):
            kong.response.exit(403)

    def log(self, kong):
        kong.log.notice("py_gate logs")
