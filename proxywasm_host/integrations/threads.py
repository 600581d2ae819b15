"""The base of carriers in threads: one host serves all threads of a process.

It starts with the process's first request (so after a server has forked) and ends with `ThreadCarrier.close`, or with
the process.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager

from proxywasm_host.abi.values import PropertyValue
from proxywasm_host.driver import filters as filter_list
from proxywasm_host.driver.health import FilterHealth, watch
from proxywasm_host.driver.recycle import EACH, LATER, Recycle
from proxywasm_host.driver.refresh import Refresher
from proxywasm_host.driver.threaded import ThreadDriver
from proxywasm_host.forks import renew_in_children
from proxywasm_host.integrations.carrier import Carrier
from proxywasm_host.runtime.filter_config import FilterConfig
from proxywasm_host.runtime.http import HttpStream
from proxywasm_host.runtime.plugin import Plugin
from proxywasm_host.runtime.rules import matching

__all__ = ["ThreadCarrier"]


class ThreadCarrier(Carrier):
    """Base of carriers in threads. Args: those of `Carrier`; `clients` are those of `ThreadDriver`."""

    def _set_up(self) -> None:
        self._forked()
        renew_in_children(self)

    def _forked(self) -> None:
        """Begin without a host: a child has its own, and must not close its parent's."""
        self._starting = threading.Lock()
        self._running: tuple[ThreadDriver, list[Plugin]] | None = None
        self._watched: list[FilterHealth] = []
        self._by_request = False
        self._closing = ExitStack()

    def start(self) -> tuple[ThreadDriver, list[Plugin]]:
        """Load the filters, unless this process has loaded them. The first request calls it.

        Raises: as `Host.load_plugin`.
        """
        with self._starting:
            if self._running is None:
                with ExitStack() as opened:
                    host, timeout = opened.enter_context(self._make_host()), self._stream_idle_timeout
                    driver = ThreadDriver(host, self._clients, stream_idle_timeout=timeout, record=self._record)
                    opened.enter_context(driver)
                    filters = filter_list.chain(self.filters)
                    pinned = filter_list.pin(host, filters)
                    running = driver, self._load(driver, pinned)
                    refresher = Refresher(filters, pinned, host.pin)
                    if refresher.places and host.fetcher.refresh_interval is not None:
                        opened.enter_context(self._refreshing(driver, refresher, host.fetcher.refresh_interval))
                    if self._recycle is not None:
                        opened.enter_context(self._recycling(driver, refresher, self._recycle))
                    self._closing = opened.pop_all()
                self._running = running
            return self._running

    def _load(self, driver: ThreadDriver, filters: list[FilterConfig]) -> list[Plugin]:
        """Load filters for new requests. Other threads continue during compilation, which takes seconds."""
        filter_list.compile(driver.host, filters)
        with driver.lock:
            try:
                plugins = filter_list.load(driver.host, filters)
            finally:
                driver.perform(driver.host.drain())
            self._watched = watch(plugins, self.logger, self._on_failure)
            driver.heal(plugins)
            self._by_request = filter_list.by_request(filters)
        return plugins

    @contextmanager
    def _refreshing(self, driver: ThreadDriver, refresher: Refresher, seconds: float) -> Iterator[None]:
        """Look for newer modules in a thread, every so many `seconds`."""
        over, exchanging = threading.Event(), threading.Lock()

        def refresh() -> None:
            while not over.wait(seconds):
                for place in refresher.places:
                    chain = refresher.newer(place, self.logger)
                    with exchanging:
                        if chain is not None and not over.is_set():
                            self._exchange(driver, refresher, chain, place)

        thread = threading.Thread(target=refresh, name="proxywasm-refresh", daemon=True)
        thread.start()
        yield
        over.set()
        with exchanging:  # the host closes next, so wait until nothing loads into it
            pass

    @contextmanager
    def _recycling(self, driver: ThreadDriver, refresher: Refresher, recycle: Recycle) -> Iterator[None]:
        """Replace VMs that have reached a limit, in a thread; filters that cannot be loaded again keep theirs."""
        over, exchanging = threading.Event(), threading.Lock()

        def look() -> float:
            with driver.lock:
                running = self._running
                why = recycle.why_now(driver.host, running[1]) if running else ""
                if not why:
                    return EACH
                driver.host.renew()
            try:
                plugins = self._load(driver, refresher.pinned)
            except Exception:
                self.logger.exception("%s, but no new VM can be loaded: the old one continues", why)
                return LATER
            if self._replace(driver, plugins):
                self.logger.info("%s: filters have new VMs, and current requests end on the old ones", why)
            return EACH

        def recycled() -> None:
            wait = EACH
            while not over.wait(wait):
                with exchanging:
                    if not over.is_set():
                        wait = look()

        thread = threading.Thread(target=recycled, name="proxywasm-recycle", daemon=True)
        thread.start()
        yield
        over.set()
        with exchanging:  # the host closes next, so wait until nothing loads into it
            pass

    def _replace(self, driver: ThreadDriver, plugins: list[Plugin]) -> bool:
        """Replace the running chain. Returns false if the host is being closed."""
        with driver.lock:
            running = self._running
            if running is None or running[0] is not driver:
                return False
            self._running = driver, plugins
            for plugin in running[1]:
                driver.perform(plugin.close())
        return True

    def _exchange(self, driver: ThreadDriver, refresher: Refresher, chain: list[FilterConfig], place: int) -> None:
        """Replace the running chain if the new one can be loaded; requests in progress end on the old one."""
        try:
            plugins = self._load(driver, chain)
        except Exception as error:  # noqa: BLE001 - it is logged
            refresher.refused(chain, place, error, self.logger)
            return
        if self._replace(driver, plugins):
            refresher.loaded(chain, place, self.logger)

    def _filter_healths(self) -> list[FilterHealth]:
        return [] if self._running is None else self._watched

    def close(self) -> None:
        """End the plugins and free their VMs; another request would load them again."""
        with self._starting:
            self._running = None
            self._closing.close()

    def _stream(
        self, properties: Mapping[str, PropertyValue], addressed: Callable[[], tuple[bytes, bytes]]
    ) -> tuple[ThreadDriver, HttpStream]:
        """The driver, and a stream through the running chain.

        The stream leaves out filters whose rules exclude the authority and path that `addressed` returns.
        """
        running = self._running or self.start()
        driver = running[0]
        with driver.lock:
            plugins = (self._running or running)[1]  # the chain may have been replaced meanwhile
            if self._by_request:
                plugins = matching(plugins, *addressed(), properties)
            return driver, self._stream_of(driver, plugins, properties)

    def _stream_of(
        self, driver: ThreadDriver, plugins: list[Plugin], properties: Mapping[str, PropertyValue]
    ) -> HttpStream:
        return driver.host.http_stream(
            plugins, properties=properties, buffer_limit=self._buffer_limit, header_limits=self._header_limits
        )
