"""Carries one call of ``ExternalProcessor.Process`` between Envoy and the filters."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import grpc

from proxywasm_host.abi.values import PropertyValue
from proxywasm_host.driver.asynchronous import AsyncDriver
from proxywasm_host.envoy.messages import ProcessingResponse
from proxywasm_host.envoy.processing import CallFailed, CannotWork, GuestFailed, OutOfOrder, ProcessingExchange
from proxywasm_host.runtime.http import HttpStream

__all__ = ["Pump"]

STATUS: dict[type[CallFailed], grpc.StatusCode] = {
    GuestFailed: grpc.StatusCode.UNAVAILABLE,
    CannotWork: grpc.StatusCode.FAILED_PRECONDITION,
    OutOfOrder: grpc.StatusCode.INVALID_ARGUMENT,
}
"""The gRPC status of a call that cannot continue. Envoy's ``failure_mode_allow`` then decides about the request."""


class Pump:
    """A call in progress.

    Args:
        driver: performs the stream's effects, in this event loop.
        stream: the call's stream.
        properties: the stream's properties, to which Envoy's attributes and metadata are added.
        context: the call's context, of gRPC.
        message_timeout: milliseconds to ask Envoy for while a filter holds an answer; 0 to ask for none.
        begins: called with method and path, before any filter.
        tell: called with each complaint about Envoy's configuration.
        first: Envoy's first message, if it has been read already.
    """

    _reading: asyncio.Future[Any] | None = None

    def __init__(
        self,
        driver: AsyncDriver,
        stream: HttpStream,
        properties: dict[str, PropertyValue],
        context: Any,
        *,
        message_timeout: int = 0,
        begins: Callable[[bytes, bytes], None],
        tell: Callable[[str], None],
        first: Any = None,
    ) -> None:
        self._context = context
        self._changed = asyncio.Event()
        self._message_timeout = message_timeout
        self._tell = tell
        self._first = first
        self._exchange = ProcessingExchange(driver, stream, properties, begins=begins, wake=self._changed.set)

    async def run(self) -> None:
        """Carry the call from its first message to its end. Raises: AbortError of grpc."""
        exchange = self._exchange
        try:
            while not exchange.processed:
                message = await self._next()
                if message is grpc.aio.EOF:
                    break
                if message is not None:
                    exchange.receive(message)
                await self._answer(came=message is not None)
        except asyncio.CancelledError:
            if not exchange.whole:
                raise
        except CallFailed as error:
            if isinstance(error, CannotWork):
                self._tell(str(error))
            await self._context.abort(STATUS[type(error)], str(error))
        finally:
            if self._reading is not None:
                self._reading.cancel()
            for complaint in exchange.complaints():
                self._tell(complaint)
            exchange.close(whole=exchange.whole)

    async def _next(self) -> Any:
        """Envoy's next message; ``None`` if something may have come out of the filters before it."""
        if self._first is not None:
            first, self._first = self._first, None
            return first
        if self._reading is None:
            if not self._exchange.held:
                return await self._context.read()
            self._reading = asyncio.ensure_future(self._context.read())
            self._reading.add_done_callback(lambda _: self._changed.set())
        await self._changed.wait()
        self._changed.clear()
        if not self._reading.done():
            return None
        message, self._reading = self._reading.result(), None
        return message

    async def _answer(self, *, came: bool) -> None:
        exchange = self._exchange
        answered = False
        for answer in exchange.answers():
            answered = True
            if not exchange.observed:
                await self._context.write(answer)
        if came and not answered and self._message_timeout and not exchange.observed:
            more = ProcessingResponse()
            more.override_message_timeout.seconds, rest = divmod(self._message_timeout, 1000)
            more.override_message_timeout.nanos = rest * 1_000_000
            await self._context.write(more)
