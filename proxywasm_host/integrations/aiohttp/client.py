"""Filters on the calls that a program makes with aiohttp's client (3.12 and newer).

    async with aiohttp.ClientSession(middlewares=[ProxyWasmClientMiddleware(["auth.wasm"])]) as session:
        ...

aiohttp makes the objects of requests and responses, and filters change them, so this module uses their private parts.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Mapping
from http import HTTPStatus
from typing import Any

from proxywasm_host import remedy

try:
    import aiohttp
    from aiohttp import hdrs, payload
    from aiohttp.abc import AbstractStreamWriter
    from aiohttp.base_protocol import BaseProtocol
    from aiohttp.helpers import TimerNoop
    from multidict import CIMultiDict, CIMultiDictProxy
    from yarl import URL
except ModuleNotFoundError as error:
    raise remedy.missing("aiohttp", error) from None

from proxywasm_host.driver.clusters import Cluster, Clusters
from proxywasm_host.driver.filters import AnyFilter, Filter
from proxywasm_host.integrations.async_calls import AsyncCall
from proxywasm_host.integrations.event_loops import EventLoopCarrier
from proxywasm_host.integrations.exchange import RequestHead, ResponseHead, StreamReset
from proxywasm_host.integrations.outgoing import OUTGOING, AsyncAnswer, Outgoing
from proxywasm_host.integrations.wsgi.environ import text_of

__all__ = ["Cluster", "Clusters", "Filter", "ProxyWasmClientMiddleware"]

LIMIT = 65536
"""Bytes of a response that wait for the program, as aiohttp's ``read_bufsize``."""


class ProxyWasmClientMiddleware(EventLoopCarrier):
    """A middleware of ``aiohttp.ClientSession`` that passes requests and responses through filters.

    Args: the filters, then those of `Carrier`. `properties` may be a function of the request; `clients` are those of
        `AsyncDriver`. Each event loop has its own host.

    Filters load with the first request. Raises: the errors of aiohttp. If filters break off a response,
    aiohttp.ServerDisconnectedError, or within a body aiohttp.ClientPayloadError.
    """

    logger = logging.getLogger("proxywasm_host.aiohttp")
    behind = (lambda app: app is None, "told by aiohttp")

    def __init__(self, filters: Iterable[AnyFilter], **options: Any) -> None:
        super().__init__(None, filters, **options)

    async def __call__(self, request: aiohttp.ClientRequest, handler: Any) -> aiohttp.ClientResponse:
        """aiohttp calls this for each request."""
        worker = await self._worker()
        known = {**OUTGOING, **self._properties_of(request)}
        stream = self._stream(worker, known, lambda asked: outgoing(asked).addressed(), request)
        given = request.body
        answers: list[aiohttp.ClientResponse] = []

        async def ask(head: RequestHead, body: AsyncIterable[bytes] | None) -> AsyncAnswer:
            put(request, head, body)
            response = await handler(request)
            answers.append(response)
            if response.status == HTTPStatus.SWITCHING_PROTOCOLS:
                raise Upgraded
            return AsyncAnswer(response.status, shown(response), response.content.iter_any(), closing(response))

        call = AsyncCall(worker.driver, stream, ask, fix_content_length=self._fix_content_length)
        try:
            head = await call.start(outgoing(request), parts_of(given) if given else None)
        except Upgraded:  # a WebSocket has passed as a request
            return answers[0]
        except StreamReset as error:
            raise aiohttp.ServerDisconnectedError(str(error)) from None
        finally:
            if isinstance(given, payload.Payload):
                await given.close()
        response = answers[0] if answers else made(request, head)
        change(response, head)
        response.content = Content(call)
        return response

    async def aclose(self) -> None:
        """End the filters of this event loop."""
        await self._stop()


class Upgraded(Exception):
    """The connection has switched to another protocol."""


# -- The request -------------------------------------------------------------------------------------------------------


def outgoing(request: aiohttp.ClientRequest) -> Outgoing:
    """A request of aiohttp, as `Outgoing`."""
    headers = [(name.encode("latin-1"), value.encode("utf-8")) for name, value in request.headers.items()]
    target = request.url.raw_path_qs.encode("ascii")
    return Outgoing(request.method.encode("ascii"), target, request.url.scheme.encode("ascii"), headers)


def put(request: aiohttp.ClientRequest, head: RequestHead, body: AsyncIterable[bytes] | None) -> None:
    """Give the request the head that came out of the filters. It still goes to the program's server."""
    headers = CIMultiDict(text_of(head.headers))
    wanted = [hdrs.EXPECT]
    if request.headers.get(hdrs.UPGRADE, "").lower() == "websocket":
        wanted += [hdrs.CONNECTION, hdrs.UPGRADE]
    for name in wanted:  # connection-specific, so filters do not see them
        if name in request.headers:
            headers[name] = request.headers[name]
    if body is not None and hdrs.CONTENT_LENGTH not in headers:
        headers["transfer-encoding"] = "chunked"
    request.method = head.method.decode("ascii")
    request.url = URL(f"{request.url.origin()}{head.path.decode('latin-1')}", encoded=True)
    request.headers = headers
    request.chunked = True if hdrs.TRANSFER_ENCODING in headers else None
    # `update_body` would close the program's body, from which this one is made, and process the headers again.
    request._body = None if body is None else payload.AsyncIterablePayload(body)


async def parts_of(body: payload.Payload) -> AsyncIterator[bytes]:
    """Yield the parts that a program's body writes."""
    parts: asyncio.Queue[bytes | BaseException | None] = asyncio.Queue(1)

    async def write() -> None:
        try:
            await body.write(Writer(parts))
        except Exception as error:  # noqa: BLE001 - the program gets it
            await parts.put(error)
        else:
            await parts.put(None)

    writing = asyncio.create_task(write())
    try:
        while (part := await parts.get()) is not None:
            if isinstance(part, BaseException):
                raise part
            yield part
    finally:
        writing.cancel()


class Writer(AbstractStreamWriter):
    """The writer that aiohttp's bodies write to."""

    def __init__(self, parts: asyncio.Queue[Any]) -> None:
        self._parts = parts

    async def write(self, chunk: Any) -> None:
        if chunk:
            await self._parts.put(bytes(chunk))

    async def write_eof(self, chunk: bytes = b"") -> None:
        await self.write(chunk)

    async def drain(self) -> None:
        """Do nothing: `write` has waited."""

    def enable_compression(self, encoding: str = "deflate", strategy: int | None = None) -> None:
        """Do nothing: the request's own writer does it."""

    def enable_chunking(self) -> None:
        """Do nothing: the request's own writer does it."""

    async def write_headers(self, status_line: str, headers: CIMultiDict[str]) -> None:
        """Do nothing: the parts of a form write their headers as body."""


# -- The response ------------------------------------------------------------------------------------------------------


def shown(response: aiohttp.ClientResponse) -> list[tuple[bytes, bytes]]:
    """The headers of a response without those that are wrong for its body after aiohttp has decoded it."""
    encoded = hdrs.CONTENT_ENCODING in response.headers and getattr(response._session, "auto_decompress", False)
    gone = (b"content-encoding", b"content-length") if encoded else ()
    return [(name, value) for name, value in response.raw_headers if name.lower() not in gone]


def closing(response: aiohttp.ClientResponse) -> Any:
    """A function that closes the connection if the response was not read to its end."""

    async def close() -> None:
        if response.connection is not None:
            response.connection.close()

    return close


def made(request: aiohttp.ClientRequest, head: ResponseHead) -> aiohttp.ClientResponse:
    """A response without a connection."""
    loop = asyncio.get_running_loop()
    known: Mapping[str, Any] = {
        "writer": None,
        "continue100": None,
        "timer": TimerNoop(),
        "request_info": request.request_info,
        "traces": [],
        "loop": loop,
        "session": request.session,
        "stream_writer": aiohttp.http.StreamWriter(BaseProtocol(loop), loop),
    }
    taken = inspect.signature(aiohttp.ClientResponse).parameters
    response = aiohttp.ClientResponse(
        request.method, request.url, **{name: value for name, value in known.items() if name in taken}
    )
    response.version = aiohttp.HttpVersion11
    response.status = 0  # it has none yet
    return response


def change(response: aiohttp.ClientResponse, head: ResponseHead) -> None:
    """Give a response the head that came out of the filters."""
    if response.status != head.status:
        known = head.status in HTTPStatus._value2member_map_
        response.status, response.reason = head.status, HTTPStatus(head.status).phrase if known else ""
    headers = CIMultiDict(text_of(head.headers))
    response._cache.clear()  # of values from the old ones
    response._headers, response._raw_headers = CIMultiDictProxy(headers), tuple(head.headers)
    response._cookies, response._raw_cookie_headers = None, tuple(headers.getall(hdrs.SET_COOKIE, ())) or None


class Content(aiohttp.StreamReader):
    """The body of a response, as it comes out of the filters."""

    def __init__(self, call: AsyncCall) -> None:
        loop = asyncio.get_running_loop()
        self._gate = Gate(loop)
        super().__init__(self._gate, LIMIT, loop=loop)
        self._call = call
        self._feeding = loop.create_task(self._feed())

    async def _feed(self) -> None:
        try:
            async for part in self._call.parts():
                self.feed_data(part)
                await self._gate.open.wait()
        except StreamReset as error:
            super().set_exception(aiohttp.ClientPayloadError(str(error)))
        except Exception as error:  # noqa: BLE001 - the program gets it
            super().set_exception(error)
        else:
            self.feed_eof()
        finally:
            await self._call.aclose()

    def set_exception(self, exc: Any, *cause: Any) -> None:
        """Break off the call; aiohttp calls this when the program needs no more."""
        super().set_exception(exc, *cause)
        self._feeding.cancel()
        self._ending = self._loop.create_task(self._call.aclose())  # `_feed` may not have begun


class Gate(BaseProtocol):
    """Stands in for a connection whose reading `Content` can pause."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(loop)
        self.open = asyncio.Event()
        self.open.set()

    @property
    def connected(self) -> bool:
        """Always true: filters may release more."""
        return True

    def pause_reading(self) -> None:
        self._reading_paused = True
        self.open.clear()

    def resume_reading(self, *_: Any, **__: Any) -> None:
        self._reading_paused = False
        self.open.set()
