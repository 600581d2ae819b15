"""Fixtures: event loops, and an upstream on loopback that answers callouts."""

from __future__ import annotations

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from tests.driver.carriers import run  # noqa: F401 - a fixture
from tests.integrations.conftest import anyio_backend  # noqa: F401 - a fixture


class Answers(BaseHTTPRequestHandler):
    """Answers by path: ``/echo`` tells the request, the others go wrong as they are called."""

    protocol_version = "HTTP/1.1"

    def handle_one_request(self) -> None:
        try:
            super().handle_one_request()
        except OSError:  # the client does not wait for what it did not want
            self.close_connection = True

    def do_GET(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length") or 0))
        self.server.seen.append((self.command, self.path, self.headers.items(), body))  # type: ignore[attr-defined]
        getattr(self, self.path.partition("?")[0].strip("/"), self.echo)(body)

    do_POST = do_GET

    def echo(self, body: bytes) -> None:
        self.send_response_only(200)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("X-Two", "a")
        self.send_header("X-Two", "b")
        self.end_headers()
        self.wfile.write(body)

    def silent(self, body: bytes) -> None:
        """No answer until the test is over."""
        self.server.release.wait(20)  # type: ignore[attr-defined]
        self.close_connection = True

    def drips(self, body: bytes) -> None:
        """A head that comes byte by byte, without end."""
        self.wfile.write(b"HTTP/1.1 200 OK\r\nx: ")
        while not self.server.release.wait(0.01):  # type: ignore[attr-defined]
            self.wfile.write(b"x")

    def begins(self, body: bytes) -> None:
        """An answer that begins, and does not go on until the test is over."""
        self.send_response_only(200)
        self.send_header("Content-Length", "100")
        self.end_headers()
        self.wfile.write(b"x")
        self.wfile.flush()
        self.silent(body)

    def resets(self, body: bytes) -> None:
        self.close_connection = True

    def halves(self, body: bytes) -> None:
        """Half of a head."""
        self.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Le")
        self.close_connection = True

    def breaks(self, body: bytes) -> None:
        self.send_response_only(200)
        self.send_header("Content-Length", "100")
        self.end_headers()
        self.wfile.write(b"x")
        self.close_connection = True

    def large(self, body: bytes) -> None:
        self.send_response_only(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        while True:
            self.wfile.write(b"1000\r\n" + b"x" * 4096 + b"\r\n")

    def nonsense(self, body: bytes) -> None:
        self.wfile.write(b"this is not an HTTP\r\n\r\n")
        self.close_connection = True

    def log_message(self, *args: object) -> None:
        pass


class Upstream(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128


@pytest.fixture
def upstream():
    """Its ``url``, and what it has ``seen``."""
    server = Upstream(("127.0.0.1", 0), Answers)
    server.seen, server.release = [], threading.Event()
    server.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.release.set()
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def closed_port():
    """A port of loopback that nobody listens on."""
    import socket

    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        yield listener.getsockname()[1]
