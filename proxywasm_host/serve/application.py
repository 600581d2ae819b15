"""The whole of ``serve`` in one process: an ASGI application that starts and stops with its lifespan.

It can be pickled until it has started, so that a process of its own can be given it.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Sequence
from typing import Any

from proxywasm_host.abi.types import LogLevel
from proxywasm_host.errors import ConfigError, ProxyWasmError
from proxywasm_host.integrations.asgi.scope import Message, Receive, Scope, Send
from proxywasm_host.serve.access_log import Log
from proxywasm_host.serve.config import Settings
from proxywasm_host.serve.forwarded import forward
from proxywasm_host.serve.generation import AsyncioGeneration, Generation
from proxywasm_host.serve.metrics import GuestMetrics, Tally
from proxywasm_host.serve.protocol import REFUSED
from proxywasm_host.serve.source import Source
from proxywasm_host.serve.trace import Tracer
from proxywasm_host.services import Services, StandardLogging

__all__ = ["Application", "usable"]

FIXED = (
    *("listen", "data_plane", "tls", "clients", "workers", "admin", "admin_hosts"),
    *("watch", "shutdown_timeout", "sample", "log_level"),
)
"""What is decided when the server starts."""
logger = logging.getLogger("proxywasm_host.serve")


class Application:
    """Serves requests from `start` to `stop`, with the newest configuration that could be loaded."""

    generation: Generation
    error: Exception | None = None
    """Why it did not start."""

    fixed: Sequence[str] = FIXED
    loaded = False
    """Whether there is a chain."""
    pid = 0
    """Of the process that it serves in."""

    def __init__(self, source: Source, settings: Settings) -> None:
        self._source = source
        self._settings = settings
        self._stopping: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Load the filters. Raises: ProxyWasmError."""
        self.pid = os.getpid()
        settings = self._settings
        self._metrics = GuestMetrics()
        level = LogLevel[settings.log_level.upper()]
        self._services = Services(log=StandardLogging(level), metrics=self._metrics)
        self._tally = Tally()
        self._tracer = self.make_tracer(settings)
        self._log = Log(settings.access_log)
        self._reloading = asyncio.Lock()
        self.generation = await self._load(1, settings)
        self.loaded = True

    async def _load(self, number: int, settings: Settings) -> Generation:
        """Load a generation, which new requests get from now on."""
        try:
            generation = self.make_generation(number, settings)
            await generation.start()
        except OSError as error:
            raise ConfigError(f"cannot read the filter {error.filename}: {error.strerror}") from None
        try:
            self.use(generation, settings)
        except BaseException:
            await generation.stop()
            raise
        return generation

    def make_tracer(self, settings: Settings) -> Tracer:
        return Tracer(self._tally, settings.sample)

    def make_generation(self, number: int, settings: Settings) -> Generation:
        return AsyncioGeneration(number, settings, self._services, self._tally, self._tracer)

    def use(self, generation: Generation, settings: Settings) -> None:
        """Give new requests to this generation, where `__call__` does not."""

    async def reload(self) -> str:
        """Read the configuration again, and let what it says take the place of what runs; or tell why it cannot."""
        async with self._reloading:
            log: Log | None = None
            try:
                settings = await asyncio.to_thread(self._source.load)
                log = Log(settings.access_log)
                generation = await self._load(self.generation.number + 1, settings)
            except Exception as error:
                if log is not None:
                    log.close()
                self._tally.reloads["refused",] += 1
                if isinstance(error, ProxyWasmError):
                    return str(error)
                logger.exception("what has changed cannot be loaded, and should have been refused in words")
                return f"{type(error).__name__}: {error}"
            fixed = [name for name in self.fixed if getattr(settings, name) != getattr(self._settings, name)]
            if fixed:
                logger.warning("changes of %s take effect when the server is started again", ", ".join(fixed))
            old, self.generation = self.generation, generation
            old_log, self._log = self._log, log
            old_log.close()
            self._tally.reloads["loaded",] += 1
            stopping = asyncio.ensure_future(old.stop())
            self._stopping.add(stopping)
            stopping.add_done_callback(self._stopping.discard)
            return ""

    async def stop(self) -> None:
        """Free everything. Requests that are under way have had their time."""
        await asyncio.wait([*self._stopping, asyncio.ensure_future(self.generation.stop())], timeout=1)
        self._log.close()

    # -- Requests ------------------------------------------------------------------------------------------------

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            await self._http(scope, receive, send)
        elif scope["type"] == "lifespan":
            await self._lifespan(receive, send)
        else:
            raise RuntimeError(f"{scope['type']!r} is not for this application")

    async def _http(self, scope: Scope, receive: Receive, send: Send) -> None:
        began = time.perf_counter()
        status = size = 0

        async def counted(message: Message) -> None:
            nonlocal status, size
            if message["type"] == "http.response.body":
                size += len(message.get("body", b""))
            elif message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        tally = self._tally
        tally.in_progress += 1
        generation = self.generation
        assert isinstance(generation, AsyncioGeneration)  # noqa: S101 - of this application
        forward(scope, generation.settings.forwarded)
        try:
            await generation(scope, receive, counted)
        finally:
            tally.in_progress -= 1
            seconds = time.perf_counter() - began
            status = status or scope.get("state", {}).get(REFUSED, 0)
            tally.finished(status, seconds)
            self._log.write(scope, status, size, seconds)

    def refused(self, scope: Scope, status: int, size: int) -> None:
        """Note what was no request, and was answered before the filters."""
        self._tally.finished(status, 0.0)
        self._log.write(scope, status, size, 0.0)

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        await receive()
        try:
            await self.start()
        except Exception as error:  # noqa: BLE001 - told to whom it concerns
            self.error = error
            await send({"type": "lifespan.startup.failed"})
            return
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await self.stop()
        await send({"type": "lifespan.shutdown.complete"})

    # -- For the admin port --------------------------------------------------------------------------------------

    async def snapshot(self) -> dict[str, Any]:
        """Numbers and state, as JSON has them."""
        return self.counted()

    def counted(self) -> dict[str, Any]:
        """The same, where the generation runs."""
        chain = self.generation.state()
        ours = self._tally.snapshot()
        ours["resident_bytes"] = _resident_bytes()
        vms = {plugin["vm"]: plugin for plugin in chain}
        ours["memory"] = {plugin["name"]: plugin["memory"] for plugin in vms.values()}
        ours["restarts"] = {plugin["name"]: plugin["restarts"] for plugin in chain}
        return {
            "pid": self.pid,
            "generation": self.generation.number,
            "retired": len(self._stopping),
            "upstream": self.generation.settings.upstream.url,
            "chain": chain,
            "ours": ours,
            "guests": self._metrics.snapshot(),
        }

    async def unready(self) -> list[str]:
        """Why it is not ready: names of filters that have no guest that works."""
        return await self.generation.unready()

    async def live(self, since: int) -> dict[str, Any]:
        """The same, and the requests that have changed after a change of that number; they are looked at from now."""
        return self.watched(since)

    def watched(self, since: int) -> dict[str, Any]:
        """The same, where the generation runs."""
        self._tracer.watch()
        changes, requests = self._tracer.since(since)
        return {**self.counted(), "changes": changes, "requests": requests}


def _resident_bytes() -> int:
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


async def usable(source: Source, settings: Settings) -> None:
    """Load a configuration, and let it go again. Raises: ProxyWasmError."""
    application = Application(source, settings)
    await application.start()
    await application.stop()
