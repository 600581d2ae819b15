"""Carries one exchange between an ASGI server and an application.

What the server's ``receive`` and the application's ``send`` bring is fed to the exchange. Once the client is answered
without the application, or gone, the application is told ``http.disconnect``; what it sends is dropped, and a body that
goes on raises `ResponseOver`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from proxywasm_host.driver.worker import Worker
from proxywasm_host.integrations.asgi.messages import DISCONNECT, AsgiExchange, logger
from proxywasm_host.integrations.asgi.scope import BODILESS, Message, Receive, Scope, Send, tells_the_end
from proxywasm_host.integrations.asynchronous import AsyncPump
from proxywasm_host.integrations.exchange import RequestHead, State, ToClient
from proxywasm_host.runtime.http import HttpStream

__all__ = ["Pump"]


class Pump(AsyncPump[AsgiExchange]):
    """A request in progress. Made for each by the middleware."""

    logger = logger

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
        driver = worker.driver
        http_1_0 = scope["http_version"] == "1.0"
        exchange = AsgiExchange(driver, stream, fix_content_length=fix_content_length, http_1_0=http_1_0, log=logger)
        exchange.scope = scope
        super().__init__(driver, exchange)
        self.read = receive  # type: ignore[method-assign]
        self._send = send

    def run(self, app: Callable[..., Awaitable[None]]) -> Awaitable[None]:  # type: ignore[override]
        """From the request's head to the end. Raises what the application raises, and StreamReset."""
        self._app = app
        return super().run()

    def begin(self) -> Awaitable[None] | None:
        """Give the request's head to the filters."""
        exchange = self.exchange
        tells = tells_the_end(exchange.scope)
        if not tells and exchange.scope["method"] in BODILESS:
            return self._begin_later()
        exchange.begin_with(None, tells)
        return None

    async def _begin_later(self) -> None:
        self.exchange.begin_with(await self.read(), False)

    def feed(self, part: Message) -> None:
        """Give a message of the server's to the exchange."""
        self.exchange.from_server(part)

    def write(self, part: ToClient) -> Awaitable[None]:
        """Send a part of the response to the client."""
        messages = self.exchange.for_server(part)
        return self._send(messages[0]) if len(messages) == 1 else self._send_all(messages)

    async def _send_all(self, messages: list[Message]) -> None:
        for message in messages:
            await self._send(message)

    # -- The application's side ----------------------------------------------------------------------------------

    def ask(self, head: RequestHead) -> Awaitable[None]:
        """Give the request to the application."""
        return self._app(self.exchange.upstream_scope(head), self.receive, self.send)

    async def receive(self) -> Message:
        """The application's ``receive``."""
        exchange = self.exchange
        while True:
            if exchange.over:
                if exchange.state is State.GONE or not self._sending:
                    return DISCONNECT
                await self._wait()  # who is told so too early may cancel the task that sends the end
            elif (message := exchange.for_application()) is not None:
                self._changed()
                return message
            elif self._reading or exchange.stream.request_full or exchange.request_held:
                await self._change_beside()
            else:
                await self._read()
                await self._flush()

    async def send(self, message: Message) -> None:
        """The application's ``send``."""
        exchange = self.exchange
        if not exchange.from_application(message):
            await self._send(message)
            return
        if exchange.to_client or self._sending:
            await self._flush()
        while exchange.stream.response_full and not exchange.over:
            await self._change_beside()
