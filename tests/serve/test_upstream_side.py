"""The side of upstream, as bytes: how requests arrive, which responses are some, and what comes where there is none."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import threading
import time
from collections.abc import Iterator

import pytest

from proxywasm_host.serve import dataplane_config
from tests.serve.http2_client import Connection
from tests.serve.in_process import Beside, beside
from tests.serve.origin import Origin, Reader, Request, Writer, raw, running
from tests.serve.ports import closed_port

UNTOLD = {"use_remote_address": False, "generate_request_id": False}
RESET = "upstream connect error or disconnect/reset before headers. reset reason: "
WHOLE = b"HTTP/1.1 200 OK\r\nX-Seen: yes \t\r\nContent-Length: 2\r\n\r\nok"


@pytest.fixture(scope="module")
def shared() -> Iterator[Origin]:
    with running() as origin:
        yield origin


@pytest.fixture
def origin(shared: Origin) -> Origin:
    """One that nobody has asked yet."""
    shared.requests.clear()
    shared.answers.clear()
    return shared


@pytest.fixture(scope="module")
def plain(shared: Origin) -> Iterator[Beside]:
    """A server without filters."""
    with beside(before(shared)) as served:
        yield served


@pytest.fixture
def fresh(origin: Origin) -> Iterator[Beside]:
    """The same, and nothing is connected yet."""
    with beside(before(origin)) as served:
        yield served


def before(origin: Origin, **upstream: object) -> dict[str, object]:
    """A configuration."""
    return {"upstream": {"url": origin.url, **upstream}, "filters": [], "forwarded": UNTOLD}


def asked(target: bytes = b"/", method: bytes = b"GET", headers: bytes = b"", body: bytes = b"") -> bytes:
    return b"%b %b HTTP/1.1\r\nhost: example.com\r\n%b\r\n%b" % (method, target, headers, body)


def without_proto(headers: list[list[str]]) -> list[list[str]]:
    return [pair for pair in headers if pair[0] != "x-forwarded-proto"]


def test_what_belongs_to_one_connection_stays_there(plain, origin):
    headers = b"connection: close, X-Mine\r\nx-mine: 1\r\nte: trailers\r\nupgrade: h2c\r\nkeep-alive: 5\r\nx-yours: 1\r\nx-yours: 2\r\n"
    seen = json.loads(plain.answer(asked(headers=headers)).body)
    assert without_proto(seen["headers"]) == [
        ["host", "example.com"],
        ["x-yours", "1"],
        ["x-yours", "2"],
        ["te", "trailers"],
    ]
    origin.answers["/hop"] = raw(
        b"HTTP/1.1 200 OK\r\nconnection: X-Mine\r\nx-mine: 1\r\nkeep-alive: 5\r\nx-yours: 1\r\ncontent-length: 0\r\n\r\n"
    )
    assert set(plain.answer(asked(b"/hop")).headers) == {"x-yours", "content-length", "date"}


def test_bodies_are_framed_as_they_are_known(fresh):
    for headers, body, framing in (
        (b"content-length: 10\r\n", b"helloworld", ["content-length", "10"]),
        (b"transfer-encoding: chunked\r\n", b"5\r\nhello\r\n5\r\nworld\r\n0\r\n\r\n", ["transfer-encoding", "chunked"]),
        (b"content-length: 0\r\n", b"", ["content-length", "0"]),
        (b"", b"", None),
    ):
        seen = json.loads(fresh.answer(asked(b"/", b"POST", headers, body)).body)
        assert seen["body"] == ("helloworld" if len(body) > 5 else "")
        assert without_proto(seen["headers"])[1:] == ([framing] if framing else [])


def test_cookies_that_were_split_are_one(plain, origin):
    seen = json.loads(plain.answer(asked(headers=b"cookie: a=1\r\ncookie: b=2\r\n")).body)
    assert ["cookie", "a=1; b=2"] in seen["headers"]


def test_host_and_path_of_upstream(origin):
    settings = before(origin, rewrite_host=True)
    settings["upstream"]["url"] += "/base/"
    with beside(settings) as served:
        seen = json.loads(served.answer(asked(b"/x?y")).body)
    assert seen["target"] == "/base/x?y"
    assert without_proto(seen["headers"]) == [["host", f"127.0.0.1:{origin.port}"], ["x-forwarded-host", "example.com"]]


@pytest.mark.parametrize(
    ("sent", "seen", "body"),
    [
        (WHOLE, "yes", b"ok"),
        (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n" + WHOLE, "yes", b"ok"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked\r\nX-Seen: 1\r\n\r\n1\r\no\r\n1;x=y\r\nk\r\n0\r\nX-Trailer: 1\r\n\r\n", "1", b"ok"),
        (b"HTTP/1.1 200\r\ncontent-length: 0\r\n\r\n", None, b""),
    ],
)  # fmt: skip
def test_a_response_however_it_is_cut(plain, origin, sent, seen, body):
    for parts in (
        [sent],
        [sent[:20], sent[20:]],
        [sent[:-3], sent[-3:]],
        [sent[at : at + 7] for at in range(0, len(sent), 7)],
    ):
        origin.answers["/"] = raw(*parts)
        answer = plain.answer(asked())
        assert (answer.status, answer.headers.get("x-seen"), answer.body) == (200, seen, body)


def test_a_second_response_to_one_request(fresh, origin):
    """Its bytes do not change the first, and the connection is not used again."""
    origin.answers["/twice"] = raw(WHOLE + b"HTTP/1.1 500 No\r\nX-Second: 1\r\nContent-Length: 0\r\n\r\n", keep=True)
    before = origin.connections
    client, other = fresh.answer(asked(b"/twice")), fresh.answer(asked())
    assert (client.status, client.body, set(client.headers)) == (200, b"ok", {"x-seen", "content-length", "date"})
    assert (other.status, origin.connections - before) == (200, 2)


def test_a_response_that_nobody_asked_for(fresh, origin):
    async def twice(request: Request, reader: Reader, writer: Writer) -> bool:
        writer.write(WHOLE)
        await asyncio.sleep(0.05)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nsmuggled!")
        return True

    origin.answers["/twice"] = twice
    before = origin.connections
    fresh.answer(asked(b"/twice"))
    time.sleep(0.15)
    assert json.loads(fresh.answer(asked()).body)["target"] == "/"
    assert origin.connections - before == 2


@pytest.mark.parametrize("announced", ["Content-Length: 5", "Transfer-Encoding: chunked", "Content-Length: 0", "X: 1"])
def test_a_body_where_there_is_none_is_no_response_to_the_next_request(fresh, origin, announced):
    """It comes later, when another request may have the connection."""

    async def later(request: Request, reader: Reader, writer: Writer) -> bool:
        writer.write(b"HTTP/1.1 204 No Content\r\n%b\r\n\r\n" % announced.encode())
        await asyncio.sleep(0.05)
        if announced[-1] != "0" and announced != "X: 1":
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nsmuggled!")
        return True

    origin.answers["/none"] = later
    client = fresh.answer(asked(b"/none"))
    time.sleep(0.1)
    assert (client.status, json.loads(fresh.answer(asked()).body)["target"]) == (204, "/")


def test_connections_are_used_again(origin):
    before_it = origin.connections
    with beside(before(origin)) as served:
        for method in (b"GET", b"HEAD", b"GET"):
            assert served.answer(asked(method=method)).status == 200
        assert served.answer(asked(b"/", b"POST", b"content-length: 1\r\n", b"x")).status == 200
    assert origin.connections - before_it == 1


def test_a_connection_to_http_1_0_is_not_used_again(fresh, origin):
    """A body of unknown size could not be framed there, and would be lost."""

    async def answer(request: Request, reader: Reader, writer: Writer) -> bool:
        writer.write(b"HTTP/1.0 200 OK\r\nconnection: keep-alive\r\ncontent-length: 0\r\n\r\n")
        return True

    origin.answers["/old"] = answer
    assert fresh.answer(asked(b"/old")).status == 200
    sent = fresh.answer(asked(b"/", b"POST", b"transfer-encoding: chunked\r\n", b"5\r\nhello\r\n0\r\n\r\n"))
    assert json.loads(sent.body)["body"] == "hello"


def test_a_connection_that_is_not_used_is_closed(origin):
    ended = threading.Event()

    async def last(request: Request, reader: Reader, writer: Writer) -> bool:
        writer.write(b"HTTP/1.1 204 No Content\r\n\r\n")
        if not await reader.read(1):
            ended.set()
        return False

    origin.answers["/last"] = last
    before_it = origin.connections
    with beside(before(origin, keepalive=0.1)) as served:
        assert served.answer(asked(b"/last")).status == 204
        assert ended.wait(5)
        assert served.answer(asked()).status == 200
    assert origin.connections - before_it == 2


# -- What goes wrong ---------------------------------------------------------------------------------------------------


def test_nobody_listens():
    with beside({"upstream": f"http://127.0.0.1:{closed_port()}", "filters": []}) as served:
        answer = served.answer(asked())
    assert answer.status == 503
    assert answer.body.decode().startswith(f"{RESET}remote connection failure, transport failure reason: ")


NONSENSE = [
    b"nonsense\r\n\r\n",
    b"HTTP/1.1 200 OK\r\ncontent-length: x\r\n\r\n",
    b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nab",
    b"HTTP/1.1 200 OK\r\ncontent-length: -1\r\n\r\n",
    b"HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n",
    b"HTTP/1.1 700 Odd\r\ncontent-length: 0\r\n\r\n",
    b"HTTP/1.1 099 Odd\r\ncontent-length: 0\r\n\r\n",
    b"HTTP/1.1 20 OK\r\n\r\n",
    b"HTTP/1.1 200OK\r\n\r\n",
    b"HTTP/2.0 200 OK\r\n\r\n",
    b"ICY 200 OK\r\n\r\n",
    b"<html>no head",
    b"HTTP/1.1 200 OK\r\nx: 1\r\n folded\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nx : 1\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nx: a\x00b\r\n\r\n",
    b"HTTP/1.1 200 OK\r\n" + b"x: 1\r\n" * 101 + b"\r\n",
    b"HTTP/1.1 200 OK\r\nx: " + b"a" * 62_000 + b"\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nx: " + b"a" * 1_000_000,
    b"HTTP/1.1 103 Early Hints\r\nx: " + b"a" * 1_000_000,
]


@pytest.mark.parametrize("answer", NONSENSE)
def test_what_is_no_response(plain, origin, answer):
    origin.answers["/"] = raw(answer)
    got = plain.answer(asked())
    assert (got.status, got.body.decode()) == (502, f"{RESET}protocol error")


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 200 OK\r\nconte"])
def test_no_response(plain, origin, answer):
    origin.answers["/"] = raw(answer)
    got = plain.answer(asked())
    assert (got.status, got.body.decode()) == (503, f"{RESET}connection termination")


@pytest.mark.parametrize(("limit", "status"), [(3, 200), (2, 502)])
def test_a_response_has_no_more_headers_than_it_may(origin, limit, status):
    origin.answers["/"] = raw(b"HTTP/1.1 200 OK\r\na: 1\r\nb: 2\r\ncontent-length: 0\r\n\r\n")
    with beside(before(origin, max_headers=limit)) as served:
        assert served.answer(asked()).status == status


def test_a_response_that_does_not_come_in_time(origin):
    gone = threading.Event()

    async def never(request: Request, reader: Reader, writer: Writer) -> bool:
        await reader.read()
        gone.set()
        return False

    origin.answers["/"] = never
    with beside(before(origin, timeout=0.1)) as served:
        answer = served.answer(asked())
        assert (answer.status, answer.body) == (504, b"upstream request timeout")
        assert gone.wait(10)


def test_a_body_that_makes_no_progress_is_broken_off(origin):
    async def stalls(request: Request, reader: Reader, writer: Writer) -> bool:
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf")
        await reader.read()
        return False

    origin.answers["/"] = stalls
    with beside(before(origin, idle_timeout=0.1)) as served, pytest.raises(http.client.IncompleteRead):
        served.answer(asked())


def test_no_connection_is_free(origin):
    release = threading.Event()

    async def held(request: Request, reader: Reader, writer: Writer) -> bool:
        while not release.is_set():
            await asyncio.sleep(0.01)
        writer.write(b"HTTP/1.1 204 No Content\r\n\r\n")
        return True

    origin.answers["/held"] = held
    with beside(before(origin, max_connections=1, connect_timeout=0.1)) as served, served.connect() as first:
        first.send(asked(b"/held"))
        while not origin.requests:
            time.sleep(0.01)
        other = served.answer(asked())
        assert (other.status, other.body.decode()) == (503, f"{RESET}overflow")
        release.set()
        assert first.answer().status == 204
        assert served.answer(asked()).status == 200


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (asked(), 200),
        (asked(method=b"POST", headers=b"content-length: 1\r\n", body=b"x"), 503),
        (asked(method=b"POST"), 503),
    ],
)
def test_a_connection_that_the_server_closes_meanwhile(fresh, origin, request_, status):
    """What may be repeated is sent again on a new connection; the rest is not."""

    async def once(request: Request, reader: Reader, writer: Writer) -> bool:
        writer.write(b"HTTP/1.1 204 No Content\r\n\r\n")
        await reader.read(1)  # the next request meets a server that goes away
        return False

    origin.answers["/once"] = once
    before = origin.connections
    assert (fresh.answer(asked(b"/once")).status, fresh.answer(request_).status) == (204, status)
    assert origin.connections - before == (2 if status == 200 else 1)


# -- Bodies and sides that go their own way ----------------------------------------------------------------------------


def test_a_server_that_does_not_read_stops_the_client(fresh, origin):
    going = threading.Event()

    async def slow(request: Request, reader: Reader, writer: Writer) -> bool:
        while not going.is_set():
            await asyncio.sleep(0.01)
        await request.read(reader)
        said = b"%d" % len(request.body)
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(said), said))
        return True

    origin.answers["/"] = slow
    size = 64 << 20
    with fresh.connect() as client:
        client.send(asked(b"/", b"POST", b"content-length: %d\r\n" % size))
        sending = threading.Thread(target=lambda: client.send(b"x" * size))
        sending.start()
        sending.join(0.3)
        assert sending.is_alive()
        going.set()
        assert client.answer("POST").body == b"%d" % size
        sending.join()


def test_a_server_that_has_answered_need_not_read_the_rest_but_is_not_kept_for_ever(origin, monkeypatch):
    monkeypatch.setattr(dataplane_config, "LINGER", 0.3)
    over = threading.Event()

    async def answers_only(request: Request, reader: Reader, writer: Writer) -> bool:
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
        await asyncio.sleep(1)  # it reads nothing meanwhile
        with contextlib.suppress(ConnectionError):
            while await asyncio.wait_for(reader.read(1 << 20), 20):
                pass
        over.set()
        return False

    origin.answers["/"] = answers_only
    size = 64 << 20
    with beside(before(origin)) as served, served.connect() as client:
        client.send(asked(b"/", b"POST", b"content-length: %d\r\n" % size))
        client._socket.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            client._socket.send(b"x" * size)
        client._socket.settimeout(20)
        assert client.answer("POST").body == b"ok"
        assert over.wait(20)


class Large:
    """Answers with so many parts of 64 KiB, and counts those that could be written."""

    def __init__(self, parts: int) -> None:
        self.parts, self.written = parts, 0

    async def __call__(self, request: Request, reader: Reader, writer: Writer) -> bool:
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % (self.parts << 16))
        for _ in range(self.parts):
            writer.write(b"x" * (1 << 16))
            await writer.drain()
            self.written += 1
        return True


def test_a_client_that_does_not_read_stops_the_server(fresh, origin):
    answer = Large(1000)
    origin.answers["/"] = answer
    with fresh.connect() as client:
        client.send(asked())
        time.sleep(0.3)
        assert answer.written < 500
        assert len(client.answer().body) == 1000 << 16


@pytest.mark.parametrize("begun", [False, True])
@pytest.mark.parametrize("half", [False, True])
def test_a_client_that_goes_away_ends_the_exchange_with_upstream(fresh, origin, begun, half):
    """Also one that closes its side alone, as in Envoy and nginx: it looks the same."""
    ended = threading.Event()

    async def wait(request: Request, reader: Reader, writer: Writer) -> bool:
        if begun:
            writer.write(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n")
        assert await reader.read() == b""
        ended.set()
        return False

    origin.answers["/"] = wait
    with fresh.connect() as client:
        client.send(asked())
        if begun:
            assert client.read(15) == b"HTTP/1.1 200 OK"
        while not origin.requests:
            time.sleep(0.01)
        if half:
            client.end()
            assert ended.wait(10)
    assert ended.wait(10)


def test_a_client_of_http2_that_does_not_read_stops_the_server(fresh, origin):
    answer = Large(400)
    origin.answers["/"] = answer
    with Connection(fresh.port) as connection:
        stream = connection.stream("GET", "/", end=True)
        assert stream.status == 200
        time.sleep(0.3)
        assert answer.written < 200
        other = connection.stream("GET", "/other", end=True)
        assert (other.status, json.loads(other.rest())["target"]) == (200, "/other")
        assert len(stream.rest()) == 400 << 16


def test_a_server_that_does_not_read_stops_a_client_of_http2(fresh, origin):
    going = threading.Event()

    async def slow(request: Request, reader: Reader, writer: Writer) -> bool:
        while not going.is_set():
            await asyncio.sleep(0.01)
        await request.read(reader)
        said = b"%d" % len(request.body)
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(said), said))
        return True

    origin.answers["/"] = slow
    size = 32 << 20
    with Connection(fresh.port) as connection:
        stream = connection.stream("POST", "/", [("content-length", str(size))])
        sent = stream.send_while_wanted(b"x" * size, 0.3)
        assert 0 < sent < size
        going.set()
        while sent < size:
            sent += stream.send_while_wanted(b"x" * (size - sent), 10)
        stream.end()
        assert stream.rest() == b"%d" % size
