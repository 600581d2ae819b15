"""The configuration of the data plane, as JSON that `dataplane/src/config.rs` reads."""

from __future__ import annotations

import json
from typing import Any

from proxywasm_host.serve.config import Settings
from proxywasm_host.serve.upstreams import TCP, Upstream

__all__ = ["dataplane_config"]

SAME = {"clients", "forwarded", "access_log", "tls", "stream_idle_timeout"}
"""Settings that have the same form in the data plane."""
LINGER = 30.0
"""Seconds for which a server that has answered may leave the rest of the request unread."""


def dataplane_config(settings: Settings) -> str:
    """The JSON of upstreams, routes and general settings: short forms written out, chains as numbers."""
    config = settings.model_dump(mode="json", include=SAME)
    config["upstreams"] = {
        name: {
            **_upstream(upstream),
            "servers": [{"url": _connectable(server.url), "weight": server.weight} for server in upstream.all_servers],
        }
        for name, upstream in settings.all_upstreams.items()
    }
    others = settings.any_upstream
    config["any_upstream"] = None if others is None else {**_upstream(others), "servers": []}
    routes = settings.all_routes
    config["chain"], *chains = settings.chain_numbers
    of_routes, of_tcp = chains[: len(settings.routes)], chains[len(settings.routes) :]
    config["routes"] = [
        {**route.model_dump(mode="json", exclude={"filters"}), "chain": chain}
        for route, chain in zip(routes, of_routes or [config["chain"]] * len(routes), strict=True)
    ]
    config["tcp"] = [
        {**listener.model_dump(mode="json", exclude={"filters", "listen"}), "filtered": chain is not None}
        for listener, chain in zip(settings.tcp, of_tcp, strict=True)
    ]
    return json.dumps(config)


def _upstream(upstream: Upstream) -> dict[str, Any]:
    return {**upstream.model_dump(mode="json"), "linger": LINGER}


def _connectable(url: str) -> str:
    """A URL whose scheme says how to connect."""
    scheme, _, rest = url.partition("://")
    return f"{TCP.get(scheme, scheme)}://{rest}"
