"""A/B routing: a cookie keeps each client on one variant. Configuration: {"b": share of variant b, from 0 to 1}."""

import random

from proxywasm import on_configure, on_request_headers, on_response_headers

share = [0.5]


@on_configure
def configure(config):
    share[0] = config["b"]


@on_request_headers
def choose(request):
    variant = request.cookies.get("variant")
    if variant not in ("a", "b"):
        variant = "b" if random.random() < share[0] else "a"
    request.headers["x-variant"] = variant


@on_response_headers
def remember(response):
    response.headers.add("set-cookie", "seen=yes; Path=/")
