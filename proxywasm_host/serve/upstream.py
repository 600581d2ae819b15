"""The pool of connections to the server behind the filters, of one process.

Rules of this module:

* A request without a body that meets a connection which the server has just closed is sent once more, on a new one,
  if its method may be repeated (RFC 9110, 9.2.2).
* A connection goes back only after a whole exchange, and is not kept longer than the server keeps it.
* What keeps a request from being answered is an `UpstreamError`, worded as Envoy does.
"""

from __future__ import annotations

import asyncio
import ssl
import time
from collections import deque
from collections.abc import AsyncIterator
from functools import partial
from typing import Protocol
from urllib.parse import urlsplit

from proxywasm_host.errors import ConfigError
from proxywasm_host.runtime.header_limits import HeaderLimits
from proxywasm_host.serve.config import Upstream, UpstreamTls
from proxywasm_host.serve.connection import Connection, UpstreamError

__all__ = ["Pool", "Response", "tls_context"]

REPEATABLE = frozenset((b"GET", b"HEAD", b"OPTIONS", b"TRACE", b"PUT", b"DELETE"))


class Client(Protocol):
    """The side that a request comes from."""

    def attach(self, connection: Connection) -> None:
        """The head of the request was written to this connection: write the body, and say `fail` if the client goes."""
        ...


def tls_context(tls: UpstreamTls) -> ssl.SSLContext:
    """What TLS towards a server needs. Raises: ConfigError."""
    try:
        context = ssl.create_default_context(cafile=tls.ca)
        if not tls.verify:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        if tls.certificate:
            context.load_cert_chain(tls.certificate, tls.key)
    except (OSError, ssl.SSLError) as error:
        raise ConfigError(f"TLS: cannot use {tls.ca or tls.certificate}: {error}") from None
    context.set_alpn_protocols(["http/1.1"])
    return context


class Response:
    """What upstream answered. `close` must be called when one is done with it."""

    def __init__(self, pool: Pool, connection: Connection) -> None:
        self.status = connection.status
        self.headers = connection.headers
        self._pool = pool
        self._connection = connection

    def chunks(self) -> AsyncIterator[tuple[bytes, bool]]:
        """The body: a part, and whether there is more. Raises: UpstreamError."""
        return self._connection.chunks(self._pool.settings.idle_timeout)

    @property
    def complete(self) -> bool:
        """Whether the whole of it has come in."""
        return self._connection.complete

    def close(self) -> None:
        self._pool.give_back(self._connection)


class Pool:
    """Connections to one server. Belongs to one event loop; nothing is connected before the first request."""

    def __init__(self, settings: Upstream) -> None:
        """Raises: ConfigError."""
        self.settings = settings
        parts = urlsplit(settings.url)
        secure = parts.scheme == "https"
        self.host = parts.hostname or ""
        self.port = parts.port or (443 if secure else 80)
        self.authority = parts.netloc.encode()
        self.prefix = parts.path.rstrip("/").encode()
        self._tls = tls_context(settings.tls) if secure else None
        self._idle: deque[Connection] = deque()
        self._free = asyncio.Semaphore(settings.max_connections)
        self._open: set[Connection] = set()
        self._closing = False
        limits = HeaderLimits(settings.max_headers, settings.max_header_size)
        self._connect = partial(Connection, limits)

    async def request(self, method: bytes, head: bytes, client: Client, *, body: bool) -> Response:
        """Send a request: `head` is its first line and its headers as they are on the wire, and a body that is known.

        `body` says whether the client will write more. Raises: UpstreamError.
        """
        await self._slot()
        try:
            connection = await self._connection(fresh=False)
            reused = connection.used
            try:
                return await self._exchange(connection, method, head, client)
            except UpstreamError:
                repeat = reused and connection.lost and connection.silent and not body and method in REPEATABLE
                if not repeat:
                    raise
            return await self._exchange(await self._connection(fresh=True), method, head, client)
        except BaseException:
            self._free.release()
            raise

    async def _exchange(self, connection: Connection, method: bytes, head: bytes, client: Client) -> Response:
        connection.used = True
        connection.begin(method)
        connection.write(head)
        client.attach(connection)
        try:
            await connection.head(self.settings.timeout)
        except BaseException:
            self._drop(connection)
            raise
        return Response(self, connection)

    async def _slot(self) -> None:
        free = self._free
        if not free.locked():
            await free.acquire()
            return
        try:
            await asyncio.wait_for(free.acquire(), self.settings.connect_timeout)
        except asyncio.TimeoutError:
            raise UpstreamError.reset("overflow") from None

    async def _connection(self, *, fresh: bool) -> Connection:
        oldest = time.monotonic() - self.settings.keepalive
        while self._idle and not fresh:
            connection = self._idle.pop()
            if not connection.closed and connection.idle_since >= oldest:
                return connection
            self._drop(connection)
        name = (self.settings.tls.server_name or self.host) if self._tls else None
        connecting = asyncio.get_running_loop().create_connection(
            self._connect, self.host, self.port, ssl=self._tls, server_hostname=name
        )
        try:
            _, connection = await asyncio.wait_for(connecting, self.settings.connect_timeout)
        except asyncio.TimeoutError:
            raise UpstreamError.reset("connection timeout") from None
        except (OSError, ssl.SSLError, UnicodeError) as error:
            raise _not_connected(error) from None
        self._open.add(connection)
        return connection

    def give_back(self, connection: Connection) -> None:
        """An exchange is over; the connection is kept if it can have another."""
        self._free.release()
        if connection.reusable and not self._closing:
            connection.idle_since = time.monotonic()
            self._idle.append(connection)
        else:
            self._drop(connection)

    def _drop(self, connection: Connection) -> None:
        self._open.discard(connection)
        connection.close()

    def close(self) -> None:
        """Close all connections; those in use after their exchange."""
        self._closing = True
        while self._idle:
            self._drop(self._idle.pop())


def _not_connected(error: Exception) -> UpstreamError:
    reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    failed = UpstreamError.reset("remote connection failure")
    return UpstreamError(failed.status, f"{failed}, transport failure reason: {reason}", failed.details)
