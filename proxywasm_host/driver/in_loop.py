"""Makes callouts in threads, with clients for event loops: in an event loop that has its own thread.

So a callout ends at its time limit whatever its server does, and can be cancelled at any moment.
"""

from __future__ import annotations

import asyncio
import threading
from typing import Any, Generic, TypeVar

import anyio

from proxywasm_host.runtime.effects import CalloutFailed

__all__ = ["InLoop"]

Asked = TypeVar("Asked")
Told = TypeVar("Told")


class _Call:
    """A call under way."""

    scope: anyio.CancelScope | None = None
    cancelled = False

    def cancel(self) -> None:
        """Cancel the call, which may not have begun. Called in the event loop."""
        self.cancelled = True
        if self.scope is not None:
            self.scope.cancel()


class InLoop(Generic[Asked, Told]):
    """A client that several threads may use, from a client for asyncio."""

    def __init__(self, client: Any) -> None:
        self._client = client
        self._loop = asyncio.new_event_loop()
        self._calls: dict[int, _Call] = {}
        """By the identity of their callout."""
        self._tasks: set[Any] = set()
        self._thread = threading.Thread(target=self._run, name="proxywasm-clients", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        self._loop.run_forever()
        self._loop.run_until_complete(self._end())
        self._loop.close()

    async def _end(self) -> None:
        await asyncio.sleep(0)  # a call may be about to begin
        for call in list(self._calls.values()):
            call.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._client.aclose()

    def __call__(self, callout: Asked, /) -> Told | CalloutFailed:
        """Make a callout. Its result or its failure is the reply."""
        call = self._calls[id(callout)] = _Call()
        try:
            return asyncio.run_coroutine_threadsafe(self._made(callout, call), self._loop).result()
        finally:
            del self._calls[id(callout)]

    async def _made(self, callout: Asked, call: _Call) -> Told | CalloutFailed:
        task = asyncio.current_task()
        self._tasks.add(task)
        try:
            with anyio.CancelScope() as call.scope:
                if not call.cancelled:
                    reply: Told = await self._client(callout)
                    return reply
            return CalloutFailed("cancelled")
        finally:
            self._tasks.discard(task)

    def cancel(self, callout: Asked) -> None:
        """Cancel a callout, from any thread."""
        call = self._calls.get(id(callout))
        if call is not None:
            self._loop.call_soon_threadsafe(call.cancel)

    def close(self) -> None:
        """Cancel all callouts, and close all connections."""
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
