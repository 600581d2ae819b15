"""Servers in processes of their own, started once for all tests of this directory; on loopback, ports of the system."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx2
import pytest

from tests.conftest import ENGINES

ROOT = Path(__file__).parent.parent.parent


@dataclass(frozen=True)
class Kind:
    """A server with its options, what it serves, and whether it speaks HTTP/2."""

    server: str
    framework: str
    options: tuple[str, ...] = ()
    http2: bool = False

    def __str__(self) -> str:
        return " ".join((self.server, *self.options[1::2], self.framework))


KINDS = [
    Kind("uvicorn", "starlette", ("--loop", "uvloop", "--http", "httptools")),
    Kind("uvicorn", "django", ("--loop", "asyncio", "--http", "h11")),
    Kind("granian", "fastapi", ("--loop", "asyncio"), http2=True),
    Kind("granian", "quart", ("--loop", "uvloop")),
    Kind("hypercorn", "quart", ("-k", "asyncio"), http2=True),
    Kind("hypercorn", "starlette", ("-k", "trio"), http2=True),
    Kind("hypercorn", "fastapi", ("-k", "uvloop")),
]


class Idp(BaseHTTPRequestHandler):
    """Knows one good token."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        good = self.headers.get("authorization") == "Bearer good"
        self.send_response_only(200 if good else 403)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *args: object) -> None:
        pass


class ManyAtOnce(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 512


@pytest.fixture(scope="session")
def idp():
    with ManyAtOnce(("127.0.0.1", 0), Idp) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def start(command: list[str], log: Path, ready: str, *, fd: int | None = None, **environment: str) -> subprocess.Popen:
    """Start a server and wait until it answers at ``ready``."""
    with log.open("wb") as file:
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            env={**os.environ, **environment, "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "ignore"},
            stdout=file,
            stderr=subprocess.STDOUT,
            pass_fds=() if fd is None else (fd,),
        )
    until = time.monotonic() + 60
    while True:
        try:
            httpx2.get(ready, timeout=5, trust_env=False)
        except httpx2.HTTPError:
            if process.poll() is not None or time.monotonic() > until:
                process.kill()
                process.wait()
                pytest.fail(f"{' '.join(command)} does not start:\n{log.read_text()[-4000:]}")
            time.sleep(0.05)
        else:
            return process


def stop(process: subprocess.Popen) -> int:
    """End a server as its operator would. Returns its exit status."""
    process.terminate()
    try:
        return process.wait(20)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        raise


@dataclass
class Server:
    url: str
    kind: Kind
    engine: str
    log: Path
    process: subprocess.Popen

    def client(self, **options) -> httpx2.Client:
        headers = {"authorization": "Bearer good"}
        return httpx2.Client(base_url=self.url, headers=headers, trust_env=False, timeout=5, **options)

    def open(self) -> dict:
        return httpx2.get(self.url + "/open", trust_env=False, timeout=5).json()

    def until_nothing_is_open(self) -> dict:
        until = time.monotonic() + 15
        while (told := self.open())["streams"] or told["contexts"]:
            assert time.monotonic() < until, f"{told}\n{self.log.read_text()[-4000:]}"
            time.sleep(0.02)
        return told


def serve(kind: Kind, engine: str, folder: Path, idp: str) -> Server:
    """A running server."""
    port = free_port()
    command = [sys.executable, "-m", kind.server, *kind.options, "tests.servers.app:app"]
    if kind.server == "hypercorn":
        command += ["--bind", f"127.0.0.1:{port}", "--graceful-timeout", "2"]
    else:
        command += ["--host", "127.0.0.1", "--port", str(port)]
    if kind.server == "granian":
        command += ["--interface", "asgi", "--workers", "1"]
    else:
        command += ["--log-level", "info"]
    log, url = folder / "log", f"http://127.0.0.1:{port}"
    process = start(command, log, url + "/open", FRAMEWORK=kind.framework, ENGINE=engine, IDP=idp)
    return Server(url, kind, engine, log, process)


@pytest.fixture(scope="session", params=list(enumerate(KINDS)), ids=lambda param: str(param[1]))
def server(request, tmp_path_factory, idp):
    number, kind = request.param
    server = serve(kind, ENGINES[number % len(ENGINES)], tmp_path_factory.mktemp("server"), idp)
    yield server
    stop(server.process)
