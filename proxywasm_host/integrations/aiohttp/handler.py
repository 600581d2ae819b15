"""The body that a handler of aiohttp reads, and the writer of its response."""

from __future__ import annotations

import zlib
from collections.abc import Awaitable
from typing import Any, Protocol

from aiohttp import StreamReader, web
from aiohttp.abc import AbstractStreamWriter
from multidict import CIMultiDict

from proxywasm_host.abi.pairs import HeaderList
from proxywasm_host.integrations.asynchronous import ResponseOver
from proxywasm_host.integrations.exchange import Exchange
from proxywasm_host.integrations.exchange_base import CLIENT_GONE
from proxywasm_host.runtime.effects import RequestBody

__all__ = ["Body", "Loop", "Writer"]


class Pump(Protocol):
    """The part of a pump that its handler needs."""

    client: web.Request
    exchange: Exchange

    def more(self, body: Body, /) -> Awaitable[None]:
        """Give the body its next part."""
        ...

    def sent(self) -> Awaitable[None]:
        """Send what has come out of the filters."""
        ...


class Body(StreamReader):
    """The body of a handler's request. It reads more once the handler has taken all that arrived."""

    def __init__(self, pump: Pump) -> None:
        client = pump.client
        super().__init__(client.protocol, 65536, loop=client._loop)
        self._pump = pump
        self.fed = False

    def take(self, part: object) -> None:
        """Take a part that has come out of the filters."""
        data, ends = (part.data, part.end_stream) if isinstance(part, RequestBody) else (b"", True)
        if data:
            self.feed_data(data)
        if ends:
            self.feed_eof()
        self.fed = bool(data) or ends

    async def _wait(self, func_name: str) -> None:
        self.fed = False
        await self._pump.more(self)
        if self._exception is not None:
            raise self._exception


class Writer(AbstractStreamWriter):
    """Takes the response of a handler."""

    def __init__(self, pump: Pump) -> None:
        self._pump = pump
        self._exchange = pump.exchange
        self._compress: Any = None
        self._upgraded: AbstractStreamWriter | None = None

    async def write_headers(self, status_line: str, headers: CIMultiDict[str]) -> None:
        """Feed the head. A WebSocket that opens bypasses the filters from here on."""
        status = int(status_line.split(" ", 2)[1])
        if status == 101:
            self._upgraded = self._pump.client._payload_writer
            await self._upgraded.write_headers(status_line, headers)
            return
        pairs: HeaderList = [
            (name.encode("utf-8"), value.encode("utf-8", "surrogateescape")) for name, value in headers.items()
        ]
        self._exchange.response(status, pairs)
        await self._pump.sent()

    def send_headers(self) -> None:
        """Send the head of a WebSocket; other heads have been fed."""
        if self._upgraded is not None:
            self._upgraded.send_headers()

    async def write(self, chunk: bytes | bytearray | memoryview) -> None:
        """Feed a part of the body. Raises: ResponseOver."""
        if self._upgraded is not None:
            await self._upgraded.write(chunk)
            return
        if self._exchange.over:
            raise ResponseOver(self._exchange.stream.details or CLIENT_GONE)
        data = bytes(chunk) if self._compress is None else self._compress.compress(chunk)
        self._exchange.response_body(data, False)
        await self._pump.sent()

    async def write_eof(self, chunk: bytes = b"") -> None:
        """Feed the end of the body."""
        if self._upgraded is not None:
            await self._upgraded.write_eof(chunk)
            return
        data = chunk if self._compress is None else self._compress.compress(chunk) + self._compress.flush()
        self._exchange.response_body(data, True)
        await self._pump.sent()

    async def drain(self) -> None:
        """Wait until all parts of a WebSocket are sent; `write` waits for other parts."""
        if self._upgraded is not None:
            await self._upgraded.drain()

    def enable_compression(self, encoding: str = "deflate", strategy: int | None = zlib.Z_DEFAULT_STRATEGY) -> None:
        """Compress before the filters, which see bytes as they go over the wire, as in Envoy."""
        bits = zlib.MAX_WBITS + 16 if encoding == "gzip" else zlib.MAX_WBITS
        self._compress = zlib.compressobj(wbits=bits, strategy=strategy or zlib.Z_DEFAULT_STRATEGY)

    def enable_chunking(self) -> None:
        """Do nothing: the framing is decided when the response has come out of the filters."""


class Loop:
    """An event loop without ``sendfile``, which would bypass the filters."""

    def __init__(self, loop: object) -> None:
        self._loop = loop

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loop, name)

    async def sendfile(self, *_: object) -> None:
        """Raise NotImplementedError, so that aiohttp reads the file and writes it."""
        raise NotImplementedError
