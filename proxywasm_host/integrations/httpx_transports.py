"""Filters on the calls that a program makes with httpx2 or httpx, whose transports have the same interface.

The modules `httpx2` and `httpx` derive their classes from these, with ``library=``.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Iterator, Mapping
from typing import Any, ClassVar

from proxywasm_host.abi.values import PropertyValue
from proxywasm_host.integrations.async_calls import AsyncCall
from proxywasm_host.integrations.calls import Call
from proxywasm_host.integrations.carrier import Carrier
from proxywasm_host.integrations.event_loops import EventLoopCarrier
from proxywasm_host.integrations.exchange import RequestHead, ResponseHead, StreamReset
from proxywasm_host.integrations.outgoing import OUTGOING, Answer, AsyncAnswer, Outgoing, framed
from proxywasm_host.integrations.threads import ThreadCarrier

__all__ = ["AsyncTransport", "Transport"]

logger = logging.getLogger("proxywasm_host.httpx")


class Transports(Carrier):
    """Base of both kinds. `library` is httpx2 or httpx."""

    logger = logger
    library: ClassVar[Any]
    sends: ClassVar[str]
    """Name of the library's transport that opens connections; its base class has ``Base`` instead of ``HTTP``."""

    def __init_subclass__(cls, *, library: Any = None) -> None:
        """Set the library of a public class."""
        super().__init_subclass__()
        if library is not None:
            base = getattr(library, cls.sends.replace("HTTP", "Base"))
            example = f"{cls.__name__}({library.__name__}.{cls.sends}(), ['auth.wasm'])"
            cls.library = library
            cls.behind = (lambda app: isinstance(app, base), f"the transport that sends: {example}")

    def _known(self, request: Any) -> Mapping[str, PropertyValue]:
        return {**OUTGOING, **self._properties_of(request)}

    def _request(self, request: Any, head: RequestHead, stream: Any) -> Any:
        """The request for the transport. It goes where the program sends it, even if filters change its host."""
        url = request.url.copy_with(raw_path=head.path)
        method = head.method.decode("ascii")
        made = self.library.Request(
            method, url, headers=framed(head), stream=stream, extensions={**request.extensions, "target": head.path}
        )
        made.method = method  # the library converts it to upper case
        return made

    def _response(self, head: ResponseHead, stream: Any, asked: list[Any]) -> Any:
        extensions = asked[0].extensions if asked else {"http_version": b"HTTP/1.1"}
        if asked and asked[0].status_code != head.status:
            extensions = {name: value for name, value in extensions.items() if name != "reason_phrase"}
        return self.library.Response(head.status, headers=head.headers, stream=stream, extensions=extensions)

    def _broken(self, error: StreamReset, request: Any) -> Exception:
        broken: Exception = self.library.RemoteProtocolError(str(error), request=request)
        return broken


def outgoing(request: Any) -> Outgoing:
    """A request of the library, as `Outgoing`."""
    target = request.extensions.get("target", request.url.raw_path)
    return Outgoing(request.method.encode("ascii"), target, request.url.raw_scheme, request.headers.raw)


class Transport(Transports, ThreadCarrier):
    """Base of the transports for threads."""

    sends = "HTTPTransport"

    def handle_request(self, request: Any) -> Any:
        """Send a request through the filters."""
        driver, stream = self._stream(self._known(request), lambda: outgoing(request).addressed())
        asked: list[Any] = []

        def ask(head: RequestHead, body: Iterator[bytes] | None) -> Answer:
            response = self.app.handle_request(self._request(request, head, self._parts(body or iter(()))))
            asked.append(response)
            return Answer(response.status_code, response.headers.raw, response.stream, response.close)

        call = Call(driver, stream, ask, fix_content_length=self._fix_content_length)
        try:
            head, parts = call.run(outgoing(request), request.stream)
        except StreamReset as error:
            raise self._broken(error, request) from None
        return self._response(head, self._parts(self._heard(parts, request), parts.close), asked)

    def _heard(self, parts: Iterable[bytes], request: Any) -> Iterator[bytes]:
        try:
            yield from parts
        except StreamReset as error:
            raise self._broken(error, request) from None

    def _parts(self, parts: Iterable[bytes], close: Any = lambda: None) -> Any:
        """A stream of the library's type, of these parts."""
        kind = type("Parts", (Parts, self.library.SyncByteStream), {})
        return kind(parts, close)

    def close(self) -> None:
        """End the filters and close the transport."""
        super().close()
        self.app.close()


class AsyncTransport(Transports, EventLoopCarrier):
    """Base of the transports for event loops."""

    sends = "AsyncHTTPTransport"

    async def handle_async_request(self, request: Any) -> Any:
        """Send a request through the filters."""
        worker = await self._worker()
        stream = self._stream(worker, self._known(request), lambda asked: outgoing(asked).addressed(), request)
        asked: list[Any] = []

        async def ask(head: RequestHead, body: AsyncIterator[bytes] | None) -> AsyncAnswer:
            made = self._request(request, head, self._parts(body or nothing(), done))
            response = await self.app.handle_async_request(made)
            asked.append(response)
            return AsyncAnswer(response.status_code, response.headers.raw, response.stream, response.aclose)

        call = AsyncCall(worker.driver, stream, ask, fix_content_length=self._fix_content_length)
        try:
            head = await call.start(outgoing(request), request.stream)
        except StreamReset as error:
            raise self._broken(error, request) from None
        return self._response(head, self._parts(self._heard(call.parts(), request), call.aclose), asked)

    async def _heard(self, parts: AsyncIterable[bytes], request: Any) -> AsyncIterator[bytes]:
        try:
            async for part in parts:
                yield part
        except StreamReset as error:
            raise self._broken(error, request) from None

    def _parts(self, parts: AsyncIterable[bytes], aclose: Any) -> Any:
        """A stream of the library's type, of these parts."""
        kind = type("AsyncParts", (AsyncParts, self.library.AsyncByteStream), {})
        return kind(parts, aclose)

    async def aclose(self) -> None:
        """End the filters of this event loop and close the transport."""
        await self._stop()
        await self.app.aclose()


async def nothing() -> AsyncIterator[bytes]:
    """No parts."""
    return
    yield b""


async def done() -> None:
    """Nothing to close."""


class Parts:
    """A body as a stream, which can be read once."""

    def __init__(self, parts: Iterable[bytes], close: Any) -> None:
        self._parts = parts
        self.close = close

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._parts)


class AsyncParts:
    """A body as a stream, which can be read once."""

    def __init__(self, parts: AsyncIterable[bytes], aclose: Any) -> None:
        self._parts = parts
        self.aclose = aclose

    def __aiter__(self) -> AsyncIterator[bytes]:
        return aiter(self._parts)
