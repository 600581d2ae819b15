"""The driver of a thread that serves a configuration of Kong: it calls plugin servers itself.

A plugin server answers within microseconds, many times in a request: changing threads for each answer would take much
longer.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from time import monotonic
from typing import Any

from proxywasm_host.kong.plugin import ServerCall
from proxywasm_host.kong.servers.events import PluginServerError
from proxywasm_host.kong.servers.pool import RETRY, TIMEOUT, WAIT_FOR_START, Ask, Connection, Pool, describe
from proxywasm_host.kong.task import Answer, PluginCallout
from proxywasm_host.runtime.effects import Callout, CalloutFailed
from proxywasm_host.runtime.plugin import Plugin
from proxywasm_host.serve.driver import ThreadDriver

__all__ = ["KongDriver"]

SEND_AGAIN = 0.001
"""Seconds until the next attempt to send the rest of a message, if the socket did not accept all of it."""
CHECK = 1.0
"""Seconds between two checks for overdue calls."""


class KongDriver(ThreadDriver):
    """A `ThreadDriver` that makes calls to plugin servers in the thread of the host."""

    def _start(self) -> None:
        self._servers: dict[str, ServerCalls] = {}
        super()._start()

    def _stop(self) -> None:
        super()._stop()
        for server in self._servers.values():
            server.close()

    def _call(self, callout: Callout) -> bool:
        if not isinstance(callout, PluginCallout) or not isinstance(callout.effect, ServerCall) or not self._running:
            return super()._call(callout)
        name = callout.effect.server
        server = self._servers.get(name)
        if server is None:
            known = callout.plugin.servers[name]
            server = self._servers[name] = ServerCalls(
                Pool(known.socket, known.protocol), self._thread.native.watch, self._later, self._finish
            )
        server.call(callout)
        return True

    def _cancel(self, plugin: Plugin, token: int) -> None:
        super()._cancel(plugin, token)
        for server in self._servers.values():
            server.cancel(plugin, token)


class ServerCalls:
    """Calls to one plugin server, in a thread with its own event loop.

    Args:
        pool: the connections.
        watch: calls a function whenever a socket (a descriptor) can be read, until the function returns false.
        later: calls a function after a number of seconds.
        answer: is called with a callout and its reply.
    """

    def __init__(
        self,
        pool: Pool,
        watch: Callable[[int, Callable[[], bool]], object],
        later: Callable[[float, Callable[[], Any]], object],
        answer: Callable[[Callout, Any], object],
    ) -> None:
        self._pool = pool
        self._watch = watch
        self._later = later
        self._reply = answer
        self._waiting: dict[tuple[Any, int], PluginCallout] = {}
        """Callouts that have no connection yet."""
        self._asked: dict[Connection, tuple[PluginCallout | None, float]] = {}
        """The call under way on each connection (``None`` if it was cancelled), and its deadline."""
        self._checks = False

    def call(self, callout: PluginCallout) -> None:
        """Make a call; `answer` gets the reply later."""
        ask = callout.effect.message  # type: ignore[union-attr]
        assert isinstance(ask, Ask)  # noqa: S101 - made by `ServerPlugin`
        if ask.connection is None:
            self._waiting[callout.plugin, callout.token] = callout
            self._connect(callout, ask, monotonic() + WAIT_FOR_START)
        else:
            self._ask(callout, ask, ask.connection)

    def cancel(self, plugin: Any, token: int) -> None:
        """Cancel a call: its answer is dropped."""
        self._waiting.pop((plugin, token), None)
        for connection, (callout, until) in self._asked.items():
            if callout is not None and callout.plugin is plugin and callout.token == token:
                self._asked[connection] = None, until  # closed once the server has answered: see `Pool.left`
                return

    def close(self) -> None:
        """Close all connections; one with a call under way is closed once the server has answered."""
        self._waiting.clear()
        self._asked = {connection: (None, until) for connection, (_, until) in self._asked.items()}
        self._pool.close(self._asked)

    def _connect(self, callout: PluginCallout, ask: Ask, until: float) -> None:
        if (callout.plugin, callout.token) not in self._waiting:
            return
        try:
            connection, new = self._pool.connected()
            if new:
                self._watch(connection.socket.fileno(), partial(self._readable, connection))
        except OSError as error:
            if monotonic() < until:
                self._later(RETRY, partial(self._connect, callout, ask, until))
                return
            del self._waiting[callout.plugin, callout.token]
            self._later(0.0, partial(self._reply, callout, CalloutFailed(describe(error))))
            return
        del self._waiting[callout.plugin, callout.token]
        self._ask(callout, ask, connection)

    def _ask(self, callout: PluginCallout, ask: Ask, connection: Connection) -> None:
        self._asked[connection] = callout, monotonic() + TIMEOUT
        if not self._checks:
            self._checks = True
            self._later(CHECK, self._check)
        try:
            sent = connection in self._pool and connection.begin(ask.method, ask.arguments)
        except OSError as error:
            self._later(0.0, partial(self._failed, connection, error))
            return
        if not sent:
            self._later(SEND_AGAIN, partial(self._send, connection))

    def _send(self, connection: Connection) -> None:
        if connection not in self._asked:
            return
        try:
            if not connection.send():
                self._later(SEND_AGAIN, partial(self._send, connection))
        except OSError as error:
            self._failed(connection, error)

    def _readable(self, connection: Connection) -> bool:
        """Read the available bytes. Returns whether the connection can still be used."""
        if connection not in self._pool:
            return False
        try:
            event = connection.receive()
            if event is not None and connection not in self._asked:
                raise PluginServerError("the plugin server sent an answer without a request")  # noqa: TRY301 - handled like other errors
        except (OSError, PluginServerError) as error:
            self._failed(connection, error)
            return False
        if event is not None:
            callout, _ = self._asked.pop(connection)
            if callout is None:
                self._pool.left(connection, event)
            else:
                self._reply(callout, Answer(self._pool.said(connection, event)))
        return connection in self._pool

    def _failed(self, connection: Connection, error: BaseException) -> None:
        self._pool.failed(connection, error)
        callout, _ = self._asked.pop(connection, (None, 0.0))
        if callout is not None:
            self._reply(callout, CalloutFailed(describe(error)))

    def _check(self) -> None:
        """Fail overdue calls."""
        now = monotonic()
        for connection in [connection for connection, (_, until) in self._asked.items() if until < now]:
            self._failed(connection, TimeoutError())
        self._checks = bool(self._asked)
        if self._checks:
            self._later(CHECK, self._check)
