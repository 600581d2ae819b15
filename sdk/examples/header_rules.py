"""Header rules. Configuration: {"request": {"set": {…}, "remove": […]}, "response": {…}, "deny": ["/path", …]}."""

from proxywasm import HttpFilter, Response, register


class HeaderRules(HttpFilter):
    def on_configure(self, config):
        self.rules = config or {}
        return isinstance(self.rules, dict)

    def apply(self, headers, rules):
        for name in rules.get("remove", ()):
            del headers[name]
        headers.update(rules.get("set", {}))

    def on_request_headers(self, request):
        if any(request.path.startswith(path) for path in self.rules.get("deny", ())):
            return Response(403, body={"denied": request.path})
        self.apply(request.headers, self.rules.get("request", {}))

    def on_response_headers(self, response):
        self.apply(response.headers, self.rules.get("response", {}))


register(HeaderRules)
