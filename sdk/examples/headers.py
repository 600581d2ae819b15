"""Reads, adds, replaces and removes headers. Configuration: the value of the header `x-wasm`; `hello` if empty."""

from proxywasm import HttpFilter, log, register


class Headers(HttpFilter):
    def on_configure(self, config):
        self.value = config or "hello"

    def on_request_headers(self, request):
        path, agent = request.path, request.headers.get("user-agent", "-")
        request.headers.add("x-wasm", self.value)
        del request.headers["x-remove-me"]
        log.info("headers: request for %s by %s", path, agent)

    def on_response_headers(self, response):
        server = response.headers.get("server", "-")
        response.headers.add("x-wasm", self.value)
        response.headers["server"] = "proxy-wasm"
        log.info("headers: response by %s", server)

    def on_log(self):
        log.info("headers: done")


register(Headers)
