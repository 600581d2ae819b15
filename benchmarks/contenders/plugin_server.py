"""Kong's external plugin servers, driven over their Unix socket as by Kong.

A phase of a request is an event. The server answers the event, and then each result that it gets, with a call of a PDK
function, until it has finished. There are two protocols: MessagePack-RPC (the PDKs for Python and JavaScript, PyPI and
npm ``kong-pdk``), and ProtoBuf:1, that of Kong's PDK for Go. For the latter, ``benchmarks/rust_plugin_server`` does the
same work in Rust and nothing else, so that a server with a real PDK cannot be faster. The connection is kept between
calls.
"""

from __future__ import annotations

import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from benchmarks.cache import CACHE
from benchmarks.contenders.kong import Kong
from benchmarks.headers import REQUEST, RESPONSE, HeaderList
from benchmarks.rust import program
from benchmarks.timing import InProcess
from proxywasm_host.kong.servers.events import Called, Event, ServerProtocol, Started
from proxywasm_host.kong.servers.messagepack import MessagePack
from proxywasm_host.kong.servers.protobuf import ProtoBuf

PLUGINS = Path(__file__).parent / "plugins"
NAME = "header_filter"
PDK = "kong-pdk@0.6.0"
PATIENCE = 20.0  # seconds for a server to listen


@contextmanager
def python() -> Iterator[InProcess]:
    """With gevent, which is several times faster than with threads."""
    start = "import sys; from kong_pdk.cli import start_server; start_server()"
    server = [sys.executable, "-c", start, "--gevent", "--no-lua-style", "-d", str(PLUGINS / "python")]
    with driven(lambda folder: [*server, "-p", folder, "--socket-name", "socket"], MessagePack) as timed:
        yield timed


@contextmanager
def javascript() -> Iterator[InProcess]:
    server = ["node", str(pdk() / "bin" / "kong-js-pluginserver"), "-d", str(PLUGINS / "javascript")]
    with driven(lambda folder: [*server, "-p", folder, "--sock-name", "socket"], MessagePack) as timed:
        yield timed


@contextmanager
def rust() -> Iterator[InProcess]:
    with driven(lambda folder: [str(program("rust_plugin_server")), f"{folder}/socket"], ProtoBuf) as timed:
        yield timed


def pdk() -> Path:
    """Install Kong's PDK for JavaScript with npm in the cache directory. Raises: RuntimeError, if that fails."""
    folder = CACHE / PDK
    package = folder / "node_modules" / "kong-pdk"
    if not package.exists():
        if shutil.which("npm") is None:
            raise RuntimeError("Kong's PDK for JavaScript is installed with npm, which is not installed.")
        fresh = folder.with_suffix(".new")
        fresh.mkdir(parents=True, exist_ok=True)
        quiet = ["--silent", "--no-audit", "--no-fund", "--no-package-lock"]
        subprocess.run(["npm", "install", *quiet, "--prefix", fresh, PDK], check=True)
        fresh.rename(folder)
    return package


class Instance:
    """An instance of the plugin in the server at the other end of a connection."""

    def __init__(self, connection: socket.socket, protocol: ServerProtocol, kong: Kong) -> None:
        self.connection = connection
        self.protocol = protocol
        self.methods = {name.decode(): function for name, function in kong.methods.items()}
        started = self.ask(protocol.start_instance(NAME, "{}"))
        if not isinstance(started, Started):
            raise TypeError(f"the plugin server answered {started!r}")
        self.number = started.instance

    def ask(self, data: bytes) -> Event:
        self.connection.sendall(data)
        event = None
        while event is None:
            data = self.connection.recv(65536)
            if not data:
                raise RuntimeError("the plugin server has closed the connection")
            event = self.protocol.feed(data)
        return event

    def event(self, phase: str) -> None:
        """Run one phase of one request: make the calls that the plugin requests, until it has finished."""
        event = self.ask(self.protocol.handle_event(self.number, phase))
        while isinstance(event, Called):
            result = self.methods[event.method](*[argument.encode() for argument in event.arguments])
            event = self.ask(self.protocol.answer(event.method, result and result.decode()))


@contextmanager
def driven(command: Callable[[str], Sequence[str]], protocol: Callable[[], ServerProtocol]) -> Iterator[InProcess]:
    """Start the plugin server `command`, which creates ``socket`` in a folder, and drive it as Kong does."""
    with tempfile.TemporaryDirectory(prefix="proxywasm-") as folder:
        kong = Kong()
        with open(Path(folder) / "log", "wb") as log:
            process = subprocess.Popen(command(folder), stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        try:
            with connected(process, Path(folder)) as connection:
                server = Instance(connection, protocol(), kong)

                def one_request() -> tuple[HeaderList, HeaderList]:
                    kong.headers = request = list(REQUEST)
                    server.event("access")
                    kong.headers = response = list(RESPONSE)
                    server.event("response")
                    return request, response

                yield InProcess(one_request, others=True)
        finally:
            process.terminate()
            process.wait(5)


def connected(process: subprocess.Popen[bytes], folder: Path) -> socket.socket:
    """Connect to the server once it listens. Raises: RuntimeError, if it does not."""
    until = time.monotonic() + PATIENCE
    while process.poll() is None and time.monotonic() < until:
        connection = socket.socket(socket.AF_UNIX)
        try:
            connection.connect(str(folder / "socket"))
        except OSError:
            connection.close()
            time.sleep(0.01)
        else:
            return connection
    said = (folder / "log").read_text(encoding="utf-8", errors="replace")
    raise RuntimeError(f"the plugin server does not listen: {said[-2000:]}")


if __name__ == "__main__":
    pdk()
