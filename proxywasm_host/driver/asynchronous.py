"""The driver for event loops, through anyio: asyncio (also uvloop) and trio.

    async with AsyncDriver(host) as driver:
        stream = host.http_stream([plugin])
        driver.attach(stream, sink)
        driver.perform(stream.request_headers(headers))

Rules of this module:

* A driver, its host and all their streams belong to the event loop in which the driver was entered. No guest runs
  during an await, so callbacks of one VM never overlap. Other threads only wake the loop.
* A callout's reply, a tick and a message in a queue are also events; each of their effects goes to its stream.
* An exception of a client is logged, and the guest gets a failed callout.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping
from types import TracebackType
from typing import Any, Protocol

from proxywasm_host import remedy

try:
    import anyio
    from anyio.abc import TaskGroup
    from anyio.lowlevel import current_token
except ModuleNotFoundError as error:
    raise remedy.missing("http", error) from None

from proxywasm_host.driver.clients import AsyncClients
from proxywasm_host.driver.clusters import Clusters
from proxywasm_host.driver.conversation import AsyncConversation
from proxywasm_host.driver.dispatch import IDLE_CHECKS, Dispatcher, clients_by_type, logger
from proxywasm_host.driver.interrupt import Interruptible, interruptible_here
from proxywasm_host.recording.record import Record
from proxywasm_host.runtime.effects import Callout, CalloutFailed, GrpcStream, Reply
from proxywasm_host.runtime.host import Host
from proxywasm_host.runtime.plugin import Plugin

__all__ = ["AsyncClient", "AsyncDriver"]


class AsyncClient(Protocol):
    """Makes callouts of one kind. An `AsyncExitStack` closes it if it has ``aclose``."""

    async def __call__(self, callout: Any, /, *conversation: Any) -> Reply:
        """Make the callout and return its reply. It may be cancelled.

        The client of `GrpcStream` also gets an `AsyncConversation`. It sends the messages of ``async for message in
        conversation``, awaits `AsyncConversation.tell` with each reply, and returns the last one, a `GrpcClosed`.
        """
        ...


class AsyncDriver(Dispatcher):
    """Performs the effects of `host` in this event loop, from ``__aenter__`` to ``__aexit__``; the host stays open.

    Args:
        host: the host whose effects are performed; its `Host.wake` is set meanwhile.
        clients: functions that make callouts, by type of effect (`HttpCall`, `RedisCall`, …). Callouts of other types
            go to the host's clusters if these are a `Clusters`, and else fail.
        stream_idle_timeout: seconds without progress after which `HttpStream.time_out` ends an attached stream;
            ``None`` for never.
        record: which HTTP streams are recorded, and where. With it, make the driver before you load filters.
    """

    interruptible: Callable[[], Interruptible]
    """Makes context managers that can be cancelled, for this event loop."""

    def __init__(
        self,
        host: Host,
        clients: Mapping[type[Callout], AsyncClient] | None = None,
        *,
        stream_idle_timeout: float | None = None,
        record: Record | None = None,
    ) -> None:
        super().__init__(host, stream_idle_timeout=stream_idle_timeout, record=record)
        self._clients = clients_by_type(clients)
        self._own_clients: AsyncClients | None = None
        self._group: TaskGroup | None = None
        self._call_soon: Callable[..., object]
        self._scopes: dict[tuple[Plugin, int], anyio.CancelScope] = {}
        self._ticking: dict[Plugin, anyio.CancelScope] = {}

    async def __aenter__(self) -> AsyncDriver:
        self._group = await anyio.create_task_group().__aenter__()
        clusters = self.host.services.clusters
        if isinstance(clusters, Clusters) and clusters.reachable:
            self._own_clients = AsyncClients(clusters)
        self._call_soon = self._scheduler()
        self.interruptible = interruptible_here()
        self.host.wake = self._wake
        if self.stream_idle_timeout is not None:
            self._check_idle_every(self.stream_idle_timeout / IDLE_CHECKS)
        self.perform(self.host.drain())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._reset_streams()
        self.host.wake = None
        group, self._group = self._group, None
        self._forget()
        assert group is not None  # noqa: S101 - entered
        group.cancel_scope.cancel()
        try:
            await group.__aexit__(None, None, None)  # the caller gets the exception without a group
        finally:
            if self._own_clients is not None:
                with anyio.CancelScope(shield=True):
                    await self._own_clients.aclose()

    @staticmethod
    def _scheduler() -> Callable[..., object]:
        """A function that schedules a function in this event loop, from any thread."""
        loop: Any = current_token().native_token
        soon: Callable[..., object] = getattr(loop, "call_soon_threadsafe", None) or loop.run_sync_soon
        return soon

    def _wake(self) -> None:
        self._call_soon(self._woken)

    def _woken(self) -> None:
        if self._group is not None:
            self.perform(self.host.drain())

    def start_soon(self, function: Callable[..., Coroutine[Any, Any, None]], *args: object) -> None:
        """Run a function in a task until the driver ends. It must not raise."""
        if self._group is not None:
            self._group.start_soon(function, *args)

    def _later(self, seconds: float, function: Callable[[], None]) -> None:
        async def later() -> None:
            await anyio.sleep(seconds)
            try:
                function()
            except Exception:  # noqa: BLE001 - the driver continues
                logger.exception("a scheduled call failed")

        self.start_soon(later)

    # -- Ticks ---------------------------------------------------------------------------------------------------

    def _arm(self, plugin: Plugin, milliseconds: int) -> None:
        running = self._ticking.pop(plugin, None)
        if running is not None:
            running.cancel()
        if milliseconds and self._group is not None:
            scope = self._ticking[plugin] = anyio.CancelScope()
            self.start_soon(self._tick, plugin, milliseconds / 1000, scope)

    async def _tick(self, plugin: Plugin, seconds: float, scope: anyio.CancelScope) -> None:
        with scope:
            while self._ticking.get(plugin) is scope:
                await anyio.sleep(seconds)
                self.tick(plugin)

    # -- Callouts ------------------------------------------------------------------------------------------------

    def _call(self, callout: Callout) -> bool:
        client = self._client(type(callout))
        if client is None or self._group is None:
            return False
        scope = self._scopes[callout.plugin, callout.token] = anyio.CancelScope()
        self.start_soon(self._answer, client, callout, scope)
        return True

    def _client(self, kind: type[Callout]) -> Any:
        return self._clients.get(kind, self._own_clients)

    async def _answer(self, client: AsyncClient, callout: Callout, scope: anyio.CancelScope) -> None:
        conversation = [self._conversations.get((callout.plugin, callout.token))] * isinstance(callout, GrpcStream)
        with scope:
            if scope.cancel_called:  # cancelled before it started: a client would notice only at its first await
                return
            try:
                reply = await client(callout, *conversation)
            except Exception as error:  # noqa: BLE001 - the guest must get a reply
                logger.exception("the client of %s failed", type(callout).__name__)
                reply = CalloutFailed(f"{type(error).__name__}: {error}")
        if self._scopes.get((callout.plugin, callout.token)) is scope:
            del self._scopes[callout.plugin, callout.token]
            if not scope.cancelled_caught:
                self._finish(callout, reply)

    def _cancel(self, plugin: Plugin, token: int) -> None:
        scope = self._scopes.pop((plugin, token), None)
        if scope is not None:
            scope.cancel()

    def _converse(self, callout: GrpcStream) -> AsyncConversation:
        return AsyncConversation(callout, self._deliver, lambda function: function())
