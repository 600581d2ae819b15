"""Kong's gateway in front of a WSGI application, which answers for all services."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from proxywasm_host.abi.values import PropertyValue
from proxywasm_host.driver.threaded import ThreadDriver
from proxywasm_host.integrations.wsgi import ProxyWasmMiddleware
from proxywasm_host.kong.gateways import Gateways
from proxywasm_host.kong.stream import ROUTING_HEADER
from proxywasm_host.runtime.http import HttpStream
from proxywasm_host.runtime.plugin import Plugin

__all__ = ["KongMiddleware"]

ENVIRON_KEY = "HTTP_" + ROUTING_HEADER.decode().upper().replace("-", "_")


class KongMiddleware(ProxyWasmMiddleware):
    """Like `proxywasm_host.kong.asgi.KongMiddleware`, with the options of the middleware for WSGI.

    One gateway serves all threads of a process: plugins in Lua run one at a time, as filters do. Raises: ConfigError.
    """

    def __init__(
        self, app: Any, config: str | Path, *, environment: Mapping[str, str] | None = None, **options: Any
    ) -> None:
        self._kong = Gateways(config, environment)
        super().__init__(_without_routing(app), self._kong.filters, **self._kong.options(options))
        self._kong.start()

    def _stream_of(
        self, driver: ThreadDriver, plugins: list[Plugin], properties: Mapping[str, PropertyValue]
    ) -> HttpStream:
        return self._kong.stream(driver, plugins, properties, self._buffer_limit, self._header_limits)

    def close(self) -> None:
        """End the plugins, and the plugin servers."""
        super().close()
        self._kong.stop()


def _without_routing(app: Callable[..., Iterable[bytes]]) -> Callable[..., Iterable[bytes]]:
    """Wrap an application, to remove the header that names the destination of a request."""

    def without_routing(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        return app({key: value for key, value in environ.items() if key != ENVIRON_KEY}, start_response)

    return without_routing
