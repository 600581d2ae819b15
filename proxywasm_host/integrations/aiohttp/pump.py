"""Carries one exchange between a client and a handler of aiohttp."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import Any

import anyio
from aiohttp import hdrs, web
from aiohttp.streams import EMPTY_PAYLOAD
from multidict import CIMultiDict, CIMultiDictProxy
from yarl import URL

from proxywasm_host.driver.worker import Worker
from proxywasm_host.integrations.aiohttp.handler import Body, Loop, Writer
from proxywasm_host.integrations.aiohttp.heads import Response, decoded, received
from proxywasm_host.integrations.asynchronous import AsyncPump
from proxywasm_host.integrations.exchange import Exchange, RequestHead, ResponseHead, State, ToClient
from proxywasm_host.integrations.exchange_base import CLIENT_GONE
from proxywasm_host.runtime.effects import ResponseBody
from proxywasm_host.runtime.http import HttpStream

__all__ = ["Handler", "Pump", "logger"]

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
LEAVING = 0.5
"""Seconds between two checks whether the client of a held request is still connected."""
logger = logging.getLogger("proxywasm_host.aiohttp")


class Pump(AsyncPump[Exchange]):
    """A request in progress."""

    logger = logger
    response: web.StreamResponse
    """The response that the middleware returns, already sent."""
    _request: web.Request | None = None
    """The handler's request."""

    def __init__(
        self, worker: Worker, stream: HttpStream, client: web.Request, handler: Handler, *, fix_content_length: bool
    ) -> None:
        http_1_0 = client.version < (1, 1)
        options: dict[str, Any] = {"fix_content_length": fix_content_length, "http_1_0": http_1_0, "log": logger}
        super().__init__(worker.driver, Exchange(worker.driver, stream, **options))
        self.client = client
        self._handler = handler

    # -- The client ----------------------------------------------------------------------------------------------

    def begin(self) -> None:
        """Feed the request's head."""
        client = self.client
        headers, method, target, scheme, server = received(client)
        self.exchange.begin(method, target, scheme, headers, None if client.body_exists else True, server)

    async def read(self) -> bytes | None:
        """The next part of the body; empty at its end, and ``None`` when the client has gone."""
        if not self.exchange.request_ended:
            return await self.client.content.readany()
        while self.client.transport is not None:  # noqa: ASYNC110 - aiohttp reports it to nobody
            await anyio.sleep(LEAVING)
        return None

    async def _read(self) -> None:
        await super()._read()
        if self.client.transport is None and self.exchange.state is not State.ANSWERED:
            self.exchange.client_gone()

    def feed(self, part: bytes) -> None:
        """Feed a part of the client's body."""
        self.exchange.request_body(part, not part or self.client.content.at_eof())

    async def write(self, part: ToClient) -> None:
        """Send a part of the response to the client."""
        if isinstance(part, ResponseHead):
            self.response = Response(part)
            await self.response.prepare(self.client)
            if part.end_stream:
                await self.response.write_eof()
        elif isinstance(part, ResponseBody):
            if part.data:
                await self.response.write(part.data)
            if part.end_stream:
                await self.response.write_eof()
        else:  # aiohttp has no trailers, and sends heads of 1xx itself
            await self.response.write_eof()

    # -- The handler ---------------------------------------------------------------------------------------------

    async def ask(self, head: RequestHead) -> None:
        """Call the handler, and feed its response."""
        client = self.client
        url = URL(head.path.decode("utf-8", "surrogateescape"), encoded=True)
        upgrade = [(name, value) for name, value in client.raw_headers if name.lower() in (b"connection", b"upgrade")]
        raw = tuple(head.headers + upgrade if hdrs.UPGRADE in client.headers else head.headers)
        headers = CIMultiDictProxy(CIMultiDict([(decoded(name), decoded(value)) for name, value in raw]))
        message = client._message._replace(
            method=head.method.decode(), path=str(url), url=url, headers=headers, raw_headers=raw
        )
        body = EMPTY_PAYLOAD if head.end_stream else Body(self)
        made = self._request = client.__class__(
            message, body, client.protocol, Writer(self), client.task, Loop(client._loop),  # type: ignore[arg-type]
            client_max_size=client._client_max_size, state=dict(client._state), scheme=head.scheme.decode(),
        )  # fmt: skip
        made._match_info = client._match_info
        try:
            try:
                response = await self._handler(made)
            except web.HTTPException as error:
                response = error
            if isinstance(response, web.WebSocketResponse) and response.prepared:
                self.response = response
                return
            await response.prepare(made)
            await response.write_eof()
        finally:
            made._finish()

    async def more(self, body: Body) -> None:
        """Give the handler's request the next part of its body."""
        exchange = self.exchange
        while not body.fed:
            if exchange.over:
                body.set_exception(ConnectionResetError(exchange.stream.details or CLIENT_GONE))
                return
            if exchange.to_upstream:
                part = exchange.to_upstream.popleft()
                self._changed()
                body.take(part)
            elif self._reading or exchange.stream.request_full or exchange.request_held:
                await self._change_beside()
            else:
                await self._read()
                await self._flush()

    async def sent(self) -> None:
        """Send the parts that have come out after the handler fed a part of its response. Raises: ResponseOver."""
        exchange = self.exchange
        await self._flush()
        while exchange.stream.response_full and not exchange.over:
            await self._change_beside()
