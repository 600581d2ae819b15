"""A plugin for the plugin server in Python: what it does, its configuration says."""

version = "1.2.3"
priority = 100
Schema = (
    {"message": {"type": "string", "default": "hello"}},
    {"deny": {"type": "boolean"}},
    {"stay": {"type": "number"}},
)
instances = {}


class Plugin:
    def __init__(self, config):
        self.config = config
        instances[config["message"]] = instances.get(config["message"], 0) + 1

    def access(self, kong):
        message = self.config["message"]
        if self.config.get("deny") or kong.request.get_header("x-deny") == "python":
            kong.response.exit(403, "denied by python", {"X-By": "python"})
            return
        kong.ctx.shared.set("python", message)
        if (seen := kong.ctx.shared.get("lua")) is not None:
            kong.service.request.set_header("X-Python-Saw", seen)
        kong.service.request.set_header("X-Python", message + " " + kong.request.get_header("host"))
        if kong.request.get_method() == "POST":
            body = kong.request.get_raw_body()
            kong.service.request.set_header("X-Body", body if isinstance(body, str) else body.decode("latin-1"))
        if self.config.get("stay"):
            kong.log.notice("about to stay")
            import time

            time.sleep(self.config["stay"])
            kong.request.get_path()

    def response(self, kong):
        kong.response.set_header("X-Python-Status", str(kong.service.response.get_status()))
        kong.response.set_header("X-Python-Instances", str(instances[self.config["message"]]))

    def log(self, kong):
        kong.log.notice("python logs ", kong.response.get_status())
