"""The whole of ``serve`` in one process on the data plane: its thread, and the office beside it."""

from __future__ import annotations

import asyncio
import signal
import socket
from collections import Counter
from collections.abc import Callable
from typing import Any

from proxywasm_host.errors import ConfigError
from proxywasm_host.serve.application import FIXED, Application
from proxywasm_host.serve.config import Settings
from proxywasm_host.serve.generation import Generation
from proxywasm_host.serve.hyper.generation import ThreadGeneration
from proxywasm_host.serve.hyper.thread import Thread
from proxywasm_host.serve.trace import Tracer

__all__ = ["ThreadApplication", "until_signal"]

TOLD = {"upstream", "clients", "forwarded", "access_log", "tls", "stream_idle_timeout"}
"""What the data plane is told of the configuration."""


class ThreadApplication(Application):
    """Serves on `listening` from `start` to `stop`."""

    listening: socket.socket
    fixed = tuple(name for name in FIXED if name not in TOLD)

    async def start(self) -> None:
        self._thread = Thread(self.listening)
        self._thread.start()
        try:
            await super().start()
        except BaseException:
            await self._thread.end()
            raise

    def make_tracer(self, settings: Settings) -> Tracer:
        return Tracer(self._tally, settings.sample, later=self._thread.lane.call_later)

    def make_generation(self, number: int, settings: Settings) -> Generation:
        return ThreadGeneration(number, settings, self._services, self._tally, self._tracer, self._thread)

    def use(self, generation: Generation, settings: Settings) -> None:
        """Raises: ConfigError."""
        told = settings.model_dump_json(include=TOLD)
        try:
            self._thread.lane.use_chain(told, generation if settings.filters else None)
        except ValueError as error:
            raise ConfigError(str(error)) from None

    async def close(self) -> None:
        """Take no other request, and give those under way their time."""
        self.listening.close()
        await self._thread.close(self._settings.shutdown_timeout)

    async def stop(self) -> None:
        await super().stop()
        await self._thread.end()

    # -- For the admin port --------------------------------------------------------------------------------------

    async def snapshot(self) -> dict[str, Any]:
        return await self._thread.ask(self.counted)

    def counted(self) -> dict[str, Any]:
        counts, tally = self._thread.counts(), self._tally
        tally.in_progress = counts["in_progress"]
        tally.requests = Counter({str(status): count for status, count in counts["requests"].items()})
        tally.latency.counts, tally.latency.sum = counts["counts"], counts["sum"]
        return super().counted()

    async def live(self, since: int) -> dict[str, Any]:
        return await self._thread.ask(lambda: self.watched(since))


async def until_signal(application: ThreadApplication, ready: Callable[[], None]) -> None:
    """Serve until a signal ends it. Raises: ProxyWasmError, if it cannot be started."""
    told = asyncio.Event()
    loop = asyncio.get_running_loop()
    await application.start()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, told.set)
    try:
        ready()
        await told.wait()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)  # a second one is the end
        await application.close()
    finally:
        await application.stop()
