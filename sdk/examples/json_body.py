"""Rewrites JSON bodies: adds "seen": true to the request's, removes from the response's the fields in {"drop": […]}."""

import json

from proxywasm import HttpFilter, Response, register


class JsonBody(HttpFilter):
    async def on_request_headers(self, request):
        if not request.headers.get("content-type", "").startswith("application/json"):
            return None
        try:
            body = await request.json()
        except ValueError:
            return Response(400, body="this is no JSON\n")
        request.set_body({**body, "seen": True})

    async def on_response_headers(self, response):
        if response.headers.get("content-type", "").startswith("application/json"):
            body = json.loads(await response.body())
            response.set_body({k: v for k, v in body.items() if k not in self.config["drop"]})


register(JsonBody)
