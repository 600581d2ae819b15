"""Converts heads of messages: aiohttp's requests for filters, and responses out of the filters for aiohttp."""

from __future__ import annotations

from aiohttp import hdrs, web
from aiohttp.abc import AbstractStreamWriter
from multidict import CIMultiDict

from proxywasm_host.abi.pairs import HeaderList
from proxywasm_host.integrations.exchange import ResponseHead
from proxywasm_host.integrations.headers import address

__all__ = ["Response", "decoded", "received"]


def decoded(text: bytes) -> str:
    """A header's name or value as text, as aiohttp decodes it."""
    return text.decode("utf-8", "surrogateescape")


class Response(web.StreamResponse):
    """A response out of the filters, to which aiohttp adds nothing."""

    def __init__(self, head: ResponseHead) -> None:
        headers = CIMultiDict([(decoded(name), decoded(value)) for name, value in head.headers])
        super().__init__(status=head.status, headers=headers)

    async def _start(self, request: web.BaseRequest) -> AbstractStreamWriter:
        """Start without the application's signals, which the handler's response has sent."""
        self._req = request
        writer = self._payload_writer = request._payload_writer
        added = [name for name in (hdrs.CONTENT_TYPE, hdrs.DATE, hdrs.SERVER) if name not in self.headers]
        await self._prepare_headers()
        for name in added:
            self.headers.popall(name, None)
        await self._write_headers()
        return writer


def received(request: web.Request) -> tuple[HeaderList, bytes, bytes, bytes, bytes]:
    """Headers, method, target and scheme of a request, and the address of the server."""
    headers = [(name.lower(), value) for name, value in request.raw_headers]
    method, target, scheme = (
        text.encode("utf-8", "surrogateescape") for text in (request.method, request.raw_path, request.scheme)
    )
    return headers, method, target, scheme, address(request.get_extra_info("sockname")).encode()
