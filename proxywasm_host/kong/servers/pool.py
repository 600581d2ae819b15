"""Connections to one plugin server. Each carries one request at a time: some servers cannot handle two.

`Pool` never waits. `AsyncPool` waits in an event loop, `BlockingPool` in its thread,
`proxywasm_host.kong.driver` in a thread of the data plane.
"""

from __future__ import annotations

import select
import socket
import time
from collections.abc import Callable, Container
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import anyio

from proxywasm_host.kong.servers.events import Done, Event, PluginServerError, Refused, ServerProtocol

__all__ = [
    "RETRY",
    "TIMEOUT",
    "WAIT_FOR_START",
    "Ask",
    "AsyncPool",
    "BlockingPool",
    "Connection",
    "Pool",
    "Said",
    "describe",
]

CHUNK = 65536
WAIT_FOR_START = 10.0
"""Seconds within which a server must begin to listen."""
RETRY = 0.02
TIMEOUT = 60.0
"""Seconds within which a server must answer."""
LEFT = 1.0
"""Seconds that an event loop waits for the answer to a cancelled request."""
IDLE = 64
"""Most idle connections that are kept."""


@dataclass(frozen=True, slots=True)
class Ask:
    """The message of a `ServerCall`: a method of `ServerProtocol`, on a connection or, with ``None``, on a free one."""

    connection: Connection | None = field(repr=False)
    method: str
    arguments: tuple[Any, ...] = ()


@dataclass(frozen=True, slots=True)
class Said:
    """The server's message, and the connection on which the request continues, unless it has ended."""

    connection: Connection
    event: Event


class Connection:
    """A connection, which carries one event at a time."""

    def __init__(self, pool: Pool) -> None:
        """Connect. Raises: OSError, if no server listens, or too many connections wait for it."""
        self.protocol = pool.protocol()
        self.epoch = pool.epoch
        """Number of the server's start: numbers of instances are valid until the next one."""
        self._pool = pool
        self._unsent = memoryview(b"")
        self.socket = socket.socket(socket.AF_UNIX)
        try:
            self.socket.setblocking(False)
            self.socket.connect(pool.path)
        except BaseException:
            self.socket.close()
            raise

    def begin(self, method: str, arguments: tuple[Any, ...]) -> bool:
        """Send a message. Returns whether all of it was sent; `send` sends the rest. Raises: OSError."""
        self._unsent = memoryview(getattr(self.protocol, method)(*arguments))
        return self.send()

    def send(self) -> bool:
        """Send as much of the rest as the socket accepts. Returns whether that was all. Raises: OSError."""
        with suppress(BlockingIOError):
            while self._unsent:
                self._unsent = self._unsent[self.socket.send(self._unsent) :]
        return not self._unsent

    def receive(self) -> Event | None:
        """Read the available bytes. Returns the server's message once all of it has arrived.

        Raises: OSError, PluginServerError.
        """
        with suppress(BlockingIOError):
            while data := self.socket.recv(CHUNK):
                event = self.protocol.feed(data)
                if event is not None or len(data) < CHUNK:
                    return event
            raise ConnectionError("the plugin server has closed the connection")
        return None

    def close(self) -> None:
        """Close the connection, even during an event, which the server then drops."""
        self._pool.close_one(self)


class Pool:
    """The connections to the server that listens on a Unix socket. A pool belongs to one thread."""

    def __init__(self, path: str, protocol: Callable[[], ServerProtocol]) -> None:
        self.path = path
        self.protocol = protocol
        self.epoch = 0
        self._free: list[Connection] = []
        self._all: set[Connection] = set()
        self._closed = False

    def __contains__(self, connection: Connection) -> bool:
        return connection in self._all

    def connected(self) -> tuple[Connection, bool]:
        """A free connection, and whether it is new. Raises: OSError, if no server listens."""
        while self._free:
            connection = self._free.pop()
            if connection in self._all:
                if connection.epoch == self.epoch:
                    return connection, False
                self.close_one(connection)
        connection = Connection(self)
        self._all.add(connection)
        return connection, True

    def said(self, connection: Connection, event: Event) -> Said:
        """Note a message of the server: the end of an event frees its connection."""
        if isinstance(event, (Done, Refused)):
            if connection.epoch == self.epoch and len(self._free) < IDLE and not self._closed:
                self._free.append(connection)
            else:
                self.close_one(connection)
        return Said(connection, event)

    def left(self, connection: Connection, event: Event) -> None:
        """Note a message of the server to a cancelled request.

        Closing the connection earlier may end the server: that of Kong's PDK for JavaScript dies of ``ECONNRESET``.
        """
        self.said(connection, event)
        if not isinstance(event, (Done, Refused)):
            self.close_one(connection)

    def failed(self, connection: Connection, error: BaseException) -> None:
        """Drop a connection that has failed."""
        gone = isinstance(error, OSError) and not isinstance(error, TimeoutError)
        if gone and connection.epoch == self.epoch:
            self.epoch += 1  # the server may have been started again
        self.close_one(connection)

    def close_one(self, connection: Connection) -> None:
        """Close a connection."""
        if connection in self._all:
            self._all.discard(connection)
            with suppress(OSError):
                connection.socket.shutdown(socket.SHUT_RDWR)  # wakes the code that watches the socket
            connection.socket.close()

    def close(self, but: Container[Connection] = ()) -> None:
        """Close all connections but these, which are closed when their events end."""
        self._closed = True
        for connection in [connection for connection in self._all if connection not in but]:
            self.close_one(connection)


class AsyncPool:
    """Calls a plugin server in an event loop."""

    def __init__(self, path: str, protocol: Callable[[], ServerProtocol], timeout: float = TIMEOUT) -> None:
        self.pool = Pool(path, protocol)
        self._timeout = timeout

    async def __call__(self, ask: Ask) -> Said:
        """Perform an `Ask`. Raises: OSError, TimeoutError, PluginServerError; these close the connection."""
        connection = ask.connection or await self._connected()
        try:
            with anyio.fail_after(self._timeout):
                sent = connection.begin(ask.method, ask.arguments)
                while not sent:
                    await anyio.wait_writable(connection.socket)
                    sent = connection.send()
                event = await _received(connection)
        except anyio.get_cancelled_exc_class():
            with anyio.move_on_after(LEFT, shield=True), suppress(OSError, PluginServerError):
                self.pool.left(connection, await _received(connection))
                raise
            self.pool.close_one(connection)
            raise
        except BaseException as error:
            self.pool.failed(connection, error)
            raise
        return self.pool.said(connection, event)

    async def _connected(self) -> Connection:
        until = anyio.current_time() + WAIT_FOR_START
        while True:
            try:
                return self.pool.connected()[0]
            except OSError:  # noqa: PERF203 - the loop retries
                if anyio.current_time() >= until:
                    raise
                await anyio.sleep(RETRY)


async def _received(connection: Connection) -> Event:
    event = None
    while event is None:
        await anyio.wait_readable(connection.socket)
        event = connection.receive()
    return event


class BlockingPool:
    """Calls a plugin server, and blocks its thread until the answer."""

    def __init__(self, path: str, protocol: Callable[[], ServerProtocol], timeout: float = TIMEOUT) -> None:
        self.pool = Pool(path, protocol)
        self._timeout = timeout

    def __call__(self, ask: Ask) -> Said:
        """As `AsyncPool`."""
        connection = ask.connection or self._connected()
        until = time.monotonic() + self._timeout
        try:
            sent = connection.begin(ask.method, ask.arguments)
            while not sent:
                _wait(connection, select.POLLOUT, until)
                sent = connection.send()
            event = connection.receive()
            while event is None:
                _wait(connection, select.POLLIN, until)
                event = connection.receive()
        except BaseException as error:
            self.pool.failed(connection, error)
            raise
        return self.pool.said(connection, event)

    def _connected(self) -> Connection:
        until = time.monotonic() + WAIT_FOR_START
        while True:
            try:
                return self.pool.connected()[0]
            except OSError:  # noqa: PERF203 - the loop retries
                if time.monotonic() >= until:
                    raise
                time.sleep(RETRY)


def _wait(connection: Connection, what: int, until: float) -> None:
    """Wait until the socket is ready. Raises: TimeoutError."""
    poll = select.poll()
    poll.register(connection.socket, what)
    if not poll.poll(max(0.0, until - time.monotonic()) * 1000):
        raise TimeoutError


def describe(error: BaseException) -> str:
    """The reason for a failed call, in a few words."""
    if isinstance(error, TimeoutError):
        return "timeout"
    if isinstance(error, (PluginServerError, ConnectionError)) and str(error):
        return str(error)
    return f"{type(error).__name__}: {error}"
