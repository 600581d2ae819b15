"""The plugins, routes and filters of one configuration in one host, which all of its requests share."""

from __future__ import annotations

import ipaddress
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any
from uuid import uuid4

from proxywasm_host.abi.types import LogLevel
from proxywasm_host.kong.config import Configuration
from proxywasm_host.kong.context import Context
from proxywasm_host.kong.plugin import Effect, HttpReply, Plugin, PluginFailed, Run, Sleep, StartTimer
from proxywasm_host.kong.router import Router, is_served, stream_routes
from proxywasm_host.kong.task import Answer, PluginCallout, Task
from proxywasm_host.runtime import plugin as wasm
from proxywasm_host.runtime.effects import Callout, CancelCallout, HttpCallReply
from proxywasm_host.runtime.host import Host
from proxywasm_host.services import GuestLog

__all__ = ["Gateway", "log_failure"]

logger = logging.getLogger("proxywasm_host.kong")
FREE = 1 << 16
"""Most timers that wait or run at once, like nginx's ``lua_max_pending_timers``."""


def log_failure(plugin: str, phase: str, error: Exception) -> None:
    """Log why a plugin's code failed, with the traceback of an error that is not the plugin's."""
    if isinstance(error, PluginFailed):
        logger.error("plugin %s failed in %s: %s", plugin, phase, error)
    else:
        logger.error("plugin %s failed in %s", plugin, phase, exc_info=error)


class Gateway:
    """One running configuration. It is created and used in the thread of its host.

    Args:
        host: the host of the filters, with the profile ``wasmx``.
        configuration: the file's content.
        plugins: the loaded plugins that it names, by name.
        filters: the running filters, by the id of the service or route of their chain.
        servers: plugin servers by name, for the embedder, which performs effects.
        trusted: networks of proxies whose ``X-Forwarded-…`` are trusted (``KONG_TRUSTED_IPS``).
        real_ip_header: the header in which they name the client, in lower case.
    """

    name = "kong"
    """The name of plugins' callouts in a driver's log."""

    def __init__(
        self,
        host: Host,
        configuration: Configuration,
        plugins: Mapping[str, Plugin],
        filters: Mapping[str, Sequence[wasm.Plugin]],
        *,
        servers: Mapping[str, Any] | None = None,
        trusted: Iterable[str] = (),
        real_ip_header: str = "x-real-ip",
    ) -> None:
        self.host = host
        self.configuration = configuration
        self.filters = filters
        self.servers = {} if servers is None else servers
        self.real_ip_header = real_ip_header
        self._trusted = [ipaddress.ip_network(each, strict=False) for each in trusted]
        self._plugins = sorted(plugins.values(), key=lambda plugin: (plugin.priority, plugin.name), reverse=True)
        self._configs: dict[str, dict[tuple[str | None, ...], Any]] = {}
        self._of_streams: dict[str, dict[tuple[str | None, ...], Any]] = {}
        """Configurations of plugins for requests, and for connections."""
        for use in configuration.plugins:
            checked = plugins[use.name].check(use.config)
            if set(use.protocols) != {"tcp"}:
                self._configs.setdefault(use.name, {})[use.route, use.service, use.consumer] = checked
            if "tcp" in use.protocols:
                self._of_streams.setdefault(use.name, {})[use.route, use.service, use.consumer] = checked
        self.services = {service["id"]: service for service in configuration.of("services")}
        self.upstreams = {upstream["name"]: upstream for upstream in configuration.of("upstreams")}
        routes = [route for route in configuration.of("routes") if is_served(route, self.services)]
        self.stream_routes = stream_routes(routes)
        self.router = Router([route for route in routes if "tcp" not in route["protocols"]])
        self.node_id = str(uuid4())
        self._token = 0
        self._tasks: dict[int, Task] = {}
        self._timers: set[Task] = set()

    # -- Plugins -------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Run ``init_worker`` and ``configure`` of all plugins."""
        for plugin in self._plugins:
            by_place = {**self._of_streams.get(plugin.name, {}), **self._configs.get(plugin.name, {})}
            configs = list(by_place.values())
            for phase, config in (("init_worker", None), ("configure", configs or None)):
                if phase in plugin.phases:
                    self.detach(plugin.run(phase, None, config), plugin.name, phase)

    def with_phase(self, phase: str, context: Context) -> Iterator[tuple[Plugin, Any]]:
        """The plugins that have a phase in this request, by priority, each with its configuration.

        Each configuration is looked up at the plugin's turn, because an earlier plugin may have set the consumer.
        """
        for plugin in self._plugins:
            config = self.config_of(plugin, context) if phase in plugin.phases else None
            if config is not None:
                yield plugin, config

    def config_of(self, plugin: Plugin, context: Context) -> Any:
        """The most specific configuration of a plugin for this request; ``None`` if it has none."""
        configs = (self._configs if context.subsystem == "http" else self._of_streams).get(plugin.name)
        if not configs:
            return None
        route = context.route.route["id"] if context.route else None
        service = context.route.service["id"] if context.route and context.route.service else None
        consumer = context.consumer["id"] if context.consumer else None
        for key in (
            *((route, service, consumer), (route, None, consumer), (None, service, consumer), (route, service, None)),
            *((None, None, consumer), (route, None, None), (None, service, None), (None, None, None)),
        ):
            if key in configs:
                return configs[key]
        return None

    def has_phase(self, phase: str, context: Context) -> bool:
        """Whether a plugin has this phase in this request."""
        return next(self.with_phase(phase, context), None) is not None

    # -- Filters -------------------------------------------------------------------------------------------------

    def chain(self, context: Context) -> list[wasm.Plugin]:
        """The filters of a request: those of its service, then those of its route."""
        route = context.route
        if route is None:
            return []
        of_service = self.filters.get(route.service["id"], ()) if route.service else ()
        return [*of_service, *self.filters.get(route.route["id"], ())]

    # -- Effects -------------------------------------------------------------------------------------------------

    @property
    def _root(self) -> Gateway:
        """The receiver of replies, for `Host.deliver`."""
        return self

    def call(self, task: Task, effect: Effect) -> int:
        """Emit an effect of a task. Returns its token."""
        self._token = self._token + 1 & 0x7FFFFFFF or 1
        self._tasks[self._token] = task
        self.host._emit(PluginCallout(self, self._token, effect, background=task.background))
        return self._token

    def cancel(self, token: int) -> None:
        """Cancel a callout: its reply is dropped."""
        self._tasks.pop(token, None)
        self.host._emit(CancelCallout(self, token))  # type: ignore[arg-type]

    def deliver(self, callout: Callout, reply: Any) -> None:
        """Resume the task that waits for this reply."""
        task = self._tasks.pop(callout.token, None)
        if task is None:
            return
        if isinstance(reply, Answer):
            task.resume(reply.value)
        elif isinstance(reply, HttpCallReply) and not reply.failure:
            status = next((int(value) for name, value in reply.headers if name == b":status"), 200)
            headers = [pair for pair in reply.headers if pair[0][:1] != b":"]
            task.resume(HttpReply(status, headers, reply.body))
        else:
            task.resume(failure=getattr(reply, "failure", None) or getattr(reply, "reason", None) or "no answer")

    def start_timer(self, timer: StartTimer) -> None:
        """Run the generator of a timer, after its time."""

        def later() -> Run:
            yield Sleep(timer.seconds)
            yield from timer.run

        if len(self._timers) >= FREE:
            logger.error("%d timers wait or run: no more are started", FREE)
            timer.run.close()
        else:
            self.detach(later() if timer.seconds > 0 else timer.run, "timer", "timer", background=True)

    def detach(self, run: Run, plugin: str, phase: str, *, background: bool = False) -> None:
        """Run a generator that belongs to no request, or to one that has ended. Its failure is logged."""

        def done(error: Exception | None) -> None:
            self._timers.discard(task)
            if error is not None:
                log_failure(plugin, phase, error)

        task = Task(self, run, done, background=background)
        self._timers.add(task)
        task.resume()

    def close(self) -> None:
        """End all generators that still run."""
        for task in list(self._timers):
            task.cancel()
        self._timers.clear()

    # -- Others --------------------------------------------------------------------------------------------------

    def log(self, level: LogLevel, message: str) -> None:
        """Log a line of a plugin."""
        self.host.services.log.log(GuestLog("kong", level, message, 0))

    def trusts(self, address: str) -> bool:
        """Whether an address belongs to a trusted proxy."""
        if not self._trusted:
            return False
        try:
            ip = ipaddress.ip_address(address)
        except ValueError:
            return False
        return any(ip in network for network in self._trusted)
