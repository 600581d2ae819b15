"""Carries one exchange between an ASGI server and an application.

* What the server's ``receive`` and the application's ``send`` bring is fed to the exchange; usually who has fed it
  sends what came out, and no task is made. Only while a filter holds something, and with it the initiative, is the
  server's next message awaited beside.
* One ``receive`` and one ``send`` of the server at a time.
* Once the client is answered without the application, or gone, it is told ``http.disconnect``; what it sends is
  dropped, and a body that goes on raises `ResponseOver`. If what it has sent is to be cut while it waits for something
  else, it is cancelled.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import anyio

from proxywasm_host.driver.interrupt import Interruptible
from proxywasm_host.driver.worker import Worker
from proxywasm_host.integrations.asgi.messages import DISCONNECT, AsgiExchange, ResponseOver, logger
from proxywasm_host.integrations.asgi.scope import BODILESS, Message, Receive, Scope, Send, tells_the_end
from proxywasm_host.integrations.exchange import State, StreamReset
from proxywasm_host.runtime.http import HttpStream

__all__ = ["Pump"]


class Pump:
    """A request in progress. Made for each by the middleware."""

    _running: Interruptible | None = None
    """The application."""
    _awaiting: Interruptible | None = None
    """The server's next message."""
    _reading = _sending = False
    _reader: anyio.CancelScope | None = None
    _change: anyio.Event | None = None
    _error: Exception | None = None

    def __init__(
        self,
        worker: Worker,
        stream: HttpStream,
        scope: Scope,
        receive: Receive,
        send: Send,
        *,
        fix_content_length: bool,
    ) -> None:
        self._driver = driver = worker.driver
        self._scope, self._receive, self._send = scope, receive, send
        self._exchange = AsgiExchange(driver, stream, scope, fix_content_length=fix_content_length, wake=self._woken)

    async def run(self, app: Callable[..., Awaitable[None]]) -> None:
        """From the request's head to the end. Raises what the application raises, and StreamReset."""
        exchange = self._exchange
        try:
            ahead = self._scope["method"] in BODILESS and not tells_the_end(self._scope)
            exchange.begin_with(await self._receive() if ahead else None)
            while not (exchange.to_upstream or self._finished):
                if exchange.over or self._reading or exchange.request_held:
                    await self._step()
                else:  # only the head waits, for its length
                    await self._read()
            scope = exchange.upstream_scope()
            if scope is not None:
                await self._call(app, scope)
            while not self._finished and (exchange.response_ended or exchange.over):
                await self._step()
            if self._error is not None:
                raise self._error
            if exchange.state is State.CUT:
                raise StreamReset(exchange.stream.reset_details)
        finally:
            if self._reader is not None:
                self._reader.cancel()
            exchange.close()

    async def _call(self, app: Callable[..., Awaitable[None]], scope: Scope) -> None:
        try:
            with self._driver.interruptible() as self._running:
                await app(scope, self.receive, self.send)
        except Exception as error:
            if not self._exchange.over:
                raise
            if not isinstance(error, ResponseOver):
                logger.info("the application, told that its client is gone, raised %r", error)
        finally:
            self._running = None

    @property
    def _finished(self) -> bool:
        exchange = self._exchange
        gone = self._error is not None or exchange.state is State.GONE
        return gone or (exchange.finished and not self._sending)

    async def _step(self) -> None:
        """Do one thing that may help, and come back when something has changed."""
        if self._exchange.to_client and not self._sending:
            await self._flush()
        else:
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
        """Something has changed by another event than ours."""
        exchange = self._exchange
        if exchange.state is State.CUT and self._running is not None:
            self._running.cancel()  # nothing else may wake it
        if exchange.over and self._awaiting is not None:
            self._awaiting.cancel()  # of a client that sends no more
        self._changed()
        if exchange.to_client and not self._sending:
            self._driver.start_soon(self._guarded, self._flush)

    async def _guarded(self, function: Callable[[], Awaitable[None]]) -> None:
        try:
            await function()
        except Exception as error:  # noqa: BLE001 - it is raised where the exchange runs
            self._error = error
            self._changed()

    # -- The application's side ----------------------------------------------------------------------------------

    async def receive(self) -> Message:
        """The application's ``receive``."""
        exchange = self._exchange
        while True:
            if exchange.over:
                if exchange.state is State.GONE or not self._sending:
                    return DISCONNECT
                await self._wait()  # who is told so too early may cancel the task that sends the end
            elif (message := exchange.for_application()) is not None:
                self._changed()
                return message
            elif self._reading or exchange.stream.request_full or exchange.request_held:
                self._read_beside()
                await self._wait()
            else:
                await self._read()
                await self._flush()

    async def send(self, message: Message) -> None:
        """The application's ``send``."""
        exchange = self._exchange
        if not exchange.from_application(message):
            await self._send(message)
            return
        if self._sending or exchange.to_client:
            await self._flush()
        while exchange.stream.response_full and not exchange.over:
            self._read_beside()
            await self._wait()

    # -- The server's side ---------------------------------------------------------------------------------------

    async def _read(self) -> None:
        """Take the server's next message."""
        self._reading = True
        message: Message | None = None
        try:
            with self._driver.interruptible() as self._awaiting:
                message = await self._receive()
        finally:
            self._reading, self._awaiting = False, None
        if message is not None:
            self._exchange.from_server(message)
        self._changed()

    def _read_beside(self) -> None:
        """Await the server's next messages in a task, for other things may happen first."""
        if not self._reading and self._exchange.listens:
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
                    if not (self._exchange.request_held and self._exchange.listens) or self._exchange.to_upstream:
                        break  # what comes next is for others to read, or to ask for
                    self._reading = True
        finally:
            self._reading, self._reader = False, None
            self._changed()

    async def _flush(self) -> None:
        """Send the client what has come out, in order; or wait until whoever does so is done."""
        while self._sending:
            await self._wait()
        exchange = self._exchange
        if not exchange.to_client:
            return
        self._sending = True
        try:
            while exchange.to_client:
                for message in exchange.for_server():
                    await self._send(message)
        except OSError:
            exchange.client_gone()
        finally:
            self._sending = False
            self._changed()
