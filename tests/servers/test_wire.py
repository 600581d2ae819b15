"""What servers of ASGI and WSGI put on the wire for what filters make: read strictly, and two answers on a connection."""

from __future__ import annotations

import http.client
import signal
import socket
import sys
import threading
import time

import h11
import pytest

from tests.conftest import ENGINES
from tests.servers.conftest import free_port, start, stop

SERVERS = {
    "uvicorn h11": ["-m", "uvicorn", "--http", "h11", "--port", "{}", "tests.servers.plain:asgi"],
    "uvicorn httptools": ["-m", "uvicorn", "--http", "httptools", "--port", "{}", "tests.servers.plain:asgi"],
    "hypercorn": ["-m", "hypercorn", "--graceful-timeout", "2", "--bind", "127.0.0.1:{}", "tests.servers.plain:asgi"],
    "granian asgi": ["-m", "granian", "--interface", "asgi", "--port", "{}", "tests.servers.plain:asgi"],
    "granian wsgi": ["-m", "granian", "--interface", "wsgi", "--port", "{}", "tests.servers.plain:wsgi"],
    "gunicorn": ["-m", "gunicorn", "--threads", "4", "--graceful-timeout", "2", "--bind", "127.0.0.1:{}", "tests.servers.plain:wsgi"],
    "werkzeug": ["-m", "tests.servers.plain", "werkzeug", "{}"],
    "wsgiref": ["-m", "tests.servers.plain", "wsgiref", "{}"],
}  # fmt: skip
BODY = b"from the application"
CLOSES = ("wsgiref", "werkzeug")
"""Those that answer one request on a connection."""


@pytest.fixture(scope="module", params=list(enumerate(SERVERS)), ids=lambda param: param[1])
def server(request, tmp_path_factory):
    """Its name, port and process."""
    number, name = request.param
    port = free_port()
    command = [sys.executable, *(word.replace("{}", str(port)) for word in SERVERS[name])]
    log = tmp_path_factory.mktemp("server") / "log"
    process = start(command, log, f"http://127.0.0.1:{port}/", ENGINE=ENGINES[number % len(ENGINES)])
    yield name, port, process
    if process.poll() is None:
        stop(process)
    assert "Traceback" not in log.read_text(), log.read_text()[-4000:]


def ask(port: int, *requests: str, target: str = "/", version: str = "1.1") -> list[tuple[int, dict[str, str], bytes]]:
    """Send a request for each of these headers on one connection. What is not an HTTP raises."""
    client, answers = h11.Connection(h11.CLIENT), []
    with socket.create_connection(("127.0.0.1", port), timeout=10) as wire:
        for name in requests:
            headers = [("host", "example.com"), *([(name, "1")] if name else [])]
            client.send(h11.Request(method="GET", target=target, headers=headers))
            client.send(h11.EndOfMessage())
            lines = "".join(f"{name}: {value}\r\n" for name, value in headers)
            wire.sendall(f"GET {target} HTTP/{version}\r\n{lines}\r\n".encode())
            head, body = None, b""
            while not isinstance(event := client.next_event(), h11.EndOfMessage):
                if event is h11.NEED_DATA:
                    client.receive_data(wire.recv(65536))
                elif isinstance(event, h11.Response):
                    head = event
                elif isinstance(event, h11.Data):
                    body += bytes(event.data)
                else:
                    pytest.fail(f"{event} after {answers}")
            assert head is not None
            answers.append((head.status_code, {name.decode(): value.decode() for name, value in head.headers}, body))
            if name != requests[-1] or len(answers) < len(requests):
                client.start_next_cycle()
    return answers


def test_a_filters_own_answer(server):
    name, port, _ = server
    for asked in ("x-403",), ("x-403", "x-403"):
        if len(asked) == 1 or name not in CLOSES:
            for status, headers, body in ask(port, *asked):
                assert (status, headers["x-from"], body) == (403, "filter", b"forbidden")


def test_a_filters_own_answer_without_a_body(server):
    [(status, _, body)] = ask(server[1], "x-empty")
    assert (status, body) == (401, b"")


@pytest.mark.parametrize("status", [204, 304])
def test_a_response_that_has_no_body(server, status):
    name, port, _ = server
    for got, headers, body in ask(port, *([f"x-{status}"] * (1 if name in CLOSES else 2))):
        assert (got, headers["x-from"], headers.get("content-length"), body) == (status, "filter", None, b"")


@pytest.mark.parametrize(("header", "target"), [("x-600", "/"), ("", "/?x-control=1"), ("", "/?x-name=1")])
def test_what_no_server_could_send(server, header, target):
    name, port, _ = server
    for status, headers, body in ask(port, *([header] * (1 if name in CLOSES else 2)), target=target):
        assert (status, headers["content-length"], body) == (503, "0", b"")


def test_a_length_that_is_none(server):
    [(status, headers, body)] = ask(server[1], "", target="/?x-length=1")
    assert (status, headers.get("content-length", str(len(BODY))), body) == (200, str(len(BODY)), BODY)


@pytest.mark.parametrize("target", ["/", "/?x-length=1"])
def test_a_client_of_http_1_0_gets_no_chunks(server, target):
    [(status, headers, body)] = ask(server[1], "", target=target, version="1.0")
    assert (status, "transfer-encoding" in headers, body) == (200, False, BODY)


def test_a_filter_that_loops_is_stopped_and_the_server_ends_when_it_is_told(server):
    """Others are served meanwhile or after it, as the server has threads; the last test of each server."""
    _, port, process = server
    statuses = []

    def loop():
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
        connection.request("GET", "/", headers={"x-loop": "1"})
        statuses.append(connection.getresponse().status)
        connection.close()

    threads = [threading.Thread(target=loop) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert statuses == [503, 503]
    until = time.monotonic() + 10
    while ask(port, "")[0][0] != 200:  # no more than half of the time goes into new guests
        assert time.monotonic() < until
    process.send_signal(signal.SIGTERM)
    process.wait(15)
