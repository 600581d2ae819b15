"""Kong's gateway in front of an ASGI application, which answers for all services."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

from proxywasm_host.abi.profile import WASMX
from proxywasm_host.abi.values import PropertyValue
from proxywasm_host.driver.clusters import Clusters
from proxywasm_host.driver.worker import Worker
from proxywasm_host.integrations.asgi import ProxyWasmMiddleware
from proxywasm_host.integrations.asgi.scope import Receive, Scope, Send
from proxywasm_host.kong import client  # noqa: F401 - it performs what plugins ask for
from proxywasm_host.kong.environment import Environment
from proxywasm_host.kong.gateway import Gateway
from proxywasm_host.kong.setup import Setup, query
from proxywasm_host.kong.stream import ROUTING_HEADER, KongStream
from proxywasm_host.runtime.http import HttpStream
from proxywasm_host.serve.config import ShmKv
from proxywasm_host.services import Services

__all__ = ["KongMiddleware"]


class KongMiddleware(ProxyWasmMiddleware):
    """Routes, plugins and filters of a declarative configuration in front of an application.

    Args:
        app: the application. It gets the requests of all services, with the path that the service would get.
        config: the file, ``kong.yaml``.
        environment: variables as Kong has them (``KONG_…``); those of the process if not given.
        options: of `ProxyWasmMiddleware`, all but ``filters`` and ``profile``.

    Plugin servers are started here, and end with `close`. Raises: ConfigError.
    """

    def __init__(
        self, app: Any, config: str | Path, *, environment: Mapping[str, str] | None = None, **options: Any
    ) -> None:
        settings = Environment.read(os.environ if environment is None else environment)
        self._servers = query(settings)
        self._setup = Setup(Path(config), settings, self._servers)
        self._gateways: WeakKeyDictionary[Worker, tuple[Any, Gateway]] = WeakKeyDictionary()
        options.setdefault("clusters", Clusters({}, any_host=True))
        if settings.shm_kv:
            services = options.get("services") or Services()
            options["services"] = replace(services, shared_data=ShmKv.zones(settings.shm_kv))
        super().__init__(_without_routing(app), self._setup.filters, profile=WASMX, **options)
        for server in self._servers:
            server.start()

    def _stream(
        self, worker: Worker, properties: Mapping[str, PropertyValue], addressed: Callable[[], tuple[bytes, bytes]]
    ) -> HttpStream:
        plugins, gateway = self._gateways.get(worker, (None, None))
        if gateway is None or plugins is not worker.plugins:
            gateway = self._setup.gateway(worker.host, worker.plugins)
            self._gateways[worker] = worker.plugins, gateway
            gateway.start()
            worker.driver.perform(worker.host.drain())
        return KongStream(
            gateway, properties=properties, buffer_limit=self._buffer_limit, header_limits=self._header_limits
        )

    def close(self) -> None:
        """End the plugin servers."""
        for server in self._servers:
            server.stop()


def _without_routing(app: Any) -> Any:
    """The application, which need not know where a request would have gone."""

    async def without_routing(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            scope = {**scope, "headers": [pair for pair in scope["headers"] if pair[0] != ROUTING_HEADER]}
        await app(scope, receive, send)

    return without_routing
