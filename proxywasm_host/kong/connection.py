"""A TCP connection through Kong's gateway: route, ``preread`` of plugins by priority, upstream, ``log`` of plugins.

Rules, from ``kong/init.lua`` and ``kong/runloop``: a plugin that exits or fails in ``preread`` closes the connection;
the gateway does so if no route fits, or if the route has no service.
"""

from __future__ import annotations

from collections.abc import Mapping
from time import time

from proxywasm_host.abi.types import LogLevel, PeerType
from proxywasm_host.abi.values import PropertyValue
from proxywasm_host.kong.context import Client, Context, Headers, Request, Route
from proxywasm_host.kong.gateway import Gateway, log_failure
from proxywasm_host.kong.plugin import Run
from proxywasm_host.kong.router import Address, route_of
from proxywasm_host.kong.task import Task
from proxywasm_host.runtime import effects
from proxywasm_host.runtime.effects import Effect
from proxywasm_host.runtime.tcp import TcpStream

__all__ = ["KongConnection"]


class KongConnection(TcpStream):
    """One connection, fed and closed like a `TcpStream`. The effects of its plugins are `PluginCallout`s."""

    def __init__(
        self,
        gateway: Gateway,
        source: Address,
        destination: Address,
        *,
        properties: Mapping[str, PropertyValue],
        buffer_limit: int,
    ) -> None:
        super().__init__(gateway.host, [], properties, buffer_limit)
        self._gateway = gateway
        self._task: Task | None = None
        self._passed = False
        self._running = ""
        ip, port = source
        host, listen = destination
        # A connection has no request: functions of the PDK that read one are refused in ``preread``.
        request = Request(
            method="",
            scheme="tcp",
            host=host,
            port=listen,
            raw_path="",
            path="",
            query="",
            headers=Headers([]),
            http_version=0.0,
            forwarded_scheme="tcp",
            forwarded_host=host,
            forwarded_port=listen,
            forwarded_path="",
            forwarded_prefix=None,
            id="",
            started=time(),
        )
        configuration = gateway.configuration
        self.context = Context(
            request,
            Client(ip, port, ip, port),
            configuration.entities,
            gateway.log,
            subsystem="stream",
            node_id=gateway.node_id,
            trusts=gateway.trusts,
        )
        route = route_of(gateway.stream_routes, source, destination)
        if route is not None:
            reference = route.get("service")
            self.context.route = Route(route, gateway.services[reference["id"]] if reference else None)

    def new_connection(self) -> list[Effect]:
        """Begin: run ``preread``, or close the connection if no route fits."""
        self._connected = True
        if self.context.route is None:
            client = self.context.client
            self._gateway.log(LogLevel.WARN, f"no route fits the connection of {client.ip}:{client.port}: it is closed")
            self._close_connection("kong_no_route")
        else:
            self.context.phase = "preread"
            self._task = Task(self._gateway, self._preread(), self._done)
            self._task.resume()
        return self.host.drain()

    def _preread(self) -> Run:
        context = self.context
        for plugin, config in self._gateway.with_phase("preread", context):
            self._running = plugin.name
            yield from plugin.run("preread", context, config)
            if context.exit is not None:
                return

    def _done(self, error: Exception | None) -> None:
        context = self.context
        self._task = None
        if error is not None:
            log_failure(self._running, "preread", error)
            self._close_connection("kong_error")
        elif context.exit is not None:
            self._close_connection("kong_exit")
        elif context.route is None or context.route.service is None:
            self._gateway.log(LogLevel.WARN, "a connection is closed: its route has no service")
            self._close_connection("kong_no_service")
        else:
            self._passed = True
            self.host._emit(effects.DownstreamData(b"", False, self))

    @property
    def established(self) -> bool:
        """Whether plugins have let the connection continue."""
        return self._passed

    @property
    def downstream_full(self) -> bool:
        """Whether to stop reading from the client: true until plugins have let the connection continue."""
        return not self._passed

    def close(self, peer: PeerType = PeerType.REMOTE) -> list[Effect]:
        """Run ``log`` of the plugins, and close the stream."""
        if not self.closed:
            if self._task is not None:
                self._task.cancel()
                self._task = None
            self.context.phase = "log"
            for plugin, config in self._gateway.with_phase("log", self.context):
                self._gateway.detach(plugin.run("log", self.context, config), plugin.name, "log")
        return super().close(peer)
