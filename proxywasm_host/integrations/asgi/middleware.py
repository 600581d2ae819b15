"""The ASGI middleware.

HTTP requests pass the filters; WebSockets and lifespan events go to the application unchanged. The worker of an event
loop starts and stops with the application's lifespan; without a lifespan, it starts with the first request.
"""

from __future__ import annotations

import logging

import anyio
from anyio.lowlevel import current_token

from proxywasm_host.integrations.asgi.messages import exchange_of
from proxywasm_host.integrations.asgi.pump import Pump
from proxywasm_host.integrations.asgi.scope import Message, Receive, Scope, Send, addressed_by, properties_of
from proxywasm_host.integrations.event_loops import EventLoopCarrier, this_task

__all__ = ["ProxyWasmMiddleware"]


class ProxyWasmMiddleware(EventLoopCarrier):
    """Runs filters in front of an ASGI application.

    Args: those of `Carrier`; `properties` may be a function of the scope, `clients` are those of `AsyncDriver`. Each
        event loop has its own host.

    Filters load when the application starts. If one cannot be loaded, the start fails with its error.
    """

    logger = logging.getLogger("proxywasm_host.asgi")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """An ASGI application."""
        if scope["type"] != "http":
            await (self._lifespan if scope["type"] == "lifespan" else self.app)(scope, receive, send)
            return
        task = this_task()
        worker = None if task is None else self._workers.get(task.get_loop())
        if worker is None or not worker.running:
            worker = await self._worker()
        stream = self._stream(worker, properties_of(scope, self._properties_of(scope)), addressed_by, scope)
        exchange = exchange_of(worker.driver, stream, scope, self._fix_content_length)
        await Pump(worker.driver, exchange, task).carry(self.app, receive, send)

    async def _lifespan(self, scope: Scope, receive: Receive, send: Send) -> None:
        worker = self._start()
        said = False

        async def stopping(message: Message) -> None:
            nonlocal said
            said = True
            if message["type"].startswith("lifespan.shutdown"):
                await worker.stop()
            await send(message)

        try:
            await worker.ready()
        except Exception as error:  # noqa: BLE001 - the server says it
            await receive()
            await send({"type": "lifespan.startup.failed", "message": f"{type(error).__name__}: {error}"})
            return
        try:
            await self.app(scope, receive, stopping)
        except Exception:
            if said:
                raise
            # An application without a lifespan raises, which servers accept; but the filters need one.
            await receive()
            await send({"type": "lifespan.startup.complete"})
            await receive()
            await stopping({"type": "lifespan.shutdown.complete"})
        finally:
            self._workers.pop(current_token().native_token, None)
            with anyio.CancelScope(shield=True):
                await worker.stop()
