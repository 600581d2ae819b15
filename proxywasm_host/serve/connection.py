"""One HTTP/1.1 connection to upstream, as an asyncio protocol.

Rules of this module:

* One exchange at a time: `begin`, `head`, `chunks`; then `reusable` says whether there may be another.
* Flow control both ways: reading stops while `HIGH_WATER` bytes wait to be taken, `drain` waits for the socket.
* Whatever goes wrong becomes the one `UpstreamError` of the exchange, raised by whoever waits for the response.
* Interim responses (1xx) and trailers are dropped. Bytes that nobody asked for close the connection.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from typing import Any

from proxywasm_host.abi.pairs import HeaderList
from proxywasm_host.runtime.header_limits import HeaderLimits
from proxywasm_host.serve import wire
from proxywasm_host.serve.wire import Malformed

__all__ = ["Connection", "UpstreamError"]

HIGH_WATER = 128 * 1024
BEFORE_HEADERS = "upstream connect error or disconnect/reset before headers. reset reason: "


class UpstreamError(Exception):
    """Upstream did not answer as it should. The client gets `status` and the text, the log gets `details`."""

    def __init__(self, status: int, text: str, details: str) -> None:
        super().__init__(text)
        self.status = status
        self.details = details

    @classmethod
    def reset(cls, reason: str, *, status: int = 503) -> UpstreamError:
        """As Envoy's router words it."""
        details = f"upstream_reset_before_response_started{{{reason.replace(' ', '_')}}}"
        return cls(status, BEFORE_HEADERS + reason, details)


class Connection(asyncio.Protocol):
    """Made by an event loop's ``create_connection``."""

    def __init__(self, limits: HeaderLimits) -> None:
        self.closed = False
        self.lost = False
        """Whether the server closed it, and not we."""
        self.used = False
        """Whether it has had an exchange before."""
        self.idle_since = 0.0
        self._loop = asyncio.get_running_loop()
        self._transport: Any = None
        self._limits = limits
        self._head: asyncio.Future[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._timeout = 0.0
        self._chunks: deque[bytes] = deque()
        self._waiting = 0
        """Bytes in `_chunks`."""
        self._more: asyncio.Future[None] | None = None
        """Who takes the body waits for this."""
        self._writable: asyncio.Future[None] | None = None
        self._writing_paused = self._reading_paused = False
        self._error: UpstreamError | None = None
        self._reset()

    def _reset(self) -> None:
        self._error = None
        self.status = 0
        self.headers: HeaderList = []
        self.complete = True
        """Whether no exchange is under way, or its response has come in as a whole."""
        self.keep_alive = False
        self.silent = True
        """Whether nothing of the response has come in."""
        self._head_only = False
        self._buffer = b""
        """What has come in of the head."""
        self._body: wire.Body | None = None
        """Framing of the body, when the head has come in."""

    # -- One exchange --------------------------------------------------------------------------------------------

    def begin(self, method: bytes) -> None:
        """A request of this method is going to be written."""
        self._reset()
        if self._reading_paused:
            self._reading_paused = False
            self._transport.resume_reading()
        self.complete = False
        self._head_only = method == b"HEAD"
        self._head = self._more = None

    def write(self, data: bytes) -> None:
        if not self.closed:
            self._transport.write(data)

    async def drain(self) -> None:
        """Wait until more can be written. Returns too if the connection was closed: the response says why."""
        if self._writing_paused and not self.closed:
            self._writable = self._loop.create_future()
            await self._writable

    async def head(self, timeout: float) -> None:
        """Wait for `status` and `headers`.

        Raises: UpstreamError; 504 if they have not come `timeout` seconds after the last part of the request.
        """
        if self._body is None and self._error is None:
            self._head = self._loop.create_future()
            self._timeout = timeout
            self.progress()
            try:
                await self._head
            finally:
                if self._timer is not None:
                    self._timer.cancel()
        if self._error is not None:
            raise self._error

    def progress(self) -> None:
        """A part of the request was written: the time for the response begins anew."""
        if self._head is not None and not self._head.done():
            if self._timer is not None:
                self._timer.cancel()
            late = UpstreamError(504, "upstream request timeout", "response_timeout")
            self._timer = self._loop.call_later(self._timeout, self.fail, late)

    async def chunks(self, idle: float) -> AsyncIterator[tuple[bytes, bool]]:
        """The body as it comes in: a part, and whether there is more. Raises: UpstreamError, if it breaks off."""
        while True:
            if self._chunks:
                data = self._chunks[0] if len(self._chunks) == 1 else b"".join(self._chunks)
                self._chunks.clear()
                self._waiting = 0
                yield data, not self.complete
                if self._reading_paused and not self.closed:
                    self._reading_paused = False
                    self._transport.resume_reading()
            elif self._error is not None:
                raise self._error
            elif self.complete:
                return
            else:
                self._more = self._loop.create_future()
                timer = self._loop.call_later(idle, self.fail, UpstreamError.reset("stream idle timeout"))
                try:
                    await self._more
                finally:
                    timer.cancel()

    @property
    def reusable(self) -> bool:
        return self.complete and self.keep_alive and not self.closed and not self._writing_paused

    def close(self) -> None:
        """Break off whatever is under way."""
        self.closed = True
        if self._transport is not None:
            self._transport.abort()

    # -- From the event loop -------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        if self.complete:
            self.close()
            return
        self.silent = False
        try:
            if self._body is None:
                self._read_head(data)
            else:
                self._read_body(self._body, data)
        except Malformed:
            self.fail(UpstreamError.reset("protocol error", status=502))

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost = not self.closed
        self.closed = True
        if self._writable is not None and not self._writable.done():
            self._writable.set_result(None)
        if self.complete:
            return
        if self._body is wire.EVERYTHING and exc is None:
            self._ended()
        else:
            self.fail(UpstreamError.reset("connection termination"))

    def pause_writing(self) -> None:
        self._writing_paused = True

    def resume_writing(self) -> None:
        self._writing_paused = False
        if self._writable is not None and not self._writable.done():
            self._writable.set_result(None)

    # -- The response --------------------------------------------------------------------------------------------

    def _read_head(self, data: bytes) -> None:
        seen = len(self._buffer)
        data = self._buffer + data
        while (end := data.find(b"\r\n\r\n") + 4) > 3:
            if end > self._limits.size:
                break
            response = wire.read_response(data[:end], self._limits, bodiless=self._head_only)
            data = data[end:]
            if response.status >= 200:
                self._begun(response, data)
                return
            if response.status == 101:
                raise Malformed(502, "nobody asked for another protocol")
        if len(data) > self._limits.size:
            raise wire.too_large(self._limits)
        if not data.startswith(b"HTTP/1."[: len(data)]) or wire.LONE_LF.search(data, seen):
            raise Malformed(502, "this is no head")
        self._buffer = data

    def _begun(self, response: wire.Response, data: bytes) -> None:
        if response.status > 599:
            raise Malformed(502, "there is no such status")
        self.status, self.headers = response.status, response.headers
        self.keep_alive = response.keep_alive
        self._buffer = b""
        self._body = response.body
        self._read_body(response.body, data)
        self._wake(self._head)

    def _read_body(self, body: wire.Body, data: bytes) -> None:
        part, rest = body.feed(data)
        if part:
            self._chunks.append(part)
            self._waiting += len(part)
            if self._waiting > HIGH_WATER and not self._reading_paused and not self.closed:
                self._reading_paused = True
                self._transport.pause_reading()
            self._wake(self._more)
        if rest is not None:
            self.keep_alive = self.keep_alive and not rest
            self._ended()

    def _ended(self) -> None:
        self.complete = True
        self._wake(self._more)

    def fail(self, error: UpstreamError) -> None:
        """Break the exchange off; whoever waits for the response gets the error."""
        if self._error is None:
            self._error = error
        self.close()
        self._wake(self._head)
        self._wake(self._more)

    @staticmethod
    def _wake(waiter: asyncio.Future[None] | None) -> None:
        if waiter is not None and not waiter.done():
            waiter.set_result(None)
