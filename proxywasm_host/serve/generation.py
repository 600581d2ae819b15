"""One generation of the configuration: filters in a worker of their own, in front of their own connections to upstream.

Generations stand beside each other: new requests go to the newest, old ones end where they began. They share services
(shared data, queues, metrics), so that what filters keep there outlives a reload.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from proxywasm_host.driver.clusters import Cluster, Clusters
from proxywasm_host.driver.filters import Filter
from proxywasm_host.driver.worker import Worker
from proxywasm_host.errors import ConfigError
from proxywasm_host.integrations.asgi.pump import Pump
from proxywasm_host.integrations.asgi.scope import Receive, Scope, ScopeProperties, Send, target
from proxywasm_host.integrations.properties import of_this_node
from proxywasm_host.recording import Record
from proxywasm_host.recording.secrets import Secrets
from proxywasm_host.runtime.failure import Failure
from proxywasm_host.runtime.failure_policy import FailurePolicy
from proxywasm_host.runtime.filter_config import plugin_names
from proxywasm_host.runtime.host import Host
from proxywasm_host.runtime.plugin import Plugin
from proxywasm_host.serve import config, files
from proxywasm_host.serve.config import Settings
from proxywasm_host.serve.metrics import Tally
from proxywasm_host.serve.proxy import Proxy
from proxywasm_host.serve.trace import Tracer
from proxywasm_host.services import Services

__all__ = ["AsyncioGeneration", "Generation", "names"]

WAIT = 0.25
"""Seconds that a failed guest gets to be replaced before it counts as one that is not."""
logger = logging.getLogger("proxywasm_host.serve")


class Generation:
    """What all generations have, wherever they run."""

    open = 0
    """Requests under way."""

    def __init__(self, number: int, settings: Settings, services: Services, tally: Tally, tracer: Tracer) -> None:
        """Raises: ConfigError."""
        self.number = number
        self.settings = settings
        self._tally = tally
        self._tracer = tracer
        self._services = replace(services, clusters=clusters_of(settings))

    def make_host(self) -> Host:
        settings = self.settings
        return Host(
            settings.engine,
            profile=settings.profile,
            services=self._services,
            limits=settings.limits.limits(),
            properties=of_this_node(settings.properties),
        )

    @property
    def record(self) -> Record | None:
        """Which requests are recorded."""
        record = self.settings.record
        return None if record is None else record.record()

    @property
    def host(self) -> Host:
        raise NotImplementedError

    @property
    def plugins(self) -> Sequence[Plugin]:
        raise NotImplementedError

    async def start(self) -> None:
        """Load the filters; compiling happens in a thread.

        Raises: OSError, ModuleError, PluginError, UnknownEngine, EngineUnavailable.
        """
        raise NotImplementedError

    async def stop(self) -> None:
        """Wait until the last request is over, and free everything."""
        raise NotImplementedError

    async def unready(self) -> list[str]:
        """Names of filters whose guest has failed, and for which new requests are answered 503 until it is replaced.

        Whoever asks makes it replaced, if it is time for that: nobody may send requests to what is not ready.
        """
        raise NotImplementedError

    def failed(self, plugin: Plugin, failure: Failure) -> None:
        """Note that a guest has failed."""
        self._tally.failures[plugin.name, failure.kind] += 1

    def state(self) -> list[dict[str, Any]]:
        """The filters and their VMs, for the page and for metrics."""
        return [
            {
                "name": plugin.name,
                "file": str(filter.file),
                "engine": filter.engine or self.host.engine.name,
                "abi": str(plugin._vm.version),
                "state": "bypassed" if plugin._bypassed else "failed" if plugin.failure else "running",
                "failure": Secrets().failure(plugin.failure).report() if plugin.failure else "",
                "policy": FailurePolicy(plugin.config.failure_policy).value,
                "restarts": plugin.reloads,
                "memory": 0 if plugin.failure else plugin._vm.memory_bytes,
                "contexts": len(plugin._vm.contexts),
                "tick": plugin._root.tick_period,
                "vm": id(plugin._vm),
            }
            for plugin, filter in zip(self.plugins, self.settings.filters, strict=True)
        ]


class AsyncioGeneration(Generation):
    """Belongs to one event loop."""

    def __init__(self, number: int, settings: Settings, services: Services, tally: Tally, tracer: Tracer) -> None:
        """Nothing is loaded yet. Raises: ConfigError."""
        super().__init__(number, settings, services, tally, tracer)
        self.proxy = Proxy(settings.upstream)
        self._worker = Worker(
            self.make_host,
            list(filters_of(settings)),
            logger=logger,
            on_failure=self.failed,
            stream_idle_timeout=settings.stream_idle_timeout,
            record=self.record,
        )
        self._running: asyncio.Task[None] | None = None
        self._drained = asyncio.Event()
        self._drained.set()

    async def start(self) -> None:
        self._running = asyncio.ensure_future(self._worker.run())
        await self._worker.ready()
        self._tracer.add(self.host)

    @property
    def host(self) -> Host:
        return self._worker.host

    @property
    def plugins(self) -> list[Plugin]:
        return list(self._worker.plugins)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        self.open += 1
        self._drained.clear()
        try:
            await self._serve(scope, receive, send)
        finally:
            self.open -= 1
            if not self.open:
                self._drained.set()

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        worker = self._worker
        if not worker.plugins:
            await self.proxy(scope, receive, send)
            return
        stream = worker.host.http_stream(
            worker.plugins,
            properties=ScopeProperties(scope, self.settings.properties),
            buffer_limit=self.settings.buffer_limit,
            header_limits=None,  # larger ones were refused where they came in
        )
        looked_at = self._tracer.begin(stream, self.number, f"{scope['method']} {target(scope).decode('latin-1')}")
        try:
            await Pump(worker, stream, scope, receive, send, fix_content_length=True).run(self.proxy)
        finally:
            if looked_at:
                self._tracer.end(stream)

    async def stop(self) -> None:
        await self._drained.wait()
        if self._running is not None:
            await self._worker.stop()
            await self._running
            self._tracer.remove(self.host)
        self.proxy.close()

    async def unready(self) -> list[str]:
        names = self._healed()
        if names:  # one that had started is replaced within as long as that took
            await asyncio.sleep(WAIT)
            names = self._healed()
        return names

    def _healed(self) -> list[str]:
        failed = [plugin.name for plugin in self.plugins if not plugin.closed and plugin._ready() and plugin.failure]
        self._worker.driver.perform(self.host.drain())
        return failed


def names(filters: list[config.Filter]) -> list[str]:
    """A name for each filter of the chain."""
    return plugin_names([Filter(filter.file, filter.name) for filter in filters])


def filters_of(settings: Settings) -> Iterator[Filter]:
    """The chain as the driver has it. Raises: ConfigError; OSError, for a file of a filter."""
    for name, filter in zip(names(settings.filters), settings.filters, strict=True):
        files.check(filter.file)
        written = {each.name: getattr(filter, each.name) for each in fields(Filter) if hasattr(filter, each.name)}
        otherwise = {
            "name": name,
            "configuration": _content(filter.configuration_file, filter.configuration),
            "vm_configuration": _content(filter.vm_configuration_file, filter.vm_configuration),
            "limits": filter.limits.limits() if filter.limits else None,
        }
        yield Filter(filter.file, **{**written, **otherwise})


def _content(file: Path | None, given: bytes) -> bytes:
    """What the file says, if there is one. Raises: ConfigError."""
    if file is None:
        return given
    try:
        return files.read(file)
    except OSError as error:
        raise ConfigError(f"cannot read the configuration {file}: {error.strerror}") from None


def clusters_of(settings: Settings) -> Clusters:
    """The clusters as the driver has them. Raises: ConfigError."""
    clusters = {}
    for name, cluster in settings.clusters.items():
        tls = cluster.tls
        certificate = (str(tls.certificate), str(tls.key or tls.certificate)) if tls.certificate else None
        verify = str(tls.ca) if tls.ca and tls.verify else tls.verify
        try:
            clusters[name] = Cluster(cluster.url, verify=verify, certificate=certificate, timeout=cluster.timeout)
        except ValueError as error:
            raise ConfigError(f"clusters.{name}.url: {error}") from None
    return Clusters(clusters, any_host=settings.allow_any_host)
