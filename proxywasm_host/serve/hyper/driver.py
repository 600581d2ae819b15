"""The driver of a thread of the data plane: it calls functions later, and the office makes the callouts."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import AsyncExitStack
from functools import partial
from typing import Any

from proxywasm_host.driver.clusters import Clusters
from proxywasm_host.driver.dispatch import LOOKS, Dispatcher, logger
from proxywasm_host.driver.http import AsyncHttpClient
from proxywasm_host.runtime.effects import Callout, CalloutFailed, HttpCall, Reply
from proxywasm_host.runtime.host import Host
from proxywasm_host.runtime.plugin import Plugin
from proxywasm_host.serve.hyper.thread import Thread

__all__ = ["ThreadDriver"]


class ThreadDriver(Dispatcher):
    """Performs the effects of `host` from `start` to `stop`. All else belongs to the thread of the host."""

    def __init__(self, host: Host, thread: Thread, *, stream_idle_timeout: float) -> None:
        super().__init__(host, stream_idle_timeout=stream_idle_timeout)
        self._thread = thread
        self._clients: dict[type[Callout], Any] = {}
        self._around = AsyncExitStack()
        self._calls: dict[tuple[Plugin, int], Future[Reply]] = {}
        self._ticking: dict[Plugin, object] = {}
        self._running = False

    async def start(self) -> None:
        """In the office."""
        clusters = self.host.services.clusters
        if isinstance(clusters, Clusters) and clusters.reachable:
            self._clients[HttpCall] = await self._around.enter_async_context(AsyncHttpClient(clusters))
        await self._thread.ask(self._start)

    def _start(self) -> None:
        self._running = True
        self.host.wake = lambda: self._thread.lane.call_soon(self._woken)
        if self.stream_idle_timeout is not None:
            self._look_each(self.stream_idle_timeout / LOOKS)
        self._woken()

    async def stop(self) -> None:
        """In the office."""
        await self._thread.ask(self._stop)
        await self._around.aclose()

    def _stop(self) -> None:
        self._running = False
        self.host.wake = None
        self._forget()
        self._ticking.clear()
        for call in self._calls.values():
            call.cancel()
        self._calls.clear()

    def _woken(self) -> None:
        if self._running:
            self.perform(self.host.drain())

    def _later(self, seconds: float, function: Callable[[], None]) -> None:
        self._thread.lane.call_later(seconds, partial(self._try, function))

    def _try(self, function: Callable[[], None]) -> None:
        if not self._running:
            return
        try:
            function()
        except Exception:  # noqa: BLE001 - the driver goes on
            logger.exception("what was to be done later failed")

    def _arm(self, plugin: Plugin, milliseconds: int) -> None:
        self._ticking.pop(plugin, None)
        if milliseconds:
            armed = self._ticking[plugin] = object()
            self._later(milliseconds / 1000, partial(self._due, plugin, milliseconds / 1000, armed))

    def _due(self, plugin: Plugin, seconds: float, armed: object) -> None:
        if self._ticking.get(plugin) is armed:
            self._later(seconds, partial(self._due, plugin, seconds, armed))
            self.tick(plugin)

    def _call(self, callout: Callout) -> bool:
        client = self._clients.get(type(callout))
        if client is None or not self._running:
            return False
        call: Future[Reply] = asyncio.run_coroutine_threadsafe(client(callout), self._thread.office)
        self._calls[callout.plugin, callout.token] = call
        call.add_done_callback(lambda done: self._thread.lane.call_soon(partial(self._answered, callout, done)))
        return True

    def _answered(self, callout: Callout, call: Future[Reply]) -> None:
        if self._calls.get((callout.plugin, callout.token)) is not call:
            return
        del self._calls[callout.plugin, callout.token]
        try:
            reply = call.result()
        except Exception as error:  # noqa: BLE001 - whatever it is, the guest waits for an answer
            logger.exception("the client of %s failed", type(callout).__name__)
            reply = CalloutFailed(f"{type(error).__name__}: {error}")
        self._deliver(callout, reply)

    def _cancel(self, plugin: Plugin, token: int) -> None:
        call = self._calls.pop((plugin, token), None)
        if call is not None:
            call.cancel()
