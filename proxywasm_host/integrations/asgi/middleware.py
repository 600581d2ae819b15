"""The ASGI middleware.

Rules of this module:

* Requests of HTTP pass the filters; everything else passes untouched.
* Each event loop has a worker with VMs of its own. It starts and stops with the application's lifespan; where a server
  or an application has none, it starts with the first request.
* The chain is read when a request begins, so that another one can take its place at any time.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable

import anyio
from anyio.lowlevel import current_token

from proxywasm_host.driver import filters as filter_list
from proxywasm_host.driver.filters import AnyFilter
from proxywasm_host.driver.health import FilterHealth
from proxywasm_host.driver.worker import Worker
from proxywasm_host.integrations.asgi.pump import Pump
from proxywasm_host.integrations.asgi.scope import Message, Receive, Scope, ScopeProperties, Send
from proxywasm_host.integrations.carrier import Carrier

__all__ = ["ProxyWasmMiddleware"]


def event_loop() -> object:
    """The event loop in which we are, as `current_token` has it, which takes a microsecond to tell what runs."""
    try:
        task = asyncio.current_task()
    except RuntimeError:
        task = None  # of another kind; trio as a guest has a loop, and no task
    return current_token().native_token if task is None else task.get_loop()


class ProxyWasmMiddleware(Carrier):
    """Runs filters in front of an ASGI application.

    Args: those of `Carrier`; `properties` may be a function of the scope, `clients` are those of `AsyncDriver`. Each
        event loop has a host of its own.

    Filters load when the application starts, and what is wrong with them is raised there.
    """

    logger = logging.getLogger("proxywasm_host.asgi")

    def _set_up(self) -> None:
        self._workers: dict[object, Worker] = {}
        self._tasks: set[object] = set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """An ASGI application."""
        if scope["type"] != "http":
            await (self._lifespan if scope["type"] == "lifespan" else self.app)(scope, receive, send)
            return
        worker = self._workers.get(event_loop()) or self._start()
        if not worker.running:
            if worker.ended:
                worker = self._start()
            await worker.ready()
        stream = worker.host.http_stream(
            worker.plugins,
            properties=ScopeProperties(scope, self._properties_of(scope)),
            buffer_limit=self._buffer_limit,
            header_limits=self._header_limits,
        )
        await Pump(worker, stream, scope, receive, send, fix_content_length=self._fix_content_length).run(self.app)

    async def reload(self, filters: Iterable[AnyFilter]) -> None:
        """Let other filters take the place of those that run in this event loop, without losing a request.

        They load beside the old ones; new requests get them as soon as all have loaded, requests in progress end on
        the old ones. Raises: as `Host.load_plugin`; then nothing has changed.
        """
        chain = filter_list.chain(filters)
        worker = self._workers.get(current_token().native_token) or self._start()
        await worker.ready()
        await worker.reload(chain)
        self.filters = [*chain]

    # -- Workers -------------------------------------------------------------------------------------------------

    def _filter_healths(self) -> list[FilterHealth]:
        return [health for worker in list(self._workers.values()) if worker.running for health in worker.filter_healths]

    def _start(self) -> Worker:
        """Start a worker in this event loop. It ends when it is stopped, or with the loop."""
        for token in [token for token in self._workers if getattr(token, "is_closed", bool)()]:
            del self._workers[token]
        loop = current_token().native_token
        worker = self._workers[loop] = Worker(
            self._make_host,
            self.filters,
            self._clients,
            logger=self.logger,
            on_failure=self._on_failure,
            stream_idle_timeout=self._stream_idle_timeout,
            record=self._record,
        )
        if isinstance(loop, asyncio.AbstractEventLoop):
            task = loop.create_task(worker.run())
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        else:
            import trio  # noqa: PLC0415 - it runs

            trio.lowlevel.spawn_system_task(worker.run)
        return worker

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
            # The application has no lifespan, as its server would find out; the filters have one.
            await receive()
            await send({"type": "lifespan.startup.complete"})
            await receive()
            await stopping({"type": "lifespan.shutdown.complete"})
        finally:
            self._workers.pop(current_token().native_token, None)
            with anyio.CancelScope(shield=True):
                await worker.stop()
