"""The driver of a thread of the data plane. It schedules calls; the control loop makes the callouts."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial

from proxywasm_host.driver.clients import AsyncClients
from proxywasm_host.driver.clusters import Clusters
from proxywasm_host.driver.conversation import AsyncConversation
from proxywasm_host.driver.dispatch import IDLE_CHECKS, Dispatcher, logger
from proxywasm_host.recording import Record
from proxywasm_host.runtime.effects import Callout, CalloutFailed, GrpcStream, Reply
from proxywasm_host.runtime.host import Host
from proxywasm_host.runtime.plugin import Plugin
from proxywasm_host.serve.thread import Thread

__all__ = ["ThreadDriver"]


class ThreadDriver(Dispatcher):
    """Performs the effects of `host` from `start` to `stop`. All other methods belong to the thread of the host."""

    def __init__(self, host: Host, thread: Thread, *, stream_idle_timeout: float, record: Record | None = None) -> None:
        super().__init__(host, stream_idle_timeout=stream_idle_timeout, record=record)
        self._thread = thread
        self._clients: AsyncClients | None = None
        self._calls: dict[tuple[Plugin, int], Future[Reply]] = {}
        self._ticking: dict[Plugin, object] = {}
        self._running = False

    async def start(self) -> None:
        """Start to perform effects. Called in the control loop."""
        clusters = self.host.services.clusters
        if isinstance(clusters, Clusters) and clusters.reachable:
            self._clients = AsyncClients(clusters)
        await self._thread.ask(self._start)

    def _start(self) -> None:
        self._running = True
        self.host.wake = lambda: self._thread.native.call_soon(self._woken)
        if self.stream_idle_timeout is not None:
            self._check_idle_every(self.stream_idle_timeout / IDLE_CHECKS)
        self._woken()

    async def stop(self) -> None:
        """Stop performing effects, and close connections. Called in the control loop."""
        await self._thread.ask(self._stop)
        if self._clients is not None:
            await self._clients.aclose()

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
        self._thread.native.call_later(seconds, partial(self._try, function))

    def _try(self, function: Callable[[], None]) -> None:
        if not self._running:
            return
        try:
            function()
        except Exception:  # noqa: BLE001 - the driver continues
            logger.exception("a scheduled call failed")

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
        client = self._clients
        if client is None or not self._running:
            return False
        conversation = [self._conversations.get((callout.plugin, callout.token))] * isinstance(callout, GrpcStream)
        call: Future[Reply] = asyncio.run_coroutine_threadsafe(
            client(callout, *conversation), self._thread.control_loop
        )
        self._calls[callout.plugin, callout.token] = call
        call.add_done_callback(lambda done: self._thread.native.call_soon(partial(self._answered, callout, done)))
        return True

    def _answered(self, callout: Callout, call: Future[Reply]) -> None:
        if self._calls.get((callout.plugin, callout.token)) is not call:
            return
        del self._calls[callout.plugin, callout.token]
        try:
            reply = call.result()
        except Exception as error:  # noqa: BLE001 - the guest waits for an answer in any case
            logger.exception("the client of %s failed", type(callout).__name__)
            reply = CalloutFailed(f"{type(error).__name__}: {error}")
        self._finish(callout, reply)

    def _cancel(self, plugin: Plugin, token: int) -> None:
        call = self._calls.pop((plugin, token), None)
        if call is not None:
            call.cancel()

    def _converse(self, callout: GrpcStream) -> AsyncConversation:
        return AsyncConversation(callout, self._deliver_from_control_loop, self._thread.call_control_loop)

    def _deliver_from_control_loop(self, callout: Callout, reply: Reply, then: Callable[[], None]) -> None:
        self._thread.native.call_soon(lambda: self._deliver(callout, reply, then))
