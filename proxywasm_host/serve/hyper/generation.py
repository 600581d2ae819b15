"""One generation of the configuration in a thread of the data plane."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from typing import Any

from proxywasm_host.abi.pairs import HeaderList
from proxywasm_host.driver import filters as filter_list
from proxywasm_host.driver.health import watch
from proxywasm_host.integrations.asgi.scope import Scope, ScopeProperties
from proxywasm_host.integrations.heads import UNSENDABLE, oddities
from proxywasm_host.runtime.effects import Effect
from proxywasm_host.runtime.host import Host
from proxywasm_host.runtime.http import HttpStream
from proxywasm_host.runtime.plugin import Plugin
from proxywasm_host.serve.config import Settings
from proxywasm_host.serve.generation import WAIT, Generation, filters_of
from proxywasm_host.serve.hyper.driver import ThreadDriver
from proxywasm_host.serve.hyper.thread import Thread
from proxywasm_host.serve.metrics import Tally
from proxywasm_host.serve.trace import Tracer
from proxywasm_host.services import Services

__all__ = ["ThreadGeneration"]

GONE = "downstream_remote_disconnect"
logger = logging.getLogger("proxywasm_host.serve")


class ThreadGeneration(Generation):
    """`start`, `stop` and `unready` are called in the office; `begin`, `finish` and `perform` by the data plane."""

    def __init__(
        self, number: int, settings: Settings, services: Services, tally: Tally, tracer: Tracer, thread: Thread
    ) -> None:
        """Nothing is loaded yet. Raises: ConfigError."""
        super().__init__(number, settings, services, tally, tracer)
        self._thread = thread
        self._filters = list(filters_of(settings))
        self._plugins: Sequence[Plugin] = ()
        self._looked_at: set[HttpStream] = set()
        self._host: Host | None = None
        self._drained: asyncio.Event | None = None
        """To be told when the last request is over, once no other comes."""

    @property
    def host(self) -> Host:
        assert self._host is not None  # noqa: S101 - it was started
        return self._host

    @property
    def plugins(self) -> Sequence[Plugin]:
        return self._plugins

    async def start(self) -> None:
        """Load the filters; compiling happens in a thread of its own. Raises as `Host.load_plugin`, and as `Host`."""
        self._host = await self._thread.ask(lambda: self.make_host().__enter__())
        try:
            timeout = self.settings.stream_idle_timeout
            self.driver = ThreadDriver(self.host, self._thread, stream_idle_timeout=timeout, record=self.record)
            await self.driver.start()
            try:
                await asyncio.to_thread(filter_list.compile, self.host, self._filters)
                await self._thread.ask(self._load)
            except BaseException:
                await self.driver.stop()
                raise
        except BaseException:
            await self._thread.ask(self._close)
            raise

    def _load(self) -> None:
        try:
            self._plugins = filter_list.load(self.host, self._filters)
        finally:
            self.driver.perform(self.host.drain())
        watch(self._plugins, logger, self.failed)
        self.driver.heal(self._plugins)
        self._tracer.add(self.host)

    def _close(self) -> None:
        self.host.__exit__(None, None, None)

    async def stop(self) -> None:
        """Wait until the last request is over, and free everything."""
        drained = asyncio.Event()
        await self._thread.ask(lambda: self._drain(drained))  # new requests go elsewhere from now on
        await drained.wait()
        await self.driver.stop()
        await self._thread.ask(self._end)

    def _drain(self, drained: asyncio.Event) -> None:
        self._drained = drained
        self._look_drained()

    def _look_drained(self) -> None:
        if self._drained is not None and not self.open:
            self._thread.tell(self._drained.set)

    def _end(self) -> None:
        self._tracer.remove(self.host)
        self._close()

    async def unready(self) -> list[str]:
        names = await self._thread.ask(self._healed)
        if names:  # one that had started is replaced within as long as that took
            await asyncio.sleep(WAIT)
            names = await self._thread.ask(self._healed)
        return names

    def _healed(self) -> list[str]:
        failed = [plugin.name for plugin in self.plugins if not plugin.closed and plugin._ready() and plugin.failure]
        self.driver.perform(self.host.drain())
        return failed

    # -- For the data plane --------------------------------------------------------------------------------------

    def begin(
        self,
        sink: Any,
        headers: HeaderList,
        end: bool,
        protocol: str,
        client: tuple[str, int],
        server: tuple[str, int],
        tls: tuple[int, bytes | None] | None,
    ) -> tuple[HttpStream, list[Effect]]:
        """A request comes in: its stream, and what is to be done first. Effects that come later go to `sink`."""
        scope: Scope = {"http_version": protocol, "client": client, "server": server}
        if tls is not None:
            version, certificate = tls
            scope["extensions"] = {
                "tls": {"tls_version": version, "client_cert_chain": [certificate][: bool(certificate)]}
            }
        stream = self.host.http_stream(
            self._plugins,
            properties=ScopeProperties(scope, self.settings.properties),
            buffer_limit=self.settings.buffer_limit,
            header_limits=None,  # what is beyond was refused where it came in
        )
        if self._tracer.begin(stream, self.number, f"{headers[2][1].decode()} {headers[1][1].decode('latin-1')}"):
            self._looked_at.add(stream)
        self.driver.attach(stream, sink)
        self.open += 1
        return stream, stream.request_headers(headers, end)

    def finish(self, stream: HttpStream, gone: bool) -> None:
        """Both sides are done with a stream; `gone`, if the client has left before."""
        self.open -= 1
        self.driver.detach(stream)
        self.driver.perform(stream.close(GONE if gone and not stream.reset_details else ""))
        if stream in self._looked_at:
            self._looked_at.discard(stream)
            self._tracer.end(stream)
        self._look_drained()

    def perform(self, effects: list[Effect]) -> None:
        """Do what is no part of a message."""
        self.driver.perform(effects)

    def unsendable(self, what: str, headers: HeaderList) -> None:
        """A ``request`` or ``response`` has come out of the filters that cannot be sent."""
        logger.warning(UNSENDABLE, what, oddities(headers))
