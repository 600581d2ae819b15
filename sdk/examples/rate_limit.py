"""Limits the requests of each client in a window of time, counted in shared data. Configuration: {"limit": 3, "seconds": 60}."""

import time

from proxywasm import HttpFilter, Response, counter, register, shared

refused = counter("rate_limit.refused")


class RateLimit(HttpFilter):
    def on_request_headers(self, request):
        client = request.headers.get("x-client", "all")
        window = int(time.time()) // self.config["seconds"]
        used = shared.increment(f"rate/{client}/{window}")
        if used > self.config["limit"]:
            refused.increment()
            return Response(429, {"retry-after": str(self.config["seconds"])}, "too many requests\n")
        request.headers["x-remaining"] = str(self.config["limit"] - used)


register(RateLimit)
