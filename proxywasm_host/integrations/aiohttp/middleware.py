"""The middleware for aiohttp's server."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping
from typing import Any

from aiohttp import web

from proxywasm_host.abi.values import PropertyValue
from proxywasm_host.driver.filters import AnyFilter
from proxywasm_host.integrations.aiohttp.heads import received
from proxywasm_host.integrations.aiohttp.pump import Handler, Pump, logger
from proxywasm_host.integrations.event_loops import EventLoopCarrier
from proxywasm_host.integrations.headers import address, addressed

__all__ = ["ProxyWasmMiddleware"]


class ProxyWasmMiddleware(EventLoopCarrier):
    """A middleware of an ``aiohttp.web.Application`` that passes requests and responses through filters.

    Args: the filters, then those of `Carrier`. `properties` may be a function of the request; `clients` are those of
        `AsyncDriver`. Each event loop has its own host.

    Filters load with the first request, or with the application if ``app.cleanup_ctx`` has `context`.
    """

    logger = logger
    behind = (lambda app: app is None, "told by aiohttp")
    __middleware_version__ = 1

    def __init__(self, filters: Iterable[AnyFilter], **options: Any) -> None:
        super().__init__(None, filters, **options)

    async def __call__(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """aiohttp calls this for each request."""
        worker = await self._worker()
        known = {**properties(request), **self._properties_of(request)}
        stream = self._stream(worker, known, lambda asked: addressed(*received(asked)), request)
        pump = Pump(worker, stream, request, handler, fix_content_length=self._fix_content_length)
        await pump.run()
        return pump.response

    async def context(self, app: web.Application) -> AsyncIterator[None]:
        """For ``app.cleanup_ctx``: filters start and end with the application. Raises: as `Host.load_plugin`."""
        await self._worker()
        yield
        await self._stop()


def properties(request: web.Request) -> Mapping[str, PropertyValue]:
    """Properties of a request's connection, under Envoy's names."""
    known: dict[str, PropertyValue] = {"request.protocol": "HTTP/{}.{}".format(*request.version)}
    for group, name in (("source", "peername"), ("destination", "sockname")):
        peer = request.get_extra_info(name)
        if isinstance(peer, tuple):
            known |= {f"{group}.address": address(peer), f"{group}.port": peer[1]}
    return known
