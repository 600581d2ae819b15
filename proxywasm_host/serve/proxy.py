"""The reverse proxy itself: an ASGI application that sends each request to upstream, and streams both ways.

Rules of this module:

* Headers that belong to one connection (RFC 9110, 7.6.1) go no further; framing is made anew on each side.
* What cannot be sent, because a filter put a line break into it, is not sent: 503, as Envoy answers.
* Before the response has begun an error is a response of ours; afterwards the stream is broken off.
* A client that goes away ends the exchange with upstream.
"""

from __future__ import annotations

import asyncio
import re
import time
from email.utils import formatdate

from proxywasm_host.abi.pairs import HeaderList
from proxywasm_host.integrations.asgi.scope import Receive, Scope, Send, target
from proxywasm_host.serve.config import Upstream
from proxywasm_host.serve.connection import Connection, UpstreamError
from proxywasm_host.serve.upstream import Pool, Response
from proxywasm_host.serve.wire import LENGTH, TCHAR, well_formed

__all__ = ["DETAILS", "Proxy"]

DETAILS = "proxywasm.details"
"""Key in the state of a request: why we answered instead of upstream."""
HOP_BY_HOP = frozenset(
    (b"connection", b"keep-alive", b"proxy-connection", b"te", b"trailer", b"transfer-encoding", b"upgrade")
)
FRAMING = frozenset((b"content-length", b"expect", b"host"))
BODILESS = (204, 304)
WITH_BODY = frozenset((b"POST", b"PUT", b"PATCH"))
METHOD = re.compile(TCHAR)
TARGET = re.compile(rb"/[!\"$-~\x80-\xff]*")
WATCH_AFTER = 0.1
"""Seconds after which we look whether the client is still there: most exchanges are over by then."""


class Proxy:
    """Belongs to one event loop."""

    def __init__(self, settings: Upstream) -> None:
        """Raises: ConfigError."""
        self.pool = Pool(settings)
        self._date = 0, b""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            raise RuntimeError(f"{scope['type']!r} is not for this application")
        client = _Client(receive, self.pool.settings.idle_timeout)
        try:
            try:
                response = await self._ask(scope, client)
            except UpstreamError as error:
                if not client.gone:
                    await self._answer(scope, send, error)
                return
            try:
                await self._relay(response, scope, send)
            except UpstreamError:
                if not client.gone:
                    raise
            finally:
                client.detach()
                response.close()
        finally:
            client.detach()

    async def _ask(self, scope: Scope, client: _Client) -> Response:
        method = scope["method"].encode("latin-1")
        headers, framing = self._request_headers(scope)
        whole = b""
        if framing is None:
            whole, more = await client.first()
            if more:
                framing = (b"transfer-encoding", b"chunked")
            elif whole or method in WITH_BODY:
                headers.append((b"content-length", b"%d" % len(whole)))
        if framing is not None:
            headers.append(framing)
            client.upload(whole, framing)
            whole = b""
        head = _head(method, target(scope), headers, self.pool.prefix)
        return await self.pool.request(method, head + whole, client, body=framing is not None or bool(whole))

    def _request_headers(self, scope: Scope) -> tuple[HeaderList, tuple[bytes, bytes] | None]:
        """Headers for upstream, and the header that announces a body, if there is one. Raises: UpstreamError."""
        host, framing, drop = b"", None, HOP_BY_HOP
        headers: HeaderList = []
        cookies = []
        lengths: set[bytes] = set()
        for name, value in scope["headers"]:
            if name in HOP_BY_HOP:
                if name == b"transfer-encoding":
                    framing = (name, b"chunked")
                elif name == b"connection":
                    drop |= _listed(value)
            elif name in FRAMING:
                if name == b"host":
                    host = value
                elif name == b"content-length":
                    lengths.add(value)
            elif name == b"cookie":
                cookies.append(value)
            else:
                headers.append((name, value))
        if lengths and framing is None:
            length = lengths.pop()
            if lengths or not LENGTH.fullmatch(length):
                raise UpstreamError(503, "the request cannot be sent: its content-length is none", "invalid_header")
            if length != b"0":
                framing = (b"content-length", length)
        if cookies:  # HTTP/2 may split them
            headers.append((b"cookie", b"; ".join(cookies)))
        if drop is not HOP_BY_HOP:
            headers = [pair for pair in headers if pair[0] not in drop]
        if self.pool.settings.rewrite_host or not host:
            if host:
                headers.append((b"x-forwarded-host", host))
            host = self.pool.authority
        return [(b"host", host), *headers], framing

    async def _relay(self, response: Response, scope: Scope, send: Send) -> None:
        status, drop = response.status, HOP_BY_HOP
        for name, value in response.headers:
            if name == b"connection":
                drop |= _listed(value)
        if status in BODILESS:
            drop |= {b"content-length"}
        headers = [pair for pair in response.headers if pair[0] not in drop]
        if not any(name == b"date" for name, _ in headers):
            headers.append((b"date", self._now()))
        await send({"type": "http.response.start", "status": status, "headers": headers})
        more = True
        async for data, more in response.chunks():
            await send({"type": "http.response.body", "body": data, "more_body": more})
        if more:
            await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _answer(self, scope: Scope, send: Send, error: UpstreamError) -> None:
        scope.setdefault("state", {})[DETAILS] = error.details
        body = str(error).encode()
        length, kind = (b"content-length", b"%d" % len(body)), (b"content-type", b"text/plain")
        headers = [length, kind, (b"date", self._now())]
        await send({"type": "http.response.start", "status": error.status, "headers": headers})
        await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else body})

    def _now(self) -> bytes:
        """The Date of a message, made once a second."""
        now = int(time.time())
        if self._date[0] != now:
            self._date = now, formatdate(now, usegmt=True).encode()
        return self._date[1]

    def close(self) -> None:
        """Close all connections to upstream."""
        self.pool.close()


def _listed(value: bytes) -> frozenset[bytes]:
    """Names that a Connection header lists."""
    return frozenset(name.strip().lower() for name in value.split(b","))


def _head(method: bytes, asked: bytes, headers: HeaderList, prefix: bytes) -> bytes:
    """First line and headers as they are on the wire. Raises: UpstreamError, if that cannot be."""
    fields = b"".join([b"%b: %b\r\n" % pair for pair in headers])
    if not (
        (TARGET.fullmatch(asked) or (asked == b"*" and method == b"OPTIONS"))
        and METHOD.fullmatch(method)
        and method != b"CONNECT"
        and well_formed(fields, len(headers))
    ):
        raise UpstreamError(503, "the request cannot be sent: a filter made a malformed header", "invalid_header")
    return b"%b %b HTTP/1.1\r\n%b\r\n" % (method, asked if asked == b"*" else prefix + asked, fields)


class _Client:
    """The client's side of one exchange: its body goes to the connection, and its going away breaks that off."""

    def __init__(self, receive: Receive, idle: float) -> None:
        self.gone = False
        self._receive = receive
        self._idle = idle
        self._framing: tuple[bytes, bytes] | None = None
        self._first = b""
        self._task: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._connection: Connection | None = None

    async def first(self) -> tuple[bytes, bool]:
        """The first part of the body, and whether there is more. Raises: UpstreamError, if the client is gone."""
        message = await self._receive()
        if message["type"] != "http.request":
            self.gone = True
            raise UpstreamError(499, "", "downstream_remote_disconnect")
        return message.get("body", b""), message.get("more_body", False)

    def upload(self, first: bytes, framing: tuple[bytes, bytes]) -> None:
        """There is a body to write, after `first`."""
        self._first, self._framing = first, framing

    def attach(self, connection: Connection) -> None:
        self.detach()
        self._connection = connection
        if self._framing is not None:
            self._begin()
        else:
            self._timer = asyncio.get_running_loop().call_later(WATCH_AFTER, self._begin)

    def _begin(self) -> None:
        self._task = asyncio.ensure_future(self._run())

    def detach(self) -> None:
        """The exchange is over."""
        if self._timer is not None:
            self._timer.cancel()
        if self._task is not None and not self._task.done():
            self._task.cancel()
            if self._framing is not None and self._connection is not None:
                self._connection.close()  # the rest of the body was never written
        self._task = self._timer = None

    async def _run(self) -> None:
        connection = self._connection
        assert connection is not None  # noqa: S101 - it was attached
        try:
            if self._framing is not None:
                await self._upload(connection, self._framing)
            while (await self._receive())["type"] != "http.disconnect":
                pass
            self._lost(connection)
        except UpstreamError as error:
            connection.fail(error)
        except Exception:
            self._lost(connection)
            raise

    def _lost(self, connection: Connection) -> None:
        self.gone = True
        connection.fail(UpstreamError(499, "", "downstream_remote_disconnect"))

    async def _upload(self, connection: Connection, framing: tuple[bytes, bytes]) -> None:
        chunked = framing[0] == b"transfer-encoding"
        left = 0 if chunked else int(framing[1])
        data, more = self._first, True
        while True:
            if data:
                left -= len(data)
                if not chunked and left < 0:
                    raise UpstreamError.reset("the request's body is longer than its content-length")
                connection.write(b"%x\r\n%b\r\n" % (len(data), data) if chunked else data)
                connection.progress()
            if not more:
                break
            await connection.drain()
            data, more = await self._part(connection)
        if chunked:
            connection.write(b"0\r\n\r\n")
        elif left:
            raise UpstreamError.reset("the request's body is shorter than its content-length")
        self._framing = None

    async def _part(self, connection: Connection) -> tuple[bytes, bool]:
        late = UpstreamError(408, "request timeout", "request_overall_timeout")
        timer = asyncio.get_running_loop().call_later(self._idle, connection.fail, late)
        try:
            return await self.first()
        finally:
            timer.cancel()
