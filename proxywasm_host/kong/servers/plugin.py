"""The gateway's interface to a plugin of a plugin server."""

from __future__ import annotations

import json
from collections.abc import Generator, Mapping
from typing import Any

from proxywasm_host.errors import ConfigError
from proxywasm_host.kong.context import Context
from proxywasm_host.kong.plugin import EffectFailed, PluginFailed, ReadRequestBody, Run, ServerCall, Signal, Wait
from proxywasm_host.kong.schema import check_record
from proxywasm_host.kong.servers.events import Called, Done, Refused, Started
from proxywasm_host.kong.servers.pdk import FUNCTIONS, TERMINAL
from proxywasm_host.kong.servers.pool import Ask, Connection, Said

__all__ = ["ServerPlugin"]

PHASES = frozenset({"rewrite", "access", "response", "log", "preread"})
"""The phases that a server can run."""
OF_STREAMS = (
    *("kong.client.", "kong.ctx.", "kong.ip.", "kong.log", "kong.nginx.", "kong.node.", "kong.router."),
    "kong.response.exit",
)
"""Prefixes of the functions that plugins may call for a connection, which has no request."""
NO_INSTANCE = "no plugin instance"
"""Beginning of a server's refusal if it no longer has the instance (Kong's own rule)."""


class ServerPlugin:
    """One plugin. It keeps the server's instances by configuration, while the server runs."""

    def __init__(self, server: str, info: Mapping[str, Any]) -> None:
        """`info` is the output of the server's query command. Raises: ConfigError."""
        self._server = server
        try:
            self.name: str = info["Name"]
            self.priority = int(info.get("Priority") or 0)
            self.version = str(info.get("Version") or "")
            self.phases = frozenset(info.get("Phases") or ()) & PHASES
            fields = {name: field for each in info["Schema"]["fields"] for name, field in each.items()}
            self._fields: list[Mapping[str, Any]] = fields["config"].get("fields") or []
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise ConfigError(f"plugin server {server}: cannot read its description of a plugin: {error!r}") from None
        self._instances: dict[tuple[int, str], int] = {}
        self._starting: dict[str, Signal] = {}
        """Instances that are being started, by configuration; other runs wait for them."""

    def check(self, config: Mapping[str, Any]) -> dict[str, Any]:
        """The configuration with its defaults. Raises: ConfigError."""
        return check_record(self._fields, config, "config")

    def run(self, phase: str, context: Context | None, config: Any) -> Run:
        """Run one phase: the server calls functions of the PDK by name, and gets their results."""
        if context is None:
            return
        text = json.dumps(config, sort_keys=True)
        for last in (False, True):
            try:
                connection, said = yield from self._begin(phase, text)
            except EffectFailed as failure:
                if last:
                    raise PluginFailed(f"plugin server {self._server}: {failure}") from None
                continue
            if isinstance(said, Refused):
                if last or not said.message.startswith(NO_INSTANCE):
                    raise PluginFailed(f"plugin server {self._server}: {said.message}")
                self._instances.pop((connection.epoch, text), None)
                continue
            try:
                yield from self._handle(connection, said, context)
            except EffectFailed as failure:
                raise PluginFailed(f"plugin server {self._server}: {failure}") from None
            return

    def _begin(self, phase: str, config: str) -> Generator[Any, Any, tuple[Connection, Any]]:
        """Begin an event, and start an instance first if there is none."""
        while True:
            newest = max((epoch for epoch, text in self._instances if text == config), default=None)
            if newest is not None:
                said: Said = yield self._ask(None, "handle_event", self._instances[newest, config], phase)
                if said.connection.epoch == newest:
                    return said.connection, said.event
                said.connection.close()  # the instance belongs to an earlier start of the server
                self._instances.pop((newest, config), None)
            elif config in self._starting:
                failure = yield Wait(self._starting[config])
                if failure is not None:
                    raise EffectFailed(failure)
            else:
                said = yield from self._start(config)
                if not isinstance(said.event, Started):
                    return said.connection, said.event
                said = yield self._ask(said.connection, "handle_event", said.event.instance, phase)
                return said.connection, said.event

    def _start(self, config: str) -> Generator[Any, Any, Said]:
        """Start an instance for all runs that wait for it. They share a failure, so none waits for another time-out."""
        started = self._starting[config] = Signal()
        failure: str | None = None
        try:
            said: Said = yield self._ask(None, "start_instance", self.name, config)
            if isinstance(said.event, Started):
                self._instances[said.connection.epoch, config] = said.event.instance
            elif isinstance(said.event, Refused):
                failure = said.event.message
        except EffectFailed as error:
            failure = str(error)
            raise
        finally:
            del self._starting[config]
            started.give(failure)
        return said

    def _ask(self, connection: Connection | None, method: str, *arguments: Any) -> ServerCall:
        return ServerCall(self._server, Ask(connection, method, arguments))

    def _handle(self, connection: Connection, event: Any, context: Context) -> Run:
        """Answer the plugin's calls until it has finished or ended the request."""
        while isinstance(event, Called):
            method, arguments = event.method, event.arguments
            if method == "kong.request.get_raw_body":
                try:
                    yield ReadRequestBody()
                except GeneratorExit:
                    connection.close()  # the client has left
                    raise
            if context.subsystem == "stream" and not method.startswith(OF_STREAMS):
                connection.close()  # the server's PDK would wait for an answer
                raise PluginFailed(f"plugin server {self._server}: {method} is not for connections")
            function = FUNCTIONS.get(method)
            try:
                if function is None:
                    raise LookupError(f"{method} is not supported")  # noqa: TRY301 - reported to the plugin like other errors
                result = function(context, *arguments)
            except Exception as error:  # noqa: BLE001 - the plugin may pass anything
                said = yield self._ask(connection, "answer_error", method, str(error))
            else:
                if method in TERMINAL:
                    connection.close()  # as in Kong, it is never answered
                    return
                said = yield self._ask(connection, "answer", method, result)
            event = said.event
        if isinstance(event, Refused):
            raise PluginFailed(f"plugin server {self._server}: {event.message}")
        assert isinstance(event, Done)  # noqa: S101 - the last kind of event
