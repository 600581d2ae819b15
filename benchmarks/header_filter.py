"""The work of `headers.py` as a filter in Python, for packing."""

from proxywasm import HttpFilter, register


class HeaderFilter(HttpFilter):
    def on_request_headers(self, request):
        headers = request.headers
        headers.get(":path")
        headers.get("user-agent")
        headers.add("x-wasm", "hello")
        del headers["x-remove-me"]

    def on_response_headers(self, response):
        headers = response.headers
        headers.get("server")
        headers.add("x-wasm", "hello")
        headers["server"] = "hello"


register(HeaderFilter)
