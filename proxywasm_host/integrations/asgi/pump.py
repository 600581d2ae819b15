"""Carries one exchange between an ASGI server and an application.

The pump feeds the exchange with messages from the server's ``receive`` and the application's ``send``. When a filter
has answered the client, or the client has disconnected, the application gets ``http.disconnect``: its messages are
dropped, and sending more of a body raises `ResponseOver`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from proxywasm_host.integrations.asgi.messages import DISCONNECT, AsgiExchange, logger, usual_begin, usual_sent
from proxywasm_host.integrations.asgi.scope import BODILESS, Message, Receive, Send, tells_the_end
from proxywasm_host.integrations.asynchronous import AsyncPump
from proxywasm_host.integrations.exchange import RequestHead, State, ToClient

__all__ = ["Pump"]


class Pump(AsyncPump[AsgiExchange]):
    """A request in progress. The middleware makes one for each request."""

    __slots__ = ("_app", "_send", "read")
    logger = logger

    def carry(self, app: Callable[..., Awaitable[None]], receive: Receive, send: Send) -> Awaitable[None]:
        """Run the request to its end. Raises: StreamReset, and whatever the application raises."""
        self._app = app
        self.read = receive  # type: ignore[method-assign]
        self._send = send
        return self.run()

    def begin(self) -> Awaitable[None] | None:
        """Pass the request's head to the filters."""
        exchange = self.exchange
        asked = usual_begin(exchange, exchange.scope)
        if asked is not None:
            exchange.target = asked
            return None
        tells = tells_the_end(exchange.scope)
        if not tells and exchange.scope["method"] in BODILESS:
            return self._begin_later()
        exchange.begin_with(None, tells)
        return None

    async def _begin_later(self) -> None:
        self.exchange.begin_with(await self.read(), False)

    def feed(self, part: Message) -> None:
        """Feed the exchange a message from the server."""
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
        """Pass the request to the application."""
        return self._app(self.exchange.upstream_scope(head), self.receive, self.send)

    async def receive(self) -> Message:
        """The application's ``receive``."""
        exchange = self.exchange
        while True:
            if exchange.over:
                if exchange.state is State.GONE or not self._sending:
                    return DISCONNECT
                await self._wait()  # an application that disconnects too early may cancel the task that sends the end
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
        passed = None if self._sending or exchange.trailers is not None else usual_sent(exchange, message)
        if passed.__class__ is dict:  # a single message, and no filter holds a part of the response
            self._sending = True
            try:
                await self._send(passed)
            except OSError:
                exchange.client_gone()
            finally:
                self._sending = False
                if self._change is not None:
                    self._changed()
            if exchange.to_client:
                await self._flush()
            return
        if passed is None and not exchange.from_application(message):
            await self._send(message)
            return
        if exchange.to_client or self._sending:
            await self._flush()
        while exchange.stream.response_full and not exchange.over:
            await self._change_beside()
