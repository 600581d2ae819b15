"""One generation of the configuration: its filters in the thread of the data plane, with their host and driver.

Several generations can run at once: new requests go to the newest, and each request ends in the generation where it
began. They share services (shared data, queues, metrics), so that this state survives a reload.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar

from proxywasm_host.abi.pairs import HeaderList
from proxywasm_host.abi.types import PeerType
from proxywasm_host.abi.values import PropertyValue
from proxywasm_host.driver import filters as filter_list
from proxywasm_host.driver.dispatch import Sink
from proxywasm_host.driver.health import watch
from proxywasm_host.integrations.asgi.scope import Scope, ScopeProperties
from proxywasm_host.integrations.heads import UNSENDABLE, unsendable_headers
from proxywasm_host.integrations.properties import of_this_node
from proxywasm_host.runtime.effects import Effect
from proxywasm_host.runtime.failure import Failure
from proxywasm_host.runtime.filter_config import FilterConfig
from proxywasm_host.runtime.host import Host
from proxywasm_host.runtime.http import HttpStream
from proxywasm_host.runtime.plugin import Plugin
from proxywasm_host.runtime.rules import matching
from proxywasm_host.runtime.tcp import TcpStream
from proxywasm_host.serve.config import Settings
from proxywasm_host.serve.driver import ThreadDriver
from proxywasm_host.serve.filters import chains_of, clusters_of, filters_of, listener_of
from proxywasm_host.serve.metrics import FilterCounts
from proxywasm_host.serve.state import state_of
from proxywasm_host.serve.thread import Thread
from proxywasm_host.serve.trace import Tracer
from proxywasm_host.services import Services

__all__ = ["Generation"]

WAIT = 0.25
"""Seconds within which a failed guest must be replaced, or the server is not ready."""
logger = logging.getLogger("proxywasm_host.serve")


class RoutedProperties(ScopeProperties):
    """Properties of a request: those of the configuration, of its destination and of its connection."""

    def __init__(self, scope: Scope, given: Mapping[str, PropertyValue], routed: Mapping[str, PropertyValue]) -> None:
        self._scope, self._given, self._routed = scope, given, routed

    def __getitem__(self, name: str) -> PropertyValue:
        if name in self._routed and name not in self._given:
            return self._routed[name]
        return super().__getitem__(name)

    def __iter__(self) -> Iterator[str]:
        return iter({**dict.fromkeys(super().__iter__()), **self._routed})


class Generation:
    """One configuration. The control loop calls `start`, `stop` and `unready`, the data plane calls the last ones."""

    draining = False
    """Whether `stop` waits for the last request."""
    _driver_type: ClassVar[type[ThreadDriver]] = ThreadDriver

    def __init__(
        self,
        number: int,
        settings: Settings,
        services: Services,
        filter_counts: FilterCounts,
        tracer: Tracer,
        thread: Thread,
        filters: list[FilterConfig] | None = None,
    ) -> None:
        """Load nothing yet. `filters` are those of the settings with their required digests, if known.

        Raises: ConfigError; OSError, for a file of a filter.
        """
        self.number = number
        self.settings = settings
        self.filters: list[FilterConfig] = list(filters_of(settings)) if filters is None else filters
        self.plugins: Sequence[Plugin] = ()
        self.chains: list[list[Plugin]] = []
        """The plugins of each of `Settings.chains`."""
        self._by_request = filter_list.by_request(self.filters)
        self._filter_counts = filter_counts
        self._tracer = tracer
        self._thread = thread
        self._services = replace(services, clusters=clusters_of(settings))
        self._drained: asyncio.Event | None = None
        """Set when the last request has ended, after the generation was replaced."""

    def _make_host(self) -> Host:
        settings = self.settings
        return Host(
            settings.engine,
            profile=settings.profile,
            services=self._services,
            limits=settings.limits.limits(),
            properties=of_this_node(settings.properties),
            fetcher=settings.modules.fetcher(),
        )

    async def start(self) -> None:
        """Load the filters; a separate thread compiles them. Raises: as `Host` and `Host.load_plugin`."""
        listener = listener_of(self.settings)
        self.host = await self._thread.ask(lambda: self._make_host().__enter__())
        if listener is not None:
            self.host.add_listener(listener)
        try:
            timeout, recording = self.settings.stream_idle_timeout, self.settings.record
            record = None if recording is None else recording.record()
            self.driver = self._driver_type(self.host, self._thread, stream_idle_timeout=timeout, record=record)
            await self.driver.start()
            try:
                self.filters = await asyncio.to_thread(filter_list.pin, self.host, self.filters)
                await asyncio.to_thread(filter_list.compile, self.host, self.filters)
                await self._thread.ask(self._load)
            except BaseException:
                await self.driver.stop()
                raise
        except BaseException:
            await self._thread.ask(self._close)
            raise

    def _load(self) -> None:
        try:
            self.plugins = filter_list.load(self.host, self.filters)
            self.chains = [[self.plugins[place] for place in chain] for chain in chains_of(self.settings)]
        finally:
            self.driver.perform(self.host.drain())
        watch(self.plugins, logger, self._failed)
        self.driver.heal(self.plugins)
        self._tracer.add(self.host)

    def _close(self) -> None:
        self.host.__exit__(None, None, None)

    async def stop(self) -> None:
        """Wait for the end of the last request, and free everything."""
        drained = asyncio.Event()
        await self._thread.ask(lambda: self._drain(drained))  # new requests go elsewhere from now on
        await drained.wait()
        await self.driver.stop()
        await self._thread.ask(self._end)

    def _drain(self, drained: asyncio.Event) -> None:
        self.draining, self._drained = True, drained
        self.look_drained()

    def _end(self) -> None:
        self._tracer.remove(self.host)
        self._close()

    async def unready(self) -> list[str]:
        """Names of filters whose guest has failed, so that new requests are answered 503 until it is replaced.

        The call also replaces such a guest if that is due, because a server that is not ready may get no request.
        """
        names = await self._thread.ask(self._healed)
        if names:  # a guest that had started is replaced after the time that its start took
            await asyncio.sleep(WAIT)
            names = await self._thread.ask(self._healed)
        return names

    def _healed(self) -> list[str]:
        failed = [plugin.name for plugin in self.plugins if not plugin.closed and plugin._ready() and plugin.failure]
        self.driver.perform(self.host.drain())
        return failed

    def _failed(self, plugin: Plugin, failure: Failure) -> None:
        """Count a failure of a guest."""
        self._filter_counts.failures[plugin.name, failure.kind] += 1

    def used_up(self) -> str:
        """Why the VMs must be replaced, as text; empty if they need not be."""
        recycle = self.settings.recycle
        return recycle.recycle().why(self.plugins) if recycle else ""

    def state(self) -> list[dict[str, Any]]:
        """The filters and their VMs, for the page and for metrics."""
        return state_of(self.host, self.plugins, self.filters, self.number)

    # -- For the data plane (`dataplane/src/filters.rs`) ---------------------------------------------------------

    @property
    def sample(self) -> int:
        """One out of this many requests may be sampled."""
        return self.settings.sample

    @property
    def records(self) -> bool:
        """Whether requests may be recorded, so that `attach` must be called."""
        return self.settings.record is not None

    @property
    def makes_streams(self) -> bool:
        """Whether a stream depends on more than its chain, so that `stream` must be called."""
        return bool(self._by_request)

    def stream(self, chain: int, authority: bytes, path: bytes, properties: Mapping[str, PropertyValue]) -> HttpStream:
        """A stream for a request with this authority and path, through the filters of a chain that match it."""
        return self.host.http_stream(
            matching(self.chains[chain], authority, path, properties),
            properties=properties,
            buffer_limit=self.settings.buffer_limit,
            header_limits=None,  # the data plane has refused what is over the limit
        )

    def properties(self, scope: Scope, routed: Mapping[str, PropertyValue]) -> Mapping[str, PropertyValue]:
        """Properties of a request.

        `scope` describes its connection, as in ASGI; `routed` describes its destination, and gets more entries as the
        request proceeds.
        """
        return RoutedProperties(scope, self.settings.properties, routed)

    def connection(self, listener: int, scope: Scope, routed: Mapping[str, PropertyValue], sink: Sink) -> TcpStream:
        """A stream for a connection that the `tcp` listener of this number has accepted; `sink` gets its effects."""
        stream = self.host.tcp_stream(
            self.chains[listener - len(self.settings.tcp)],
            properties=self.properties(scope, routed),
            buffer_limit=self.settings.buffer_limit,
        )
        self.driver.attach(stream, sink)
        return stream

    def disconnected(self, stream: TcpStream, *, remote: bool) -> None:
        """Close the stream of a connection; `remote`: the client has closed it."""
        self.driver.detach(stream)
        self.driver.perform(stream.close(PeerType.REMOTE if remote else PeerType.LOCAL))
        if self.draining:
            self.look_drained()

    def attach(self, stream: HttpStream, sink: Sink) -> None:
        """Record a request; `sink` gets the effects of its stream that no event returns."""
        self.driver.attach(stream, sink)

    def look(self, stream: HttpStream, passed: int, method: bytes, path: bytes) -> bool:
        """Whether to sample this request, one of `passed` since the last call. If so, call `looked` at its end."""
        return self._tracer.begin(stream, self.number, method, path, passed)

    def looked(self, stream: HttpStream) -> None:
        """Note the end of a sampled request."""
        self._tracer.end(stream)

    def look_drained(self) -> None:
        """Wake `stop` if the last request has ended. Called while `draining`."""
        if self._drained is not None and not self.driver.streams:
            self._thread.call_control_loop(self._drained.set)

    def perform(self, effects: list[Effect]) -> None:
        """Perform effects that are not part of a message."""
        self.driver.perform(effects)

    def unsendable(self, what: str, headers: HeaderList) -> None:
        """Log that a ``request`` or ``response`` of filters cannot be sent."""
        logger.warning(UNSENDABLE, what, unsendable_headers(headers))
