"""The base of carriers in an event loop: serves the client while upstream answers.

A carrier defines the steps (`begin`, `read`, `feed`, `write`, `ask`). This module decides when they run:

* Usually the task that feeds the exchange also sends the resulting parts, and no other task is needed. Only while a
  filter holds a part does a second task wait for the client's next part.
* At most one `read` and one `write` run at a time.
* When a filter has answered the client, or the client has disconnected, `ask` may continue, but its response is
  ignored. If the response has to be cut, `ask` is cancelled, because nothing else may wake it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, ClassVar, Generic, TypeVar

import anyio

from proxywasm_host.driver.asynchronous import AsyncDriver
from proxywasm_host.driver.interrupt import Interruptible, Task, goes_on
from proxywasm_host.errors import ProxyWasmError
from proxywasm_host.integrations.exchange import Exchange, RequestHead, ToClient
from proxywasm_host.integrations.exchange_base import CUT, GONE, logger

__all__ = ["AsyncPump", "ResponseOver"]

AnExchange = TypeVar("AnExchange", bound=Exchange)


class ResponseOver(ProxyWasmError, OSError):
    """Upstream sends more of a response after a filter has answered the client, or the client has disconnected."""

    code = "response_over"


class AsyncPump(Generic[AnExchange]):
    """A request in progress. A carrier makes one for each request.

    Args:
        driver: the one of the exchange's stream, in this event loop.
        exchange: one that has not begun. It wakes the pump.
        task: the asyncio task that runs `run`, if known.
    """

    logger: ClassVar = logger
    # A dictionary for each request would take longer.
    __slots__ = (
        "_asking",
        "_awaiting",
        "_change",
        "_cut",
        "_driver",
        "_error",
        "_reader",
        "_reading",
        "_sending",
        "_task",
        "exchange",
    )

    def __init__(self, driver: AsyncDriver, exchange: AnExchange, task: Task | None = None) -> None:
        self._driver = driver
        self.exchange = exchange
        self._task = task
        self._asking: Interruptible | Task | None = None
        """What to cancel to end `ask`, while that runs."""
        self._cut = False
        """Whether the pump has cancelled `ask`."""
        self._sending = self._reading = False
        self._awaiting: Interruptible | None = None
        """What to cancel to end `read`, while that waits."""
        self._reader: anyio.CancelScope | None = None
        self._change: anyio.Event | None = None
        self._error: Exception | None = None
        exchange.wake = self._woken

    # -- For carriers to define ----------------------------------------------------------------------------------

    def begin(self) -> Awaitable[None] | None:
        """Feed the request's head, either at once or when the result is awaited."""
        raise NotImplementedError

    def read(self) -> Awaitable[Any]:
        """Return the client's next part, a disconnect included, or ``None`` for one to ignore. May be cancelled."""
        raise NotImplementedError

    def feed(self, part: Any) -> None:
        """Feed the exchange a result of `read`."""
        raise NotImplementedError

    def write(self, part: ToClient) -> Awaitable[None]:
        """Send the client a part. Raises: OSError, if the client has disconnected."""
        raise NotImplementedError

    def ask(self, head: RequestHead) -> Awaitable[None]:
        """Send the request upstream and feed the response. May return before the response ends, or raise."""
        raise NotImplementedError

    # -- The exchange --------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Run the request to its end. Raises: StreamReset, and errors of `ask` unless its response is ignored."""
        exchange = self.exchange
        try:
            waits = self.begin()
            if waits is not None:
                await waits
            while not (exchange.to_upstream or self._finished):
                if exchange.over or self._reading or exchange.request_held:
                    await self._step()
                else:  # the head waits for the length of the body
                    await self._read()
            if exchange.to_upstream and not exchange.over:
                try:
                    if self._task is None:
                        with self._driver.interruptible() as self._asking:
                            await self.ask(exchange.request_head())
                    else:
                        self._asking = self._task
                        await self.ask(exchange.request_head())
                except asyncio.CancelledError:
                    if not self._cut or self._task is None or not goes_on(self._task):
                        raise
                except Exception as error:
                    if self._cut and self._task is not None:
                        goes_on(self._task)
                    if not exchange.over:
                        raise
                    if not isinstance(error, ResponseOver):
                        self.logger.info("the application, told that its client is gone, raised %r", error)
                else:
                    if self._cut and self._task is not None:
                        goes_on(self._task)
                finally:
                    self._asking = None
            if not exchange.finished or self._sending or self._error is not None:
                while not self._finished and (exchange.response_ended or exchange.over):
                    await self._step()
                if self._error is not None:
                    raise self._error
            if exchange.state is CUT:
                exchange.raise_if_cut()
        finally:
            if self._reader is not None:
                self._reader.cancel()
            exchange.close()

    @property
    def _finished(self) -> bool:
        exchange = self.exchange
        gone = self._error is not None or exchange.state is GONE
        return gone or (exchange.finished and not self._sending)

    async def _step(self) -> None:
        """Send or read one part, and return after a change."""
        if self.exchange.to_client and not self._sending:
            await self._flush()
        else:
            await self._change_beside()

    async def _change_beside(self) -> None:
        """Wait for a change, for instance the client's next part."""
        self._read_beside()
        await self._wait()

    async def _wait(self) -> None:
        if self._change is None:
            self._change = anyio.Event()
        await self._change.wait()

    def _changed(self) -> None:
        if self._change is not None:
            self._change.set()
            self._change = None

    def _woken(self) -> None:
        """Note that an event that the pump did not feed has changed the exchange."""
        exchange = self.exchange
        if exchange.state is CUT and self._asking is not None and not self._cut:
            self._cut = True
            self._asking.cancel()  # because nothing else may wake it
        if exchange.over and self._awaiting is not None:
            self._awaiting.cancel()  # because the client may send nothing more
        self._changed()
        if exchange.to_client and not self._sending:
            self._driver.start_soon(self._guarded, self._flush)

    async def _guarded(self, function: Callable[[], Awaitable[None]]) -> None:
        try:
            await function()
        except Exception as error:  # noqa: BLE001 - it is raised where the exchange runs
            self._error = error
            self._changed()

    # -- The client ----------------------------------------------------------------------------------------------

    async def _read(self) -> None:
        """Read the client's next part and feed it."""
        self._reading = True
        part: Any = None
        try:
            with self._driver.interruptible() as self._awaiting:
                part = await self.read()
        finally:
            self._reading, self._awaiting = False, None
        if part is not None:
            self.feed(part)
        self._changed()

    def _read_beside(self) -> None:
        """Read the client's next parts in another task, because other events may come first."""
        if not self._reading and self.exchange.listens:
            self._reading, self._reader = True, anyio.CancelScope()
            self._driver.start_soon(self._guarded, self._read_on)

    async def _read_on(self) -> None:
        reader = self._reader
        assert reader is not None  # noqa: S101 - made with the task
        try:
            with reader:
                while True:
                    await self._read()
                    await self._flush()
                    if not (self.exchange.request_held and self.exchange.listens) or self.exchange.to_upstream:
                        break  # another task reads the next part, or asks for it
                    self._reading = True
        finally:
            self._reading, self._reader = False, None
            self._changed()

    async def _flush(self) -> None:
        """Send the waiting parts to the client, in order. If another task is sending, wait for it first."""
        while self._sending:
            await self._wait()
        to_client = self.exchange.to_client
        if not to_client:
            return
        self._sending = True
        try:
            while to_client:
                await self.write(to_client.popleft())
        except OSError:
            self.exchange.client_gone()
        finally:
            self._sending = False
            self._changed()
