"""The base of carriers in event loops: each loop has a worker with its own VMs.

A worker starts with the first request, or sooner if its carrier starts it, and ends when it is stopped or its loop
ends. Each request uses the chain that is current when the request begins, so a carrier can replace the chain any time.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from anyio.lowlevel import current_token

from proxywasm_host.abi.values import PropertyValue
from proxywasm_host.driver import filters as filter_list
from proxywasm_host.driver.filters import AnyFilter
from proxywasm_host.driver.health import FilterHealth
from proxywasm_host.driver.interrupt import Task
from proxywasm_host.driver.worker import Worker
from proxywasm_host.integrations.carrier import Carrier
from proxywasm_host.runtime.http import HttpStream

__all__ = ["EventLoopCarrier"]


def this_task() -> Task | None:
    """The current asyncio task; ``None`` in another kind of event loop."""
    try:
        return asyncio.current_task()
    except RuntimeError:
        return None  # trio in guest mode: there is an asyncio loop, but no task


def event_loop(task: Task | None) -> object:
    """The event loop of `this_task`: the same as from `current_token`, which takes a microsecond."""
    return current_token().native_token if task is None else task.get_loop()


class EventLoopCarrier(Carrier):
    """Base of carriers in event loops. Args: those of `Carrier`; `clients` are those of `AsyncDriver`."""

    def _set_up(self) -> None:
        self._workers: dict[object, Worker] = {}
        self._tasks: set[object] = set()

    async def reload(self, filters: Iterable[AnyFilter]) -> None:
        """Replace the filters of this event loop, without losing a request.

        New requests get the new filters as soon as all of them are loaded; requests in progress keep the old ones.
        Raises: as `Host.load_plugin`; then nothing has changed.
        """
        chain = filter_list.chain(filters)
        worker = self._workers.get(current_token().native_token) or self._start()
        await worker.ready()
        await worker.reload(chain)
        self.filters = [*chain]

    async def _worker(self) -> Worker:
        """The running worker of this event loop. Raises: as `Host.load_plugin`."""
        worker = self._workers.get(event_loop(this_task())) or self._start()
        if not worker.running:
            if worker.ended:
                worker = self._start()
            await worker.ready()
        return worker

    def _stream(
        self,
        worker: Worker,
        properties: Mapping[str, PropertyValue],
        addressed: Callable[[Any], tuple[bytes, bytes]],
        request: Any,
    ) -> HttpStream:
        """Make a stream through the filters of the current chain that match the request's authority and path."""
        return worker.host.http_stream(
            worker.chain_of(*addressed(request), properties) if worker.by_request else worker.plugins,
            properties=properties,
            buffer_limit=self._buffer_limit,
            header_limits=self._header_limits,
        )

    async def _stop(self) -> None:
        """End the filters of this event loop."""
        worker = self._workers.pop(event_loop(this_task()), None)
        if worker is not None:
            await worker.stop()

    def _filter_healths(self) -> list[FilterHealth]:
        return [health for worker in list(self._workers.values()) if worker.running for health in worker.filter_healths]

    def _start(self) -> Worker:
        """Start a worker in this event loop."""
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
            recycle=self._recycle,
        )
        if isinstance(loop, asyncio.AbstractEventLoop):
            task = loop.create_task(worker.run())
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        else:
            import trio  # noqa: PLC0415 - it runs

            trio.lowlevel.spawn_system_task(worker.run)
        return worker
