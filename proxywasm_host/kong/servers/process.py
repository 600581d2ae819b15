"""Plugin servers as processes: queries them for their plugins, starts them, and replaces those that end.

Environment variables describe a server; they are the settings of ``kong.conf``, in capitals and after ``KONG_``:
``pluginserver_names``, ``pluginserver_<name>_socket``, ``…_start_cmd``, ``…_query_cmd``.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
import shlex
import signal
import subprocess
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from proxywasm_host.errors import ConfigError
from proxywasm_host.kong.servers.events import ServerProtocol
from proxywasm_host.kong.servers.messagepack import MessagePack
from proxywasm_host.kong.servers.pool import Ask, BlockingPool, Said
from proxywasm_host.kong.servers.protobuf import ProtoBuf

__all__ = ["PluginServer", "ServerSettings", "servers_of"]

PROTOCOLS: dict[str, type[ServerProtocol]] = {"MsgPack:1": MessagePack, "ProtoBuf:1": ProtoBuf}
QUERY = 60.0
"""Seconds that a query command may take."""
RESTART = 1.0
"""Least seconds between two starts."""
MARK = "PROXYWASM_PLUGIN_SERVER"
"""Variable in the environment of a server that identifies it, by its socket."""
END = 5.0
"""Seconds within which a server must end."""
REST = 1.0
"""Seconds to wait for the rest of a server's output. A program that it has started may go on writing."""
logger = logging.getLogger("proxywasm_host.kong")


@dataclass(frozen=True)
class ServerSettings:
    """The settings of one server, from the environment."""

    name: str
    socket: str
    start_cmd: str | None
    query_cmd: str | None


def servers_of(environment: Mapping[str, str], prefix: str) -> list[ServerSettings]:
    """The plugin servers that an environment names; `prefix` is the folder of their sockets (``KONG_PREFIX``).

    Raises: ConfigError.
    """
    names = [name.strip() for name in environment.get("KONG_PLUGINSERVER_NAMES", "").split(",")]
    found = []
    for name in filter(None, names):
        at = f"KONG_PLUGINSERVER_{name.upper().replace('-', '_')}_"
        query = environment.get(f"{at}QUERY_CMD")
        if not query:
            raise ConfigError(f"{at}QUERY_CMD is not set: it lists the plugins of the server {name!r}")
        socket = environment.get(f"{at}SOCKET", f"{prefix}/{name}.socket")
        found.append(ServerSettings(name, socket, environment.get(f"{at}START_CMD"), query))
    return found


class PluginServer:
    """One server: lists its plugins, and runs from `start` to `stop` in one of our processes."""

    def __init__(self, settings: ServerSettings) -> None:
        """Query the plugins of the server. Raises: ConfigError."""
        self.settings = settings
        self.name = settings.name
        self.socket = settings.socket
        said = self._query()
        self.protocol: type[ServerProtocol] = MessagePack
        if isinstance(said, dict):
            name = said.get("Protocol", "ProtoBuf:1")
            if name not in PROTOCOLS:
                raise ConfigError(
                    f"plugin server {self.name}: the protocol {name!r} is not known; known are {', '.join(PROTOCOLS)}"
                )
            self.protocol = PROTOCOLS[name]
            self.socket = said.get("SocketPath") or self.socket
            said = said.get("Plugins") or []
        self.plugins: list[dict[str, Any]] = said
        self._begin()

    def _begin(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        self._blocking: BlockingPool | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        """The result of the query, for another of our processes."""
        return _known, (self.settings, self.socket, self.protocol, self.plugins)

    def _query(self) -> Any:
        command = self.settings.query_cmd or ""
        try:
            done = subprocess.run(  # noqa: S603 - the configuration's own command
                shlex.split(command), capture_output=True, timeout=QUERY, check=False, stdin=subprocess.DEVNULL
            )
            if done.returncode:
                why = done.stderr.decode("utf-8", "replace").strip()[-500:]
                raise ConfigError(f"plugin server {self.name}: {command!r} ended with {done.returncode}: {why}")
            said = json.loads(done.stdout)
        except (OSError, subprocess.TimeoutExpired) as error:
            raise ConfigError(f"plugin server {self.name}: {command!r} cannot be run: {error}") from None
        except ValueError:
            said = f"{command!r} printed no JSON: {done.stdout[:200]!r}"
            raise ConfigError(f"plugin server {self.name}: {said}") from None
        if not isinstance(said, (dict, list)):
            raise ConfigError(f"plugin server {self.name}: {command!r} printed neither a list nor a mapping: {said!r}")
        return said

    @property
    def pid(self) -> int | None:
        """The id of the server's process, if this process runs it."""
        process = self._process
        return process.pid if process is not None and process.poll() is None else None

    def start(self) -> None:
        """Start the server, if there is a command for it, as soon as no other of our processes runs it."""
        if self.settings.start_cmd is not None and self._thread is None:
            self._stopping.clear()
            self._thread = threading.Thread(target=self._run, name=f"pluginserver-{self.name}", daemon=True)
            self._thread.start()

    def _run(self) -> None:
        Path(self.socket).parent.mkdir(parents=True, exist_ok=True)
        with open(f"{self.socket}.lock", "a+b") as lock:
            while not self._stopping.is_set():
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except OSError:  # noqa: PERF203 - the loop waits for the lock
                    self._stopping.wait(RESTART)  # another process runs it
                else:
                    self._end_orphan(lock)
                    break
            while not self._stopping.is_set():
                began = time.monotonic()
                self._once(lock)
                self._stopping.wait(max(0.0, RESTART - (time.monotonic() - began)))

    def _end_orphan(self, lock: BinaryIO) -> None:
        """End the server of a killed process of ours: not every server notices that."""
        lock.seek(0)
        said = lock.read()
        with suppress(OSError, ValueError):
            pid = int(said)
            if MARK.encode() + f"={self.socket}".encode() in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0"):
                os.kill(pid, signal.SIGTERM)

    def _once(self, lock: BinaryIO) -> None:
        """Run the server until it ends."""
        command = shlex.split(self.settings.start_cmd or "")
        try:
            process = subprocess.Popen(  # noqa: S603 - the configuration's own command
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                env={**os.environ, MARK: self.socket},
            )
        except OSError as error:
            logger.error("plugin server %s cannot be started: %s", self.name, error)  # noqa: TRY400 - the traceback does not help
            return
        self._process = process
        lock.truncate(0)
        lock.write(b"%d" % process.pid)
        lock.flush()
        if self._stopping.is_set():
            process.terminate()
        output = threading.Thread(target=self._log, args=(process,), name=f"pluginserver-{self.name}-log", daemon=True)
        output.start()
        status = process.wait()
        output.join(REST)
        if not self._stopping.is_set():
            logger.error("plugin server %s (pid %d) ended with %d: starting it again", self.name, process.pid, status)

    def _log(self, process: subprocess.Popen[bytes]) -> None:
        """Log the output of a server until it ends, and all programs that the server has started."""
        assert process.stdout is not None  # noqa: S101 - it is a pipe
        with process.stdout:
            for line in process.stdout:
                logger.info("[%s:%d] %s", self.name, process.pid, line.decode("utf-8", "replace").rstrip())

    def ask(self, ask: Ask) -> Said:
        """Call the server (from one thread), and wait for the answer. Raises: OSError, TimeoutError,
        PluginServerError."""
        if self._blocking is None:
            self._blocking = BlockingPool(self.socket, self.protocol)
        return self._blocking(ask)

    def stop(self) -> None:
        """End the server, and close the connections of `ask`. It can be started again."""
        if self._blocking is not None:
            self._blocking.pool.close()
            self._blocking = None
        self._stopping.set()
        process, thread = self._process, self._thread
        if process is not None and process.poll() is None:
            process.terminate()
            try:
                process.wait(END)
            except subprocess.TimeoutExpired:
                process.kill()
        if thread is not None:
            thread.join(END)
            self._thread = None


def _known(
    settings: ServerSettings, socket: str, protocol: type[ServerProtocol], plugins: list[dict[str, Any]]
) -> PluginServer:
    server = PluginServer.__new__(PluginServer)
    server.settings, server.name, server.socket = settings, settings.name, socket
    server.protocol, server.plugins = protocol, plugins
    server._begin()
    return server
