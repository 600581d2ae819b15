"""HTTP/1.1 towards clients: an asyncio protocol that uvicorn's server runs in the place of its own.

Rules of this module:

* One request at a time; what a client sends ahead waits in a buffer of bounded size, then in the kernel's.
* A head that is refused (`wire`) is answered here, and the connection closed: no application sees it.
* Whoever is slow is cut off: a head has `Clients.header_timeout` seconds, an answer that nobody takes `idle` seconds.
* Framing is ours alone: what the application says of it is checked, and whatever cannot be sent becomes a 503.
* A connection that is closed before its request has come in whole is closed for writing first, for a reset by the
  kernel could take the answer away from the client.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from http import HTTPStatus
from typing import Any
from urllib.parse import unquote_to_bytes

from uvicorn.config import Config
from uvicorn.protocols.utils import get_local_addr, get_remote_addr, is_ssl
from uvicorn.server import ServerState

from proxywasm_host.abi.pairs import HeaderList
from proxywasm_host.integrations.asgi.scope import TARGET, Message, Scope
from proxywasm_host.runtime.header_limits import HeaderLimits
from proxywasm_host.serve import wire
from proxywasm_host.serve.config import Clients
from proxywasm_host.serve.wire import Malformed

__all__ = ["REFUSED", "ClientProtocol"]

HIGH_WATER = 64 * 1024
"""Bytes of a body, or of requests sent ahead, that wait here."""
LINGER = 1.0
"""Seconds for which what a refused client still sends is read, and dropped."""
STATUS = {status.value: b"HTTP/1.1 %d %b\r\n" % (status, status.phrase.encode()) for status in HTTPStatus}
BODILESS = (204, 304)
NEVER = float("inf")
REFUSED = "proxywasm.refused"
"""Key in the state of a request: the status that the client got when its body turned out to be none."""
GONE: Message = {"type": "http.disconnect"}
logger = logging.getLogger("proxywasm_host.serve")


class ClientProtocol(asyncio.Protocol):
    """One connection of a client. Made by uvicorn, with what uvicorn's own protocols are made with."""

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
        *,
        clients: Clients = Clients(),  # noqa: B008 - it is frozen
        idle: float = 300.0,
        refused: Callable[[Scope, int, int], None] | None = None,
    ) -> None:
        if not config.loaded:
            config.load()
        self._app = config.loaded_app
        self._app_state = app_state
        self._state = server_state
        self._clients = clients
        self._limits = HeaderLimits(clients.max_headers, clients.max_header_size)
        self._idle = idle
        self._refused = refused
        self._loop = _loop or asyncio.get_running_loop()
        self._transport: Any = None
        self._timer: asyncio.TimerHandle | None = None
        self._due = self._fires = NEVER
        """When the client is late, and when the timer looks; it is not set anew for each request."""
        self._buffer = bytearray()
        """A head that has not come in as a whole; while a request is under way, what was sent ahead of the next."""
        self._searched = 0
        """So many bytes of it have no end of a head."""
        self._head_begun = False
        """Whether the time for the head runs."""
        self._body: wire.Body | None = None
        """Framing of the request's body, until that has ended."""
        self._exchange: _Exchange | None = None
        self._closing = False
        """No other request is taken."""
        self._unsent = NEVER
        """Bytes that the client had not taken when it was last looked at, after the end."""
        self._reading_paused = False
        self._writable: asyncio.Future[None] | None = None
        """There is one while the client takes no more."""

    # -- From the event loop -------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        connections: set[Any] = self._state.connections
        self._transport = transport
        self._scope: Scope = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": "1.1",
            "server": get_local_addr(self._transport),
            "client": get_remote_addr(self._transport),
            "scheme": "https" if is_ssl(self._transport) else "http",
            "root_path": "",
        }
        full = len(connections) >= self._clients.max_connections
        connections.add(self)
        if full:
            self._refuse(Malformed(503, "there are too many connections"))
        else:
            self._await_head()

    def connection_lost(self, exc: Exception | None) -> None:
        connections: set[Any] = self._state.connections
        connections.discard(self)
        self._closing = True
        if self._timer is not None:
            self._timer.cancel()
        self.resume_writing()
        if self._exchange is not None:
            self._exchange.lost()

    def data_received(self, data: bytes) -> None:
        if self._body is not None and self._exchange is not None:
            self._feed(self._body, self._exchange, data)
        elif self._exchange is not None:
            self._ahead(data)
        elif self._closing:
            pass  # what a refused client still sends
        elif not self._buffer and data.find(b"\r\n\r\n", 4) == len(data) - 4 > 0 and data[:1] != b"\r":
            self._head(data, b"")  # as almost always: one head, as a whole
        else:
            self._buffer += data
            self._begin()

    def pause_writing(self) -> None:
        self._writable = self._loop.create_future()

    def resume_writing(self) -> None:
        writable, self._writable = self._writable, None
        if writable is not None and not writable.done():
            writable.set_result(None)

    def shutdown(self) -> None:
        """Take no other request; uvicorn's server ends."""
        self._closing = True
        if self._exchange is None:
            self._close()

    # -- Requests ------------------------------------------------------------------------------------------------

    def _begin(self) -> None:
        """Begin the request whose head is in the buffer, if all of it is."""
        buffer = self._buffer
        while buffer.startswith(b"\r\n"):  # RFC 9112, 2.2
            del buffer[:2]
        end = buffer.find(b"\r\n\r\n", self._searched) + 4
        try:
            if end < 4:
                if buffer:
                    seen, self._searched = self._searched, max(0, len(buffer) - 3)
                    wire.beginning(buffer, self._limits, seen)
                    self._await_head()
                return
        except Malformed as error:
            self._refuse(error)
            return
        head, rest = bytes(buffer[:end]), bytes(buffer[end:])
        buffer.clear()
        self._head(head, rest)

    def _head(self, head: bytes, rest: bytes) -> None:
        """Begin the request with this head; `rest` came behind it."""
        try:
            if len(head) > self._limits.size:
                raise wire.too_large(self._limits)
            request = wire.read_request(head, self._limits)
        except Malformed as error:
            self._refuse(error, head)
            return
        self._due = NEVER
        self._searched, self._head_begun = 0, False
        raw, _, query = request.target.partition(b"?")
        path = (unquote_to_bytes(raw) if b"%" in raw else raw).decode("utf-8", "replace")
        scope: Scope = {
            **self._scope,
            "http_version": request.version,
            "method": request.method.decode("ascii"),
            "path": path,
            "raw_path": raw,
            "query_string": query,
            TARGET: request.target,
            "headers": request.headers,
            "state": self._app_state.copy(),
        }
        exchange = self._exchange = _Exchange(self, scope, expects=request.expects)
        self._closing = self._closing or not request.keep_alive
        if request.body is not wire.NOTHING:
            self._feed(request.body, exchange, rest)
        else:
            exchange.whole = True
            if rest:
                self._ahead(rest)
        task = self._loop.create_task(exchange.run(self._app))
        self._state.tasks.add(task)
        task.add_done_callback(self._state.tasks.discard)

    def _await_head(self) -> None:
        if not self._head_begun:
            self._head_begun = True
            self._time(self._clients.header_timeout)

    def _feed(self, body: wire.Body, exchange: _Exchange, data: bytes) -> None:
        try:
            part, rest = body.feed(data)
        except Malformed as error:
            if exchange.begun:
                self._transport.abort()
            else:
                self._refuse(error)
            return
        self._body = body if rest is None else None
        exchange.feed(part, whole=rest is not None)
        if len(exchange.body) > HIGH_WATER:
            self._pause_reading()
        if rest:
            self._ahead(rest)

    def _ahead(self, data: bytes) -> None:
        if not self._closing:
            self._buffer += data
            if len(self._buffer) > HIGH_WATER:
                self._pause_reading()

    def done(self) -> None:
        """The response is written."""
        self._state.total_requests += 1
        self._exchange = None
        if self._transport.is_closing():
            return
        if self._body is not None:
            self._linger()
        elif self._closing:
            self._close()
        else:
            self.resume_reading()
            self._time(self._clients.keepalive)
            if self._buffer:
                self._begin()

    # -- The end -------------------------------------------------------------------------------------------------

    def _time(self, seconds: float) -> None:
        """Begin to wait for the client for so long."""
        self._due = self._loop.time() + seconds
        if self._due < self._fires:
            if self._timer is not None:
                self._timer.cancel()
            self._timer, self._fires = self._loop.call_at(self._due, self._look), self._due

    def _look(self) -> None:
        self._timer, self._fires = None, NEVER
        left = self._due - self._loop.time()
        if left > 0:
            if self._due < NEVER:
                self._time(left)
        elif self._transport.is_closing():
            self._look_after()
        elif self._buffer and not self._closing:
            self._refuse(Malformed(408, "the head of the request took too long"))
        else:
            self._close()

    def _close(self) -> None:
        """Close the connection as soon as the client has taken what was written."""
        self._closing = True
        self._transport.close()
        self._look_after()

    def _look_after(self) -> None:
        """Cut the client off if it takes nothing of that for `idle` seconds."""
        before, self._unsent = self._unsent, self._transport.get_write_buffer_size()
        if self._unsent >= before:
            self._transport.abort()
        elif self._unsent:
            self._time(self._idle)

    def _refuse(self, error: Malformed, head: bytes | bytearray | None = None) -> None:
        """Answer what is no request, and close the connection; its head is in the buffer, or `head`."""
        exchange, self._exchange = self._exchange, None
        body = f"{error}\n".encode()
        fields = b"content-type: text/plain\r\ncontent-length: %d\r\nconnection: close\r\n\r\n" % len(body)
        self._transport.write(STATUS[error.status] + fields + body)
        if exchange is not None:
            exchange.refuse(error.status)
        elif self._refused is not None:
            line = bytes((head or self._buffer)[:200]).partition(b"\r\n")[0]
            scope = {**self._scope, "method": "-", TARGET: line or b"-", "headers": []}
            self._refused(scope, error.status, len(body))
        self._linger()

    def _linger(self) -> None:
        """Close the connection, when the client has had time to read what it was answered."""
        self._closing = True
        self._body = None
        self._buffer.clear()
        if self._transport.can_write_eof():
            self._transport.write_eof()
        self._time(LINGER)
        self.resume_reading()

    # -- For the exchange ----------------------------------------------------------------------------------------

    def ends(self) -> bool:
        """Whether the connection ends with the response that begins now, which is so from then on."""
        self._closing = self._closing or self._body is not None
        return self._closing

    def close_after(self) -> None:
        """Take no other request."""
        self._closing = True

    def write(self, data: bytes) -> None:
        self._transport.write(data)

    def break_off(self, *, at_once: bool) -> None:
        """Close the connection: `at_once` so that the client gets a reset, else after what was written."""
        if at_once:
            self._transport.abort()
        else:
            self._close()

    @property
    def full(self) -> bool:
        """Whether the client is to take something before it is given more."""
        return self._writable is not None

    async def drain(self) -> None:
        """Wait until the client takes more; one that does not is cut off."""
        while self._writable is not None:
            late = self._loop.call_later(self._idle, self._transport.abort)
            try:
                await self._writable
            finally:
                late.cancel()

    def _pause_reading(self) -> None:
        if not self._reading_paused:
            self._reading_paused = True
            self._transport.pause_reading()

    def resume_reading(self) -> None:
        if self._reading_paused and not self._transport.is_closing():
            self._reading_paused = False
            self._transport.resume_reading()


class _Exchange:
    """One request and its response, as ASGI has them."""

    def __init__(self, connection: ClientProtocol, scope: Scope, *, expects: bool) -> None:
        self.body = bytearray()
        """What has come in of the request's body, and was not taken."""
        self.begun = False
        """Whether the response has."""
        self._connection = connection
        self._scope = scope
        self._expects = expects
        self.whole = self._told = False
        """Whether the request has come in as a whole, and whether the application knows."""
        self._over = False
        """Whether the response was written as a whole."""
        self._gone = False
        self._waiter: asyncio.Future[None] | None = None
        """Of the application, for what comes next."""
        self._left: int | None = None
        """Bytes of a body whose length is known."""
        self._chunked = self._bodiless = False

    def feed(self, part: bytes, *, whole: bool) -> None:
        self.body += part
        self.whole = whole
        if part or whole:
            self._wake()

    def refuse(self, status: int) -> None:
        """The client was answered already: its body cannot be read."""
        self._scope["state"][REFUSED] = status
        self.lost()

    def lost(self) -> None:
        """The client is gone."""
        self._gone = True
        self._wake()

    def _wake(self) -> None:
        waiter, self._waiter = self._waiter, None
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    async def run(self, app: Callable[..., Any]) -> None:
        """Let the application answer; what it does not answer is 500, or is broken off."""
        try:
            await app(self._scope, self.receive, self.send)
        except asyncio.CancelledError:
            self._connection.break_off(at_once=True)
            raise
        except Exception:
            logger.exception("a request could not be served")
        if self._over or self._gone:
            return
        if self.begun:
            self._connection.break_off(at_once=self._left is None and not self._chunked)
        else:
            self._answer(500)

    async def receive(self) -> Message:
        """As ASGI has it."""
        if self._expects and not (self.begun or self._gone):
            self._expects = False
            self._connection.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        while not (self._gone or self._over):
            if self.body or (self.whole and not self._told):
                data, self._told = bytes(self.body), self.whole
                self.body.clear()
                return {"type": "http.request", "body": data, "more_body": not self.whole}
            if not self.whole:
                self._connection.resume_reading()
            if self._waiter is None:
                self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter
        return GONE

    async def send(self, message: Message) -> None:
        """As ASGI has it. Nothing is sent to a client that is gone."""
        if self._connection.full:
            await self._connection.drain()
        if self._gone or self._over:
            return
        if not self.begun:
            self._start(message["status"], message.get("headers", ()))
        else:
            self._write(message.get("body", b""), more=message.get("more_body", False))

    def _start(self, status: int, headers: HeaderList) -> None:
        length = None
        lines = []
        for name, value in headers:
            if name == b"content-length":
                length = value if length in (None, value) else b""
            elif name == b"connection":
                if b"close" in value.lower():
                    self._connection.close_after()
            elif name != b"transfer-encoding":
                lines.append(b"%b: %b\r\n" % (name, value))
        fields = b"".join(lines)
        invalid = not wire.well_formed(fields, len(lines)) or not 200 <= status <= 999
        if invalid or not (length is None or wire.LENGTH.fullmatch(length)):
            logger.error("the response of %r cannot be sent: a filter made a malformed header", self._scope["method"])
            self._answer(503)
            return
        self.begun = True
        self._bodiless = self._scope["method"] == "HEAD" or status in BODILESS
        if length is not None and status != 204:
            fields += b"content-length: %b\r\n" % length
        if self._bodiless:
            self._left = 0
        elif length is not None:
            self._left = int(length)
        elif self._scope["http_version"] == "1.1":
            self._chunked = True
            fields += b"transfer-encoding: chunked\r\n"
        if self._connection.ends():
            fields += b"connection: close\r\n"
        self._connection.write((STATUS.get(status) or b"HTTP/1.1 %d \r\n" % status) + fields + b"\r\n")

    def _write(self, data: bytes, *, more: bool) -> None:
        if self._chunked:
            if data:
                data = b"%x\r\n%b\r\n" % (len(data), data)
            if not more:
                data += b"0\r\n\r\n"
        elif self._bodiless:
            data = b""
        elif self._left is not None:
            self._left -= len(data)
            if self._left < 0 or (self._left and not more):
                logger.error("a response has another length than its content-length says: it is broken off")
                self._gone = True
                self._connection.break_off(at_once=True)
                return
        if data:
            self._connection.write(data)
        if not more:
            self._end()

    def _answer(self, status: int) -> None:
        """Answer by ourselves."""
        close = b"connection: close\r\n" if self._connection.ends() else b""
        self.begun = True
        self._connection.write(STATUS[status] + b"content-length: 0\r\n" + close + b"\r\n")
        self._end()

    def _end(self) -> None:
        self._over = True
        self._wake()
        self._connection.done()
