"""A server for Envoy's calls in one process: gRPC and the filters share an event loop.

Generations of the configuration run side by side, as in ``proxywasm serve``: new calls go to the newest, and calls in
progress end where they began. Generations share services, so shared data, queues and metrics outlive a reload.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, Generic, TypeVar

import grpc
import grpc.aio

from proxywasm_host.abi.types import LogLevel
from proxywasm_host.abi.values import PropertyValue
from proxywasm_host.driver.worker import Worker
from proxywasm_host.envoy.health import HealthService
from proxywasm_host.errors import ConfigError
from proxywasm_host.integrations.properties import of_this_node
from proxywasm_host.runtime.host import Host
from proxywasm_host.runtime.http import HttpStream
from proxywasm_host.serve import files
from proxywasm_host.serve.config import HostSettings, ServerTls
from proxywasm_host.serve.filters import clusters_of, filters_of, listener_of
from proxywasm_host.serve.metrics import SEPARATOR, FilterCounts
from proxywasm_host.serve.reload import reload
from proxywasm_host.serve.server import at
from proxywasm_host.serve.source import Source
from proxywasm_host.serve.state import resident_bytes, state_of
from proxywasm_host.serve.trace import Tracer
from proxywasm_host.services import Services, StandardLogging
from proxywasm_host.services.metrics import Histogram
from proxywasm_host.services.shared import with_shared

__all__ = ["Application", "Generation"]

SECONDS = (1e-3, 2.5e-3, 5e-3, 10e-3, 25e-3, 50e-3, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
LARGEST_MESSAGE = 64 << 20
"""Bytes of one message: Envoy sends no more of a body than its buffers hold."""
logger = logging.getLogger("proxywasm_host.envoy")
AnySettings = TypeVar("AnySettings", bound=HostSettings)


class Generation(Generic[AnySettings]):
    """One generation of the configuration: its worker, and the calls that it carries."""

    def __init__(self, number: int, settings: AnySettings, services: Services, counts: FilterCounts) -> None:
        """Prepare a generation; `start` loads it. Raises: ConfigError; OSError, for a file of a filter."""
        self.number = number
        self.settings = settings
        self.filters = list(filters_of(settings))
        self.open = 0
        services = replace(services, clusters=clusters_of(settings))
        self.worker = Worker(
            lambda: Host(
                settings.engine,
                profile=settings.profile,
                services=services,
                limits=settings.limits.limits(),
                properties=of_this_node(settings.properties),
                fetcher=settings.modules.fetcher(),
            ),
            self.filters,
            logger=logger,
            on_failure=lambda plugin, failure: counts.failures.update([(plugin.name, failure.kind)]),
            record=None if settings.record is None else settings.record.record(),
        )
        self._drained = asyncio.Event()

    async def start(self) -> None:
        """Load the filters. Raises: as `Host.load_plugin` and `Host`; ConfigError."""
        listener = listener_of(self.settings)
        self._running = asyncio.ensure_future(self.worker.run())
        await self.worker.ready()
        if listener is not None:
            self.worker.host.add_listener(listener)

    def stream(self, properties: dict[str, PropertyValue], authority: bytes, path: bytes) -> HttpStream:
        """A stream for a call. It has no limits of headers, because Envoy applies its own."""
        given = {**self.settings.properties, **properties}
        properties.update(given)
        plugins = self.worker.chain_of(authority, path, properties) if self.worker.by_request else self.worker.plugins
        return self.worker.host.http_stream(
            plugins, properties=properties, buffer_limit=self.settings.buffer_limit, header_limits=None
        )

    def done(self) -> None:
        """Note that a call has ended."""
        self.open -= 1
        if not self.open:
            self._drained.set()

    async def stop(self) -> None:
        """Wait until the last call has ended, and free everything. No new call may begin."""
        while self.open:
            self._drained.clear()
            await self._drained.wait()
        await self.worker.stop()
        await self._running


class Application(Generic[AnySettings]):
    """Serves calls from `start` to `stop`, with the newest configuration that could be loaded."""

    SERVICE = ""
    """The name of the gRPC service."""
    scheme = "grpc"
    fixed: tuple[str, ...] = (
        *("listen", "workers", "admin", "admin_hosts", "watch", "shared", "shutdown_timeout", "sample", "log_level"),
    )
    """The settings that are fixed when the server starts."""
    generation: Generation[AnySettings]
    loaded = False
    """Whether a chain is loaded."""
    pid = 0
    """The id of the serving process."""

    def __init__(
        self,
        source: Source[AnySettings],
        settings: AnySettings,
        listening: Sequence[socket.socket] | None,
        shared: str = "memory",
    ) -> None:
        """Serve on the port that `listening` holds; with ``None``, load everything but accept no connections.

        `shared`: which processes share data, queues and metrics; see `open_shared`.
        """
        self._choice = shared
        self._source = source
        self._settings = settings
        self._listening = listening
        self._server: grpc.aio.Server | None = None
        self._stopping: set[asyncio.Task[None]] = set()
        self._calls: dict[str, int] = {}
        self._told: set[str] = set()

    @staticmethod
    @contextmanager
    def bind(settings: HostSettings) -> Iterator[Sequence[socket.socket]]:
        """A socket that holds the port on which each process opens its gRPC server. Raises: ConfigError."""
        host, port = settings.listen
        with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as holding:
            try:
                holding.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
                holding.bind((host, port))
            except OSError as error:
                raise ConfigError(f"cannot listen on {host}:{port}: {error.strerror}") from None
            yield [holding]

    @classmethod
    def addresses(cls, settings: HostSettings, listening: Sequence[socket.socket]) -> list[str]:
        """The addresses that it serves at, to be shown."""
        return [f"{cls.scheme}{'s' if settings.tls else ''}://{at(listening[0])}"]

    @classmethod
    def in_process(
        cls, source: Source[AnySettings], settings: AnySettings, listening: Sequence[socket.socket], shared: str
    ) -> list[Application[AnySettings]]:
        """One application, because filters run in the event loop that serves gRPC."""
        return [cls(source, settings, listening, shared)]

    # -- For each service to define ------------------------------------------------------------------------------

    def _methods(self) -> dict[str, Any]:
        """The handlers of the service's methods."""
        raise NotImplementedError

    async def _open(self) -> None:
        """Open servers other than gRPC."""

    async def _shut(self) -> None:
        """Close the servers that `_open` opened."""

    # -- Start and stop ------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Load the filters, and serve. Raises: ProxyWasmError."""
        self.pid = os.getpid()
        settings = self._settings
        try:
            self._shared = settings.open_shared(self._choice)
        except ValueError as error:  # of redis-py
            raise ConfigError(f"shared: {error}") from None
        log = StandardLogging(LogLevel[settings.log_level.upper()])
        self._services = with_shared(Services(log=log), self._shared)
        self._counts = FilterCounts()
        self._latency = Histogram(SECONDS)
        self._tracer = Tracer(self._counts, settings.sample, asyncio.get_running_loop().call_later)
        self._reloading = asyncio.Lock()
        try:
            self.generation = await self._load(1, settings)
            if self._listening is not None:
                await self._serve(self._listening[0])
        except BaseException:
            await asyncio.to_thread(self._shared.close)
            raise
        self.loaded = True

    async def _serve(self, listening: socket.socket) -> None:
        options = [("grpc.so_reuseport", 1), ("grpc.max_receive_message_length", LARGEST_MESSAGE)]
        self._server = server = grpc.aio.server(options=options)
        self._health = HealthService(self.SERVICE, self._serving)
        handlers = grpc.method_handlers_generic_handler(self.SERVICE, self._methods())
        server.add_generic_rpc_handlers((handlers, self._health.handlers()))
        tls = self._settings.tls
        if tls is None:
            server.add_insecure_port(at(listening))
        else:
            server.add_secure_port(at(listening), credentials(tls))
        await server.start()
        await self._open()

    async def _load(self, number: int, settings: AnySettings) -> Generation[AnySettings]:
        try:
            generation = Generation(number, settings, self._services, self._counts)
            await generation.start()
        except OSError as error:
            raise ConfigError(f"cannot read the filter {error.filename}: {error.strerror}") from None
        self._tracer.add(generation.worker.host)
        self._told.clear()
        return generation

    async def reload(self) -> str:
        """Load the configuration again, instead of the running one. Returns the reason of a failure, or ``""``."""
        async with self._reloading:
            return await reload(self._source, self._use, self._counts, self.fixed, self._settings)

    async def _use(self, settings: AnySettings) -> None:
        generation = await self._load(self.generation.number + 1, settings)
        old, self.generation = self.generation, generation
        stopping = asyncio.ensure_future(self._retire(old))
        self._stopping.add(stopping)
        stopping.add_done_callback(self._stopping.discard)

    async def _retire(self, generation: Generation[AnySettings]) -> None:
        await generation.stop()
        self._tracer.remove(generation.worker.host)

    async def close(self) -> None:
        """Accept no new calls, and wait for those in progress."""
        await self._shut()
        if self._server is not None:
            self._health.end()
            await self._server.stop(self._settings.shutdown_timeout)

    async def stop(self) -> None:
        """Free everything, and break off calls that are still in progress."""
        if self._server is not None:
            await self._server.stop(0)
        await asyncio.wait([*self._stopping, asyncio.ensure_future(self.generation.stop())], timeout=1)
        await asyncio.to_thread(self._shared.close)

    # -- Calls ---------------------------------------------------------------------------------------------------

    async def _counted(self, context: Any, call: Callable[[Generation[AnySettings]], Awaitable[Any]]) -> Any:
        """Carry a call with the newest generation, and count it by its status."""
        generation, began, outcome = self.generation, time.perf_counter(), "CANCELLED"
        generation.open += 1
        try:
            result = await call(generation)
        except Exception:
            status = context.code()
            outcome = status.name if isinstance(status, grpc.StatusCode) else "UNKNOWN"
            raise
        else:
            outcome = "OK"
            return result
        finally:
            generation.done()
            self._calls[outcome] = self._calls.get(outcome, 0) + 1
            self._latency.note(time.perf_counter() - began)

    def _tell_once(self, said: str) -> None:
        if said not in self._told:
            self._told.add(said)
            logger.warning("%s (logged once)", said)

    # -- For the admin port and health ---------------------------------------------------------------------------

    async def _serving(self) -> bool:
        return self.loaded and not await self.unready()

    async def unready(self) -> list[str]:
        """The names of filters without a working guest, which make the server unready."""
        healths = self.generation.worker.filter_healths
        return [health.plugin.name for health in healths if health.status().state == "failed"]

    async def snapshot(self) -> dict[str, Any]:
        """Metrics and state, as values of JSON."""
        generation = self.generation
        chain = state_of(generation.worker.host, generation.worker.plugins, generation.filters, generation.number)
        vms = {plugin["vm"]: plugin for plugin in chain}
        return {
            "pid": self.pid,
            "generation": generation.number,
            "retired": len(self._stopping),
            "upstream": self.SERVICE,
            "chain": chain,
            "ours": {
                **self._counts.snapshot(),
                "requests": dict(self._calls),
                "in_progress": generation.open,
                "latency": self._latency.snapshot(),
                "resident_bytes": resident_bytes(),
                "memory": {plugin["name"]: plugin["memory"] for plugin in vms.values()},
                "restarts": {plugin["name"]: plugin["restarts"] for plugin in chain},
                "vms": {f"{plugin['name']}{SEPARATOR}{self.pid}": plugin["usage"] for plugin in vms.values()},
            },
            "guests": await asyncio.to_thread(self._shared.metrics.snapshot),
            "shared": self._choice != "memory",
        }

    async def live(self, since: int) -> dict[str, Any]:
        """The snapshot, and the requests changed after the change numbered `since`. Watches requests from now on."""
        self._tracer.watch()
        changes, requests = self._tracer.since(since)
        return {**await self.snapshot(), "changes": changes, "requests": requests}


def credentials(tls: ServerTls) -> grpc.ServerCredentials:
    """Credentials that read the certificates at each handshake, so that replaced files need no restart."""

    def read() -> grpc.ServerCertificateConfiguration:
        certificate = files.read(tls.certificate)
        key = files.read(tls.key or tls.certificate)
        authorities = None if tls.client_ca is None else files.read(tls.client_ca)
        return grpc.ssl_server_certificate_configuration([(key, certificate)], authorities)

    def again() -> grpc.ServerCertificateConfiguration | None:
        try:
            return read()
        except OSError as error:
            logger.warning("the certificate is not replaced: %s", error)
            return None

    try:
        first = read()
    except OSError as error:
        raise ConfigError(f"cannot read the certificate {error.filename}: {error.strerror}") from None
    return grpc.dynamic_ssl_server_credentials(first, again, require_client_authentication=tls.client_ca is not None)
