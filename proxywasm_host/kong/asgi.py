"""Kong's gateway in front of an ASGI application, which answers for all services."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from proxywasm_host.abi.values import PropertyValue
from proxywasm_host.driver.worker import Worker
from proxywasm_host.integrations.asgi import ProxyWasmMiddleware
from proxywasm_host.integrations.asgi.scope import Receive, Scope, Send
from proxywasm_host.kong.gateways import Gateways
from proxywasm_host.kong.stream import ROUTING_HEADER
from proxywasm_host.runtime.http import HttpStream

__all__ = ["KongMiddleware"]


class KongMiddleware(ProxyWasmMiddleware):
    """Routes, plugins and filters of a declarative configuration in front of an application.

    Args:
        app: the application. It gets the requests of all services, with the path that the service would get.
        config: the file, ``kong.yaml``.
        environment: Kong's variables (``KONG_…``); those of the process if not given.
        options: of `ProxyWasmMiddleware`, all but ``filters`` and ``profile``.

    Plugin servers are started here, and end with `close`. Raises: ConfigError.
    """

    def __init__(
        self, app: Any, config: str | Path, *, environment: Mapping[str, str] | None = None, **options: Any
    ) -> None:
        self._kong = Gateways(config, environment)
        super().__init__(_without_routing(app), self._kong.filters, **self._kong.options(options))
        self._kong.start()

    def _stream(
        self,
        worker: Worker,
        properties: Mapping[str, PropertyValue],
        addressed: Callable[[Any], tuple[bytes, bytes]],
        request: Any,
    ) -> HttpStream:
        limits = self._buffer_limit, self._header_limits
        return self._kong.stream(worker.driver, worker.plugins, properties, *limits)

    def close(self) -> None:
        """End the plugin servers."""
        self._kong.stop()


def _without_routing(app: Any) -> Any:
    """Wrap an application, to remove the header that names the destination of a request."""

    async def without_routing(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            scope = {**scope, "headers": [pair for pair in scope["headers"] if pair[0] != ROUTING_HEADER]}
        await app(scope, receive, send)

    return without_routing
