"""The configuration of the data plane, as JSON that `dataplane/src/config.rs` reads."""

from __future__ import annotations

import json

from proxywasm_host.serve.config import Settings

__all__ = ["dataplane_config"]

SAME = {"clients", "forwarded", "access_log", "tls", "stream_idle_timeout"}
"""Settings that have the same form there."""


def dataplane_config(settings: Settings) -> str:
    """Upstreams, routes and general settings: short forms written out, chains as numbers."""
    config = settings.model_dump(mode="json", include=SAME)
    config["upstreams"] = {
        name: {
            **upstream.model_dump(mode="json"),
            "servers": [server.model_dump(mode="json") for server in upstream.all_servers],
        }
        for name, upstream in settings.all_upstreams.items()
    }
    others = settings.any_upstream
    config["any_upstream"] = None if others is None else {**others.model_dump(mode="json"), "servers": []}
    config["chain"], *chains = settings.chain_numbers
    config["routes"] = [
        {**route.model_dump(mode="json", exclude={"filters"}), "chain": chain}
        for route, chain in zip(settings.all_routes, chains or [config["chain"]], strict=True)
    ]
    return json.dumps(config)
