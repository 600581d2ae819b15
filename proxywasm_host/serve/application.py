"""``serve`` in one process: the thread of the data plane, and the control loop (asyncio) next to it."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

from proxywasm_host.abi.types import LogLevel
from proxywasm_host.driver.recycle import EACH, LATER, MAX_RETIRED
from proxywasm_host.driver.refresh import Refresher
from proxywasm_host.errors import ConfigError
from proxywasm_host.runtime.filter_config import FilterConfig
from proxywasm_host.serve.config import Settings
from proxywasm_host.serve.dataplane_config import dataplane_config
from proxywasm_host.serve.filters import filters_of
from proxywasm_host.serve.generation import Generation
from proxywasm_host.serve.metrics import SEPARATOR, FilterCounts
from proxywasm_host.serve.reload import reload
from proxywasm_host.serve.server import at, bound, make_room
from proxywasm_host.serve.source import Source
from proxywasm_host.serve.state import resident_bytes
from proxywasm_host.serve.thread import Thread
from proxywasm_host.serve.trace import Tracer
from proxywasm_host.services import Services, StandardLogging
from proxywasm_host.services.shared import Shared, with_shared

__all__ = ["Application"]

FIXED = (
    *("listen", "workers", "threads", "admin", "admin_hosts", "metric_tags", "watch", "shared", "shm_kv", "shm_queue"),
    *("shutdown_timeout", "sample", "log_level"),
)
"""Settings that cannot change while the server runs."""
IDLE = 60.0
"""Seconds between checks of `refresh_interval` while it is off."""
logger = logging.getLogger("proxywasm_host.serve")


class Application:
    """Serves requests from `start` to `stop`, with the newest configuration that loads."""

    _generation_type = Generation
    generation: Generation
    _shared: Shared
    loaded = False
    """Whether the filters are loaded."""
    pid = 0
    """Id of the process; in further threads, the thread's id, which no process has."""

    def __init__(
        self,
        source: Source[Settings],
        settings: Settings,
        listening: Sequence[socket.socket] | None,
        shared: str = "memory",
        *,
        first: Application | None = None,
    ) -> None:
        """Serve on `listening`, sockets of `bind`; with ``None``, load everything but accept no connections.

        `shared` says which processes share the state of filters; see `open_shared`. `first`, which has started in this
        process, shares the state of its filters with this application.
        """
        self._first = first
        self._source = source
        self._choice = shared
        self._settings = settings
        self._listening = listening
        self._stopping: set[asyncio.Task[None]] = set()

    @staticmethod
    @contextmanager
    def bind(settings: Settings) -> Iterator[Sequence[socket.socket]]:
        """Sockets that all processes listen on: one for HTTP if it is served, then one for each of `Settings.tcp`.

        The limit of open files is raised to the number that their connections need. Raises: ConfigError.
        """
        make_room(settings)
        with ExitStack() as stack:
            addresses = [settings.listen] * settings.serves_http + [each.listen for each in settings.tcp]
            yield [stack.enter_context(bound(address)) for address in addresses]

    @staticmethod
    def addresses(settings: Settings, listening: Sequence[socket.socket]) -> list[str]:
        """The URLs of the sockets, for messages."""
        http = [f"http{'s' if settings.tls else ''}"] * settings.serves_http
        schemes = http + ["tls" if each.tls else "tcp" for each in settings.tcp]
        return [f"{scheme}://{at(each)}" for scheme, each in zip(schemes, listening, strict=True)]

    @classmethod
    def in_process(
        cls, source: Source[Settings], settings: Settings, listening: Sequence[socket.socket], shared: str
    ) -> list[Application]:
        """The applications of a process, one for each thread."""
        first = cls(source, settings, listening, shared)
        return [first, *(cls(source, settings, listening, shared, first=first) for _ in range(settings.threads - 1))]

    async def start(self) -> None:
        """Load the filters. Raises: ProxyWasmError."""
        self.pid = os.getpid()
        settings = self._settings
        try:
            self._shared = self._first._shared if self._first else settings.open_shared(self._choice)
        except ValueError as error:  # such as a warning of redis-py
            raise ConfigError(f"shared: {error}") from None
        level = LogLevel[settings.log_level.upper()]
        self._services = with_shared(Services(log=StandardLogging(level)), self._shared)
        self._filter_counts = FilterCounts()
        self._thread = Thread(self._listening or (), http=settings.serves_http)
        native = self._thread.native
        self._tracer = Tracer(self._filter_counts, settings.sample, native.call_later, native.look_at_all)
        self._reloading = asyncio.Lock()
        self._thread.start()
        if self._first:
            self.pid = self._thread.id
        try:
            self.generation = await self._load(1, settings)
        except BaseException:
            await self._thread.end()
            await self._close_shared()
            raise
        self._refresher = self._new_refresher()
        self._refreshing = asyncio.ensure_future(self._refresh())
        self.loaded = True
        self._recycling = asyncio.ensure_future(self._recycle())

    def _new_refresher(self) -> Refresher:
        generation = self.generation
        return Refresher(list(filters_of(generation.settings)), generation.filters, generation.host.pin)

    async def _refresh(self) -> None:
        """Look for newer modules at intervals."""
        while True:
            interval = self.generation.settings.modules.refresh_interval
            await asyncio.sleep(interval or IDLE)
            refresher = self._refresher
            for place in refresher.places if interval else ():
                chain = await asyncio.to_thread(refresher.newer, place, logger)
                async with self._reloading:
                    if chain is None or refresher is not self._refresher:  # a `reload` came first
                        continue
                    await self._exchange(refresher, chain, place)

    async def _exchange(self, refresher: Refresher, chain: list[FilterConfig], place: int) -> None:
        """Replace the running filters with filters of newer modules, if those can be loaded."""
        generation = self.generation
        try:
            self._replace(await self._load(generation.number + 1, generation.settings, chain))
        except Exception as error:  # noqa: BLE001 - it is logged
            self._filter_counts.reloads["refused",] += 1
            refresher.refused(chain, place, error, logger)
        else:
            self._filter_counts.reloads["loaded",] += 1
            refresher.loaded(chain, place, logger)

    async def _load(self, number: int, settings: Settings, filters: list[FilterConfig] | None = None) -> Generation:
        """Load a generation, and use it for new requests."""
        try:
            generation = self._generation_type(
                number, settings, self._services, self._filter_counts, self._tracer, self._thread, filters
            )
            await generation.start()
        except OSError as error:
            raise ConfigError(f"cannot read the filter {error.filename}: {error.strerror}") from None
        filtered = any(number is not None for number in settings.chain_numbers)
        try:
            self._thread.native.use_chain(dataplane_config(settings), generation if filtered else None)
        except ValueError as error:
            await generation.stop()
            raise ConfigError(str(error)) from None
        return generation

    async def reload(self) -> str:
        """Read the configuration again and replace the running one. Returns the reason if that fails, else ``""``."""
        async with self._reloading:
            refused = await reload(self._source, self._use, self._filter_counts, FIXED, self._settings)
            if not refused:
                self._refresher = self._new_refresher()
            return refused

    async def _use(self, settings: Settings) -> None:
        first = self._settings
        if [each.listen for each in settings.tcp] != [each.listen for each in first.tcp]:
            raise ConfigError("tcp: changed listeners take effect after a restart")
        if settings.serves_http != first.serves_http:
            raise ConfigError("HTTP can be turned on or off only by a restart")
        self._replace(await self._load(self.generation.number + 1, settings))

    def _replace(self, generation: Generation) -> None:
        """Make `generation` the running one; the old one ends after its last request."""
        old, self.generation = self.generation, generation
        stopping = asyncio.ensure_future(old.stop())
        self._stopping.add(stopping)
        stopping.add_done_callback(self._stopping.discard)

    async def _recycle(self) -> None:
        """Replace VMs that are due, until cancelled. Filters that cannot be reloaded keep their VMs."""
        wait = EACH
        while True:
            await asyncio.sleep(wait)
            wait = EACH
            if self.generation.settings.recycle is None or len(self._stopping) >= MAX_RETIRED:
                continue
            async with self._reloading:
                old = self.generation
                why = await self._thread.ask(old.used_up)
                if not why:
                    continue
                try:
                    self._replace(await self._load(old.number + 1, old.settings, old.filters))
                except Exception:
                    logger.exception("%s, but no new VM can be loaded: the old one continues", why)
                    wait = LATER
                else:
                    self._filter_counts.reloads["recycled",] += 1
                    logger.info("%s: filters have new VMs, and current requests end on the old ones", why)

    async def close(self) -> None:
        """Accept no more requests, and let the current ones end within `shutdown_timeout`."""
        self._recycling.cancel()
        self._refreshing.cancel()
        for each in self._listening or ():
            each.close()
        await self._thread.close(self._settings.shutdown_timeout)

    async def stop(self) -> None:
        """Free everything. Requests that still run are cut off."""
        self._recycling.cancel()
        await asyncio.wait([*self._stopping, asyncio.ensure_future(self.generation.stop())], timeout=1)
        await self._thread.end()
        await self._close_shared()

    async def _close_shared(self) -> None:
        if self._first is None:
            await asyncio.to_thread(self._shared.close)

    # -- For the admin port --------------------------------------------------------------------------------------

    async def snapshot(self) -> dict[str, Any]:
        """The metrics and the state, as JSON values."""
        return await self._with_guests(self._counted)

    async def unready(self) -> list[str]:
        """Names of the filters without a working guest; empty if requests can be served."""
        return await self.generation.unready()

    async def live(self, since: int) -> dict[str, Any]:
        """The same, with the requests that have changed since change number `since`. Starts to watch requests."""
        return await self._with_guests(lambda: self._watched(since))

    @property
    def shares(self) -> bool:
        """Whether other processes or threads count the same metrics of filters."""
        return self._choice != "memory" or self._settings.threads > 1

    async def _with_guests(self, count: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """The result of `count` in the thread, and the metrics of filters, which a server may have."""
        guests = await asyncio.to_thread(self._shared.metrics.snapshot)
        return {**await self._thread.ask(count), "guests": guests, "shared": self.shares}

    def _counted(self) -> dict[str, Any]:
        """The thread's part of `snapshot`. Called in the thread."""
        chain = self.generation.state()
        vms = {plugin["vm"]: plugin for plugin in chain}
        return {
            "pid": self.pid,
            "generation": self.generation.number,
            "retired": len(self._stopping),
            "upstream": self.generation.settings.behind,
            "chain": chain,
            "ours": {
                **self._thread.native.counts(),
                **self._filter_counts.snapshot(),
                "resident_bytes": 0 if self._first else resident_bytes(),
                "memory": {plugin["name"]: plugin["memory"] for plugin in vms.values()},
                "restarts": {plugin["name"]: plugin["restarts"] for plugin in chain},
                "vms": {f"{plugin['name']}{SEPARATOR}{self.pid}": plugin["usage"] for plugin in vms.values()},
            },
        }

    def _watched(self, since: int) -> dict[str, Any]:
        """The thread's part of `live`. Called in the thread."""
        self._tracer.watch()
        changes, requests = self._tracer.since(since)
        return {**self._counted(), "changes": changes, "requests": requests}
