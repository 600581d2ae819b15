"""What a message may have beside its head and body: trailers, interim responses, and leave to send."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from tests.driver.test_http2 import Server
from tests.serve.conftest import HEADERS
from tests.serve.http2_client import Connection, request
from tests.serve.in_process import beside
from tests.serve.origin import Origin, Reader, Request, Writer, raw, running
from tests.serve.test_serve import certificate
from tests.support import FILTERS

OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
POST = b"POST / HTTP/1.1\r\nhost: a\r\n"
TRAILED = """
@on_request_trailers
replace_header_map_value 1 x-asked changed
add_header_map_value 1 x-more 1
@on_response_trailers
get_header_map_value 3 x-answer
if_status 0
replace_header_map_value 3 x-answer changed
"""


@pytest.fixture(scope="module")
def origin() -> Iterator[Origin]:
    with running() as origin:
        yield origin


@pytest.fixture(scope="module")
def server(tmp_path_factory) -> Iterator[Server]:
    """One of HTTP/2."""
    server = Server(certificate(tmp_path_factory.mktemp("tls")))
    yield server
    server.kill()


def through(engine: Any, script: str, upstream: object, **options: object) -> dict[str, Any]:
    probe = {"file": str(FILTERS / "c/probe_0_2_1.wasm"), "configuration": "\n" + script, **options}
    return {"upstream": upstream, "filters": [probe], "engine": engine.name}


# -- Trailers ----------------------------------------------------------------------------------------------------------


@pytest.mark.carries("serve", "request trailers")
def test_trailers_over_http1(engine, origin):
    """Those that are announced, to who takes them."""
    came: list[bytes] = []

    async def answer(request: Request, reader: Reader, writer: Writer) -> bool:
        came.append(await reader.readuntil(b"\r\n\r\n"))
        head = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ntrailer: x-answer\r\n\r\n"
        writer.write(head + b"2\r\nok\r\n0\r\nx-answer: 1\r\n\r\n")
        return True

    origin.answers["/"] = answer
    head = POST + b"te: trailers\r\ntrailer: x-asked, x-more\r\ntransfer-encoding: chunked\r\n\r\n"
    with beside(through(engine, TRAILED, origin.url)) as served, served.connect() as client:
        client.send(head + b"2\r\nab\r\n0\r\nx-asked: 1\r\n\r\n")
        told = b""
        while not told.endswith(b"\r\n\r\n2\r\nok\r\n0\r\nx-answer: changed\r\n\r\n"):
            data = client.read(1)
            assert data, told
            told += data
    assert came == [b"2\r\nab\r\n0\r\nx-asked: changed\r\nx-more: 1\r\n\r\n"]


@pytest.mark.carries("serve", "request trailers")
def test_trailers_over_http2(engine, server):
    upstream = {"url": f"https://127.0.0.1:{server.port}", "protocol": "http2", "tls": {"ca": server.tls[0], "server_name": "localhost"}}
    with beside(through(engine, TRAILED, upstream)) as served:
        headers, body, trailers = request(served.port, "/echo/trailers", [], b"ab", [("x-asked", "1")], tls=False)
    assert (headers[":status"], trailers) == ("200", {"x-answer": "changed"})
    assert body.endswith(b" x-asked=changed x-more=1 ab")


def test_as_many_headers_and_trailers_as_are_allowed_over_http2(server):
    """More are refused before filters see them, as over HTTP/1."""
    tls = {"ca": server.tls[0], "server_name": "localhost"}
    upstream = {"url": f"https://127.0.0.1:{server.port}", "protocol": "http2", "tls": tls}
    with beside({"upstream": upstream, "filters": [HEADERS], "clients": {"max_headers": 100}}) as served:
        for count, headers_status, trailers_status in ((100, "200", "200"), (101, "431", "400")):
            many = [("x", "1")] * count
            assert request(served.port, "/echo", many, b"ab", tls=False)[0][":status"] == headers_status
            assert request(served.port, "/echo", [], b"ab", many, tls=False)[0][":status"] == trailers_status


# -- Leave to send -----------------------------------------------------------------------------------------------------

EXPECT = POST + b"content-length: 5\r\nexpect: 100-continue\r\n\r\n"
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


def test_a_filter_that_waits_for_the_body_gives_leave_to_send_it(engine, origin):
    origin.answers["/"] = raw(OK, keep=True)
    origin.requests.clear()
    waiting = through(engine, "@on_request_headers\nreturn 1", origin.url, allow_on_headers_stop_iteration=True)
    with beside(waiting) as served, served.connect() as client:
        client.send(EXPECT)
        assert client.read(len(CONTINUE)) == CONTINUE
        assert origin.requests == []
        client.send(b"hello")
        assert client.answer("POST").body == b"ok"
    assert (origin.requests[0].body, origin.requests[0]["expect"]) == (b"hello", None)


def test_a_filter_that_answers_gives_none(engine, origin):
    origin.requests.clear()
    script = "@on_request_headers\nsend_local_response 403 details no a=b -1\nreturn 1"
    with beside(through(engine, script, origin.url)) as served, served.connect() as client:
        client.send(EXPECT)
        client.end()
        told = client.rest()
    assert told.startswith(b"HTTP/1.1 403 ")
    assert (told.count(b"HTTP/1.1 "), origin.requests) == (1, [])


# -- Interim responses -------------------------------------------------------------------------------------------------

HINT = b"HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n"


@pytest.mark.parametrize("filters", [[], [HEADERS]], ids=["past filters", "through a filter"])
@pytest.mark.parametrize("version", [b"1.1", b"1.0"])
def test_interim_responses_of_a_server_end_here(origin, filters, version):
    """However many there are, and the connection goes on."""
    origin.answers["/"] = raw(b"HTTP/1.1 100 Continue\r\n\r\n", HINT, HINT * 1000 + OK, keep=True)
    before = origin.connections
    with beside({"upstream": origin.url, "filters": filters}) as served:
        for _ in range(2):
            told = served.told(b"GET / HTTP/%b\r\nhost: a\r\nconnection: close\r\n\r\n" % version)
            assert (told.count(b"HTTP/1."), told.count(b" 200 OK\r\n"), told[-6:]) == (1, 1, b"\r\n\r\nok")
    assert origin.connections == before + 1


def test_interim_responses_of_a_server_of_http2_end_here(server):
    upstream = {"url": f"https://127.0.0.1:{server.port}", "protocol": "http2", "tls": {"ca": server.tls[0], "server_name": "localhost"}}
    with beside({"upstream": upstream, "filters": [HEADERS]}) as served:
        assert served.answer(b"GET /hinted HTTP/1.1\r\nhost: a\r\n\r\n").status == 200
        with Connection(served.port) as connection:
            stream = connection.stream("GET", "/hinted", end=True)
            assert (stream.status, stream.rest(), stream.informational) == (200, b"at last", [])


def test_interim_responses_without_end_are_no_response(origin):
    """They are not kept, and do not count as one."""
    gone = threading.Event()

    async def endless(request: Request, reader: Reader, writer: Writer) -> bool:
        try:
            while True:
                writer.write(HINT * 100)
                await writer.drain()
                await asyncio.sleep(0.001)
        finally:
            gone.set()

    origin.answers["/"] = endless
    with beside({"upstream": {"url": origin.url, "timeout": 0.3}, "filters": []}) as served:
        answer = served.answer(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n")
        assert (answer.status, answer.body) == (504, b"upstream request timeout")
        assert gone.wait(10)
