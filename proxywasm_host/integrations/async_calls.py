"""Carries a program's request through filters, in an event loop, to the library that sends it."""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator

import anyio

from proxywasm_host.driver.asynchronous import AsyncDriver
from proxywasm_host.integrations.asynchronous import AsyncPump, ResponseOver
from proxywasm_host.integrations.exchange import Exchange, RequestHead, ResponseHead, ToClient
from proxywasm_host.integrations.outgoing import AsyncAsk, Outgoing
from proxywasm_host.runtime.effects import RequestBody, ResponseBody
from proxywasm_host.runtime.http import HttpStream

__all__ = ["AsyncCall"]


class AsyncCall(AsyncPump[Exchange]):
    """A request in progress. A task carries it, and passes the program one part at a time. Args: as `Call`."""

    def __init__(self, driver: AsyncDriver, stream: HttpStream, ask: AsyncAsk, *, fix_content_length: bool) -> None:
        super().__init__(driver, Exchange(driver, stream, fix_content_length=fix_content_length))
        self._ask = ask
        self._body: AsyncIterator[bytes] | None = None
        self._left: int | None = None
        self._scope = anyio.CancelScope()
        self._done = anyio.Event()
        self._raised: Exception | None = None
        self._out, self._parts = anyio.create_memory_object_stream[ToClient](0)

    async def start(self, request: Outgoing, body: AsyncIterable[bytes] | None) -> ResponseHead:
        """Make the request, and return the head of the response. Raises: the errors of `ask`, and StreamReset."""
        self._request = request
        if body is not None:
            self._body, self._left = aiter(body), request.length
        self._driver.start_soon(self._carry)
        try:
            while True:
                part = await self._next()
                if isinstance(part, ResponseHead):
                    return part
        except BaseException:
            await self.aclose()
            raise

    async def parts(self) -> AsyncIterator[bytes]:
        """Yield the parts of the response. Raises: as `start`."""
        while (part := await self._next()) is not None:
            if isinstance(part, ResponseBody) and part.data:
                yield part.data

    async def aclose(self) -> None:
        """Break off the request, because the program needs no more of the response."""
        self._scope.cancel()
        self._parts.close()
        with anyio.CancelScope(shield=True):
            await self._done.wait()

    async def _next(self) -> ToClient | None:
        try:
            return await self._parts.receive()
        except anyio.EndOfStream:
            self._parts.close()
            if self._raised is not None:
                raise self._raised from None
            return None

    async def _carry(self) -> None:
        try:
            with self._scope:
                await self.run()
        except Exception as error:  # noqa: BLE001 - the program gets it
            self._raised = error
        finally:
            self._out.close()
            self._done.set()

    # -- The program's side --------------------------------------------------------------------------------------

    def begin(self) -> None:
        """Feed the request's head."""
        request = self._request
        ends = self._body is None or self._left == 0
        self.exchange.begin(request.method, request.target, request.scheme, request.shown(), ends)

    async def read(self) -> bytes:
        """The next part of the program's body; empty at its end."""
        if self._body is None or self.exchange.request_ended:
            await anyio.sleep_forever()  # the program leaves by `aclose`
        assert self._body is not None  # noqa: S101 - sleeping has no end
        async for part in self._body:
            if part:
                return part
        return b""

    def feed(self, part: bytes) -> None:
        """Feed a part of the program's body."""
        if self._left is not None:
            self._left -= len(part)
        self.exchange.request_body(part, not part or self._left == 0)

    async def write(self, part: ToClient) -> None:
        """Pass a part to the program, once it asks for one."""
        try:
            await self._out.send(part)
        except anyio.BrokenResourceError:
            raise OSError("the program wants no more") from None

    # -- Upstream's side -----------------------------------------------------------------------------------------

    async def ask(self, head: RequestHead) -> None:
        """Send the request, and feed its response."""
        exchange = self.exchange
        answer = await self._ask(head, None if head.end_stream else self._request_parts())
        try:
            exchange.response(answer.status, answer.headers)
            await self._flush()
            async for part in answer.parts:
                if exchange.over:
                    raise ResponseOver("the program was answered otherwise")
                exchange.response_body(part, False)
                await self._flush()
                while exchange.stream.response_full and not exchange.over:
                    await self._change_beside()
            exchange.response_body(b"", True)
        finally:
            with anyio.CancelScope(shield=True):
                await answer.close()

    async def _request_parts(self) -> AsyncIterator[bytes]:
        """Yield the parts of the body for upstream, until the program has been answered otherwise."""
        exchange = self.exchange
        while not exchange.over:
            if exchange.to_upstream:
                part = exchange.to_upstream.popleft()
                self._changed()
                if not isinstance(part, RequestBody):
                    return
                if part.data:
                    yield part.data
                if part.end_stream:
                    return
            elif self._reading or exchange.stream.request_full or exchange.request_held:
                await self._change_beside()
            else:
                await self._read()
                await self._flush()
