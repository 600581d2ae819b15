"""A worker: a host, its driver and its chain in one event loop, like a worker thread of Envoy.

worker = Worker(lambda: Host(services=services), ["auth.wasm"])
async with anyio.create_task_group() as group:
    group.start_soon(worker.run)
    await worker.ready()
    …
    await worker.stop()
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence

from proxywasm_host import remedy

try:
    import anyio
    import anyio.to_thread
except ModuleNotFoundError as error:
    raise remedy.missing("http", error) from None

from proxywasm_host.abi.values import PropertyValue
from proxywasm_host.driver import filters as filter_list
from proxywasm_host.driver.asynchronous import AsyncClient, AsyncDriver
from proxywasm_host.driver.dispatch import logger
from proxywasm_host.driver.filters import AnyFilter
from proxywasm_host.driver.health import FilterHealth, OnFailure, watch
from proxywasm_host.driver.recycle import EACH, LATER, Recycle
from proxywasm_host.driver.refresh import Refresher
from proxywasm_host.recording.record import Record
from proxywasm_host.runtime.effects import Callout
from proxywasm_host.runtime.filter_config import FilterConfig
from proxywasm_host.runtime.host import Host
from proxywasm_host.runtime.plugin import Plugin
from proxywasm_host.runtime.rules import matching

__all__ = ["Worker"]


class Worker:
    """Runs a chain of filters in this event loop, from `run` to `stop`.

    Args:
        make_host: makes the host, which only this worker uses.
        filters: the chain, in the order of the request.
        clients, stream_idle_timeout, record: see `AsyncDriver`.
        recycle: when the filters get new VMs. ``None``: only after failures.
        logger: for reports of failed guests.
        on_failure: called with each failure.
    """

    host: Host
    driver: AsyncDriver
    plugins: Sequence[Plugin] = ()
    """The chain for new streams."""
    by_request = False
    """Whether some filters of the chain apply only to certain requests."""
    running = False
    """Whether the filters are loaded and the worker has not ended."""
    filter_healths: Sequence[FilterHealth] = ()
    """The health of each filter of the chain."""

    def __init__(
        self,
        make_host: Callable[[], Host],
        filters: Iterable[AnyFilter],
        clients: Mapping[type[Callout], AsyncClient] | None = None,
        *,
        logger: logging.Logger = logger,
        on_failure: OnFailure = None,
        stream_idle_timeout: float | None = None,
        record: Record | None = None,
        recycle: Recycle | None = None,
    ) -> None:
        self._make_host = make_host
        self._filters = filter_list.chain(filters)
        self._clients = clients
        self._logger = logger
        self._on_failure = on_failure
        self._stream_idle_timeout = stream_idle_timeout
        self._record = record
        self._recycle = recycle
        self._error: Exception | None = None
        self._ready = anyio.Event()
        self._stop = anyio.Event()
        self._stopped = anyio.Event()

    async def run(self) -> None:
        """Load the filters, run until `stop`, and free everything.

        `ready` raises the error of a failed start. A later error that ends the worker is logged; other workers
        continue.
        """
        try:
            with self._make_host() as self.host:
                driver = AsyncDriver(
                    self.host, self._clients, stream_idle_timeout=self._stream_idle_timeout, record=self._record
                )
                async with driver as self.driver:
                    await self._change(self._filters)
                    self.running = True
                    self._ready.set()
                    try:
                        async with anyio.create_task_group() as group:
                            group.start_soon(self._refresh)
                            group.start_soon(self._recycled)
                            await self._stop.wait()
                            group.cancel_scope.cancel()
                    finally:
                        self.running = False  # before the driver ends, which takes no more requests
        except Exception as error:
            if self._ready.is_set():
                self._logger.exception("the worker ended, with its filters")
            else:
                self._error = error
        finally:
            self.running = False
            self._ready.set()
            self._stopped.set()

    def chain_of(self, authority: bytes, path: bytes, properties: Mapping[str, PropertyValue]) -> Sequence[Plugin]:
        """The plugins that a request passes (see `matching`)."""
        return matching(self.plugins, authority, path, properties)

    @property
    def ended(self) -> bool:
        """Whether the worker has begun to end after a successful start."""
        return self._ready.is_set() and not self.running and self._error is None

    async def ready(self) -> None:
        """Wait until the filters are loaded. Raises the errors of `Host` and `Host.load_plugin`."""
        await self._ready.wait()
        if self._error is not None:
            raise self._error

    async def stop(self) -> None:
        """End the plugins and free their VMs. Streams should have ended before."""
        self._stop.set()
        await self._stopped.wait()

    async def reload(self, filters: Iterable[AnyFilter]) -> None:
        """Load another chain for new streams, next to the present one, on which its streams end.

        Raises: the errors of `Host.load_plugin`; then nothing has changed.
        """
        await self._change(filter_list.chain(filters))

    async def _change(self, filters: list[FilterConfig]) -> None:
        pinned = await anyio.to_thread.run_sync(filter_list.pin, self.host, filters)
        await self._load(pinned)
        self._refresher = Refresher(filters, pinned, self.host.pin)

    async def _load(self, filters: list[FilterConfig]) -> None:
        """Replace the present filters. A thread compiles the new ones, which takes seconds."""
        await anyio.to_thread.run_sync(filter_list.compile, self.host, filters)
        try:
            plugins = filter_list.load(self.host, filters)
        finally:
            self.driver.perform(self.host.drain())
        old, self.plugins = self.plugins, plugins
        self.by_request = filter_list.by_request(filters)
        self.filter_healths = watch(plugins, self._logger, self._on_failure)
        self.driver.heal(plugins)
        for plugin in old:
            self.driver.perform(plugin.close())

    async def _recycled(self) -> None:
        """Replace VMs as `Recycle` says, until cancelled. Filters that cannot be loaded again keep their VMs."""
        wait = EACH
        while self._recycle is not None:
            await anyio.sleep(wait)
            wait = EACH
            why = self._recycle.why_now(self.host, self.plugins)
            if not why:
                continue
            self.host.renew()
            try:
                await self._load(self._refresher.pinned)
            except Exception:
                self._logger.exception("%s, but no new VM can be loaded: the old one continues", why)
                wait = LATER
            else:
                self._logger.info("%s: filters have new VMs, and current requests end on the old ones", why)

    async def _refresh(self) -> None:
        """Look for newer modules at intervals, until cancelled."""
        while self.host.fetcher.refresh_interval is not None:
            await anyio.sleep(self.host.fetcher.refresh_interval)
            refresher = self._refresher
            for place in refresher.places:
                chain = await anyio.to_thread.run_sync(refresher.newer, place, self._logger, abandon_on_cancel=True)
                if chain is None or refresher is not self._refresher:  # `reload` has changed the chain meanwhile
                    continue
                try:
                    await self._load(chain)
                except Exception as error:  # noqa: BLE001 - it is logged
                    refresher.refused(chain, place, error, self._logger)
                else:
                    refresher.loaded(chain, place, self._logger)
