"""A real redis-server for a test, on loopback."""

from __future__ import annotations

import contextlib
import subprocess
import time
from pathlib import Path

import redis


class Server:
    """A redis-server on loopback, with files of its own."""

    def __init__(self, directory: Path, *options: str, port: int = 0) -> None:
        self.port = port or free_port()
        self.directory = directory
        self.url = f"redis://127.0.0.1:{self.port}"
        self._options = options
        self.start()

    def start(self) -> None:
        self.process = subprocess.Popen(
            ["redis-server", "--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--dir", self.directory,
             "--logfile", self.directory / "log", "--cluster-config-file", f"nodes-{self.port}", *self._options],
        )  # fmt: skip
        self.admin = redis.Redis(port=self.port)
        for _ in range(500):
            with contextlib.suppress(redis.ConnectionError):
                self.admin.ping()
                return
            time.sleep(0.01)
        raise AssertionError((self.directory / "log").read_text())

    def stop(self) -> None:
        self.admin.close()
        self.process.kill()
        self.process.wait()


def free_port() -> int:
    import socket

    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]
