"""Connections to one plugin server. One request is under way on each: some servers cannot take two at once."""

from __future__ import annotations

import socket
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import anyio

from proxywasm_host.kong.servers.events import Event, PluginServerError, ServerProtocol

__all__ = ["Ask", "Connection", "Pool", "Said", "describe"]

CHUNK = 65536
WAIT_FOR_START = 10.0
"""Seconds that a server may take to listen."""
RETRY = 0.02
IDLE = 64
"""Connections that are kept."""


@dataclass(frozen=True, slots=True)
class Ask:
    """What a `ServerCall` asks: a method of the `ServerProtocol`, on a connection or, with ``None``, on a free one.

    ``release`` and ``discard`` give the connection back, or close it.
    """

    connection: Connection | None
    method: str
    arguments: tuple[Any, ...] = ()


@dataclass(frozen=True, slots=True)
class Said:
    """The answer: the connection, on which the request goes on, and what the server said."""

    connection: Connection
    event: Event


class Connection:
    """A connection, for one event at a time. The socket is our own: a wait for it may be cancelled at any time."""

    def __init__(self, path: str, protocol: ServerProtocol, epoch: int) -> None:
        """Raises: OSError, if nobody listens, or too many wait for it."""
        self.protocol = protocol
        self.epoch = epoch
        """Which life of the server it is to: numbers of instances hold within one."""
        self.socket = socket.socket(socket.AF_UNIX)
        try:
            self.socket.setblocking(False)
            self.socket.connect(path)
        except BaseException:
            self.socket.close()
            raise

    async def ask(self, method: str, arguments: tuple[Any, ...]) -> Event:
        """Send a request, and wait for what the server says. Raises: OSError, PluginServerError."""
        await self._send(memoryview(getattr(self.protocol, method)(*arguments)))
        event = None
        while event is None:
            await anyio.wait_readable(self.socket)
            data = self.socket.recv(CHUNK)
            if not data:
                raise ConnectionError("the plugin server has hung up")
            event = self.protocol.feed(data)
        return event

    async def _send(self, data: memoryview) -> None:
        while data:
            try:
                data = data[self.socket.send(data) :]
            except BlockingIOError:  # noqa: PERF203 - it is rare
                await anyio.wait_writable(self.socket)


class Pool:
    """Connections to the server that listens on a Unix socket. Belongs to one event loop."""

    def __init__(self, path: str, protocol: Callable[[], ServerProtocol], timeout: float = 60.0) -> None:
        self.path = path
        self.epoch = 0
        self._protocol = protocol
        self._timeout = timeout
        self._free: deque[Connection] = deque()
        self._all: set[Connection] = set()

    async def __call__(self, ask: Ask) -> Said | None:
        """Do what an `Ask` says. Raises: OSError, TimeoutError, PluginServerError; the connection is closed then."""
        connection = ask.connection
        if connection is None:
            connection = await self._connected()
        elif ask.method == "release":
            self._give_back(connection)
            return None
        elif ask.method == "discard":
            self._close(connection)
            return None
        try:
            with anyio.fail_after(self._timeout):
                return Said(connection, await connection.ask(ask.method, ask.arguments))
        except BaseException as error:
            gone = isinstance(error, OSError) and not isinstance(error, TimeoutError)
            if gone and connection.epoch == self.epoch:
                self.epoch += 1  # the server may be another one now
            self._close(connection)
            raise

    async def _connected(self) -> Connection:
        while self._free:
            connection = self._free.pop()
            if connection.epoch == self.epoch:
                return connection
            self._close(connection)
        until = anyio.current_time() + WAIT_FOR_START
        while True:
            try:
                connection = Connection(self.path, self._protocol(), self.epoch)
            except OSError:  # noqa: PERF203 - it is tried again
                if anyio.current_time() >= until:
                    raise
                await anyio.sleep(RETRY)
            else:
                self._all.add(connection)
                return connection

    def _give_back(self, connection: Connection) -> None:
        if connection.epoch == self.epoch and len(self._free) < IDLE and connection in self._all:
            self._free.append(connection)
        else:
            self._close(connection)

    def _close(self, connection: Connection) -> None:
        self._all.discard(connection)
        connection.socket.close()

    def close(self) -> None:
        """Close all connections."""
        self._free.clear()
        for connection in list(self._all):
            self._close(connection)


def describe(error: BaseException) -> str:
    """Why a server could not be asked, in few words."""
    if isinstance(error, TimeoutError):
        return "timeout"
    if isinstance(error, (PluginServerError, ConnectionError)) and str(error):
        return str(error)
    return f"{type(error).__name__}: {error}"
