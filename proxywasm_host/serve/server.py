"""Runs the application in this process, in one or several threads, or in several processes that share the port.

With several processes, the `Supervisor` starts, watches and ends them; this process has the admin port and watches the
files, in a thread with its own event loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import logging.config
import os
import re
import resource
import signal
import socket
import sys
import tempfile
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import uvicorn

from proxywasm_host.abi.types import LogLevel
from proxywasm_host.errors import ConfigError, ProxyWasmError
from proxywasm_host.serve.admin import Admin
from proxywasm_host.serve.config import Address, HostSettings, Settings
from proxywasm_host.serve.control import Application, Control, Processes
from proxywasm_host.serve.filters import names
from proxywasm_host.serve.parent_process import end_with_parent
from proxywasm_host.serve.reload import Watch
from proxywasm_host.serve.source import Source
from proxywasm_host.serve.supervisor import Supervisor
from proxywasm_host.services import ServiceUnavailable
from proxywasm_host.services.log import LEVELS
from proxywasm_host.services.shared import open_shared

__all__ = ["at", "beside", "bound", "make_room", "run"]

logger = logging.getLogger("proxywasm_host.serve")


OTHERS = 256
"""Descriptors for other things than connections to clients and upstreams: files, callouts, the admin port."""
RETRY = 0.5
"""Seconds after which a process that could not start tries again."""


def log_config(settings: HostSettings) -> dict[str, Any]:
    """The configuration of logging to standard error, with filters' lines of `Settings.log_level` and above."""
    guests = LEVELS[LogLevel[settings.log_level.upper()]]
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {"line": {"format": "%(asctime)s %(levelname)s %(name)s: %(message)s"}},
        "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "line"}},
        "root": {"handlers": ["stderr"], "level": "WARNING"},
        "loggers": {"proxywasm_host": {"level": "INFO"}, "proxywasm_host.guest": {"level": guests}},
    }


def run(kind: type[Application], source: Source[Any]) -> None:
    """Serve until a signal arrives; current requests get time to end.

    Raises: ProxyWasmError, if the server cannot start.
    """
    watch = Watch(source)
    settings = source.load()
    logging.config.dictConfig(log_config(settings))
    with contextlib.ExitStack() as stack:
        listening = stack.enter_context(kind.bind(settings))
        admin = stack.enter_context(bound(settings.admin)) if settings.admin else None
        addresses = kind.addresses(settings, listening)
        if admin is not None:
            addresses.append(f"admin http://{at(admin)}")
        filters = ", ".join(names(settings.all_filters)) or "no filters"
        behind = f" → {settings.behind}" if settings.behind else ""
        ready = partial(logger.info, "serving %s: %s%s", ", ".join(addresses), filters, behind)
        if settings.workers == 1:
            application = SingleProcess(
                kind.in_process(source, settings, listening, shared_by(settings)), settings, watch, admin
            )
            asyncio.run(until_signal(application, ready))
        else:
            _several(kind, source, settings, watch, listening, admin, ready)


async def usable(kind: type[Application], source: Source[Any], settings: HostSettings) -> None:
    """Check that a configuration can be loaded. Raises: ProxyWasmError."""
    application = kind(source, settings, None)
    await application.start()
    await application.stop()


def shared_by(settings: HostSettings) -> str:
    """Which processes share the state of filters; ``processes`` without a name are those of this server."""
    choice = settings.shared or ("memory" if settings.workers == 1 else "processes")
    return re.sub(r"^processes(?=\?|$)", f"processes:serve-{os.getpid()}", choice)


@contextlib.contextmanager
def held(shared: str) -> Iterator[None]:
    """Keep the shared state alive, even while none of the processes runs."""
    opened = open_shared(shared)
    try:
        with contextlib.suppress(ServiceUnavailable):
            opened.data.get("", b"")
        yield
    finally:
        opened.close()


def make_room(settings: Settings) -> None:
    """Raise the limit of open files to the number that connections need, as far as the system allows."""
    upstreams = sum(upstream.max_connections for upstream in settings.all_upstreams.values())
    needed = (settings.clients.max_connections + upstreams) * settings.threads + OTHERS
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
    if soft != resource.RLIM_INFINITY and soft < most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
    if most < needed:
        message = "the system allows %d open files, and the connections of clients and upstream may need %d"
        logger.warning(message, most, needed)


@contextlib.contextmanager
def bound(address: Address, *, shared: bool = False) -> Iterator[socket.socket]:
    """A listening socket; `shared` with other processes that listen on it. Raises: ConfigError."""
    host, port = address
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listening = socket.create_server((host, port), family=family, backlog=2048, reuse_port=shared)
    except OSError as error:
        raise ConfigError(f"cannot listen on {host}:{port}: {error.strerror}") from None
    with listening:
        listening.set_inheritable(True)
        yield listening


def at(listening: socket.socket) -> str:
    """The address of a socket, as in a URL."""
    host, port = listening.getsockname()[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


async def until_signal(application: SingleProcess | WorkerProcess, ready: Callable[[], None]) -> None:
    """Serve until a signal arrives; `ready` is called after the start. Raises: ProxyWasmError, if it cannot start."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    await application.start()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    try:
        ready()
        await stop.wait()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)  # a second signal ends the process at once
        await application.close()
    finally:
        await application.stop()


class _Beside(uvicorn.Server):
    """A server that leaves signals to other code."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


@contextlib.asynccontextmanager
async def beside(app: Any, **where: Any) -> AsyncIterator[None]:
    """Serve an application with few requests while this context is open: on ``sockets``, or on ``uds``."""
    sockets = where.pop("sockets", None)
    config = uvicorn.Config(app, lifespan="off", ws="none", http="h11", access_log=False, log_config=None, **where)
    config.timeout_graceful_shutdown = 1
    server = _Beside(config)
    serving = asyncio.ensure_future(server.serve(sockets))
    try:
        while not server.started and not serving.done():  # noqa: ASYNC110 - uvicorn has no event for it
            await asyncio.sleep(0.01)
        yield
    finally:
        server.should_exit = True
        await serving


@contextlib.asynccontextmanager
async def watching(watch: Watch, reload: Callable[[], Awaitable[str]]) -> AsyncIterator[None]:
    task = asyncio.ensure_future(watch.run(reload))
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


# -- One process -------------------------------------------------------------------------------------------------------


class SingleProcess:
    """The applications of a single process, one for each thread, with the admin port and the watcher of files."""

    def __init__(
        self,
        applications: Sequence[Application],
        settings: HostSettings,
        watch: Watch,
        admin: socket.socket | None,
    ) -> None:
        self._applications = applications
        self._settings = settings
        self._watch = watch
        self._admin = admin
        self._around = contextlib.AsyncExitStack()

    async def start(self) -> None:
        """Start one application after the other. Raises: ProxyWasmError."""
        try:
            if self._admin is not None:  # before the filters, so that it can report that they are not loaded yet
                admin = Admin(self._members, self._settings.admin_hosts, self._settings.tags)
                await self._around.enter_async_context(beside(admin, sockets=[self._admin]))
            for each in self._applications:
                await each.start()
        except BaseException:
            await self._around.aclose()
            for each in reversed(await self._members()):  # the others use parts of the first
                await each.stop()
            raise
        if self._settings.watch:
            await self._around.enter_async_context(watching(self._watch, self.reload))

    async def reload(self) -> str:
        """Reload one thread after the other, until one fails. Returns its reason, or ``""``."""
        refused = ""
        for each in self._applications:
            refused = refused or await each.reload()
        return refused

    async def close(self) -> None:
        """Accept no more requests, and give the current ones time to end."""
        await asyncio.gather(*[each.close() for each in self._applications])

    async def stop(self) -> None:
        """Free everything."""
        await self._around.aclose()
        first, *further = self._applications
        await asyncio.gather(*[each.stop() for each in further])
        await first.stop()

    async def _members(self) -> Sequence[Application]:
        return [each for each in self._applications if each.loaded]


# -- Several -----------------------------------------------------------------------------------------------------------


class WorkerProcess:
    """An application in a child process, which its parent controls."""

    _application: Application

    def __init__(
        self,
        kind: type[Application],
        source: Source[Any],
        settings: HostSettings,
        listening: Sequence[socket.socket],
        shared: str,
        directory: Path,
        supervisor: int,
    ) -> None:
        self._kind = kind
        self._source = source
        self._settings = settings
        self._listening = listening
        self._shared = shared
        self._directory = directory
        self._supervisor = supervisor

    async def start(self) -> None:
        end_with_parent(self._supervisor)
        await self._start_or_wait()
        self._around = contextlib.AsyncExitStack()
        path = self._directory / f"{os.getpid()}.sock"
        self._around.callback(path.unlink, missing_ok=True)
        await self._around.enter_async_context(beside(Control(self._application), uds=str(path)))

    async def _start_or_wait(self) -> None:
        """Start, or wait until that is possible.

        A process that replaces a dead one reads the current configuration, which the others may have refused. They
        continue with the old one, so this process waits instead of ending.
        """
        logged = ""
        while True:
            with contextlib.suppress(ConfigError):
                self._settings = self._source.load()
            self._application = self._kind(self._source, self._settings, self._listening, self._shared)
            try:
                await self._application.start()
            except ProxyWasmError as error:
                if str(error) != logged:
                    logged = str(error)
                    logger.error("this process will serve when this is fixed: %s", logged)  # noqa: TRY400
                await asyncio.sleep(RETRY)
            else:
                return

    async def close(self) -> None:
        await self._application.close()

    async def stop(self) -> None:
        await self._around.aclose()
        await self._application.stop()


def one(
    kind: type[Application],
    source: Source[Any],
    settings: HostSettings,
    listening: Sequence[socket.socket],
    shared: str,
    directory: Path,
    supervisor: int,
) -> None:
    """The main function of each of several processes."""
    logging.config.dictConfig(log_config(settings))
    asyncio.run(
        until_signal(WorkerProcess(kind, source, settings, listening, shared, directory, supervisor), lambda: None)
    )


def _several(
    kind: type[Application],
    source: Source[Any],
    settings: HostSettings,
    watch: Watch,
    listening: Sequence[socket.socket],
    admin: socket.socket | None,
    ready: Callable[[], None],
) -> None:
    over = threading.Event()
    with tempfile.TemporaryDirectory(prefix="proxywasm-") as name:
        directory = Path(name)
        control = threading.Thread(
            target=lambda: asyncio.run(_control_loop(settings, watch, directory, admin, ready, over))
        )
        control.start()
        try:
            asyncio.run(usable(kind, source, settings))
            shared = shared_by(settings)
            arguments = (kind, source, settings, listening, shared, directory, os.getpid())
            with held(shared):
                well = Supervisor(settings.workers, one, arguments).run(settings.shutdown_timeout)
        finally:
            over.set()
            control.join()
    if not well:
        sys.exit(1)


async def _control_loop(
    settings: HostSettings,
    watch: Watch,
    directory: Path,
    admin: socket.socket | None,
    ready: Callable[[], None],
    over: threading.Event,
) -> None:
    """The work of the parent process, which serves no requests itself."""
    processes = Processes(directory)
    async with contextlib.AsyncExitStack() as around:
        if admin is not None:
            page = beside(Admin(processes.members, settings.admin_hosts, settings.tags), sockets=[admin])
            await around.enter_async_context(page)
        if settings.watch:
            await around.enter_async_context(watching(watch, processes.reload))
        serving = False
        while not over.is_set():
            await asyncio.sleep(0.1)
            if not serving and len(await processes.members()) >= settings.workers:
                serving = True
                ready()
            if settings.watch:
                await processes.catch_up()
