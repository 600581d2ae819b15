"""HTTP/1.1 towards clients, as bytes: what comes in, what the application sees, what goes out."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import wraps

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from uvicorn.server import ServerState

from proxywasm_host.runtime.header_limits import HeaderLimits
from proxywasm_host.serve import wire as wire_module
from proxywasm_host.serve.wire import Chunked
from tests.serve.wires import Wire, answering, body, echo, seen, start

HOST = b"Host: example.com\r\n"
GET = b"GET / HTTP/1.1\r\n" + HOST
POST = b"POST / HTTP/1.1\r\n" + HOST
CHUNKED = b"Transfer-Encoding: chunked\r\n"
KNOWN = "host: example.com"


def in_loop(test: Callable) -> Callable:
    @wraps(test)
    def run(*args: object, **kwargs: object) -> None:
        asyncio.run(asyncio.wait_for(test(*args, **kwargs), 20))

    return run


# -- Requests that are some --------------------------------------------------------------------------------------------

GOOD = [
    (GET + b"\r\n", ["GET", "/", [KNOWN], ""]),
    (b"\r\n\r\n" + GET + b"\r\n", ["GET", "/", [KNOWN], ""]),
    (b"get /a/../b//c HTTP/1.1\r\n" + HOST + b"\r\n", ["get", "/a/../b//c", [KNOWN], ""]),
    (b"GET /x? HTTP/1.1\r\n" + HOST + b"\r\n", ["GET", "/x?", [KNOWN], ""]),
    (b"GET /x?a?b/%2F&\xe4 HTTP/1.1\r\n" + HOST + b"\r\n", ["GET", "/x?a?b/%2F&\xe4", [KNOWN], ""]),
    (b"GET //evil.example/ HTTP/1.1\r\n" + HOST + b"\r\n", ["GET", "//evil.example/", [KNOWN], ""]),
    (b"OPTIONS * HTTP/1.1\r\n" + HOST + b"\r\n", ["OPTIONS", "*", [KNOWN], ""]),
    (b"GET http://other.example:81/p?q HTTP/1.1\r\n" + HOST + b"\r\n", ["GET", "/p?q", ["host: other.example:81"], ""]),
    (b"GET HTTPS://other.example HTTP/1.1\r\n" + HOST + b"X: 1\r\n\r\n", ["GET", "/", ["host: other.example", "x: 1"], ""]),
    (b"GET http://other.example?q HTTP/1.1\r\n" + HOST + b"\r\n", ["GET", "/?q", ["host: other.example"], ""]),
    (b"OPTIONS http://other.example HTTP/1.1\r\n" + HOST + b"\r\n", ["OPTIONS", "*", ["host: other.example"], ""]),
    (b"GET / HTTP/1.1\r\nHost:\r\n\r\n", ["GET", "/", ["host: "], ""]),
    (b"GET / HTTP/1.1\r\nHost: [::1]:80\r\n\r\n", ["GET", "/", ["host: [::1]:80"], ""]),
    (GET + b"Authorization: \t Bearer t \t\r\nEmpty:\r\nTab: a\tb\r\n\r\n", ["GET", "/", [KNOWN, "authorization: Bearer t", "empty: ", "tab: a\tb"], ""]),
    (GET + b"User-Agent: \xff\xfe\r\nX: 1\r\nX: 2\r\n\r\n", ["GET", "/", [KNOWN, "user-agent: \xff\xfe", "x: 1", "x: 2"], ""]),
    (POST + b"Content-Length: 5\r\n\r\nhello", ["POST", "/", [KNOWN, "content-length: 5"], "hello"]),
    (GET + b"Content-Length: 0005\r\n\r\nhello", ["GET", "/", [KNOWN, "content-length: 0005"], "hello"]),
    (POST + b"Content-Length: 0\r\n\r\n", ["POST", "/", [KNOWN, "content-length: 0"], ""]),
    (POST + b"Transfer-Encoding: Chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n", ["POST", "/", [KNOWN, "transfer-encoding: Chunked"], "hello"]),
    (POST + CHUNKED + b"\r\n00a;x=\"y\";z\r\nhello worl\r\n1 ;a\r\nd\r\n000\r\n\r\n", ["POST", "/", [KNOWN, "transfer-encoding: chunked"], "hello world"]),
    (POST + CHUNKED + b"\r\n2\r\nab\r\n0\r\nX-User: admin\r\nContent-Length: 9\r\n\r\n", ["POST", "/", [KNOWN, "transfer-encoding: chunked"], "ab"]),
    (b"POST / HTTP/1.1\r\n" + HOST + b"Connection: upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nContent-Length: 5\r\n\r\nhello", ["POST", "/", [KNOWN, "connection: upgrade, HTTP2-Settings", "upgrade: h2c", "content-length: 5"], "hello"]),
    (b"GET / HTTP/1.0\r\n\r\n", ["GET", "/", [], ""]),
]  # fmt: skip


@pytest.mark.parametrize(("sent", "told"), GOOD)
@in_loop
async def test_a_request_however_it_is_cut(sent, told):
    """At each byte, and byte by byte."""
    assert seen(await Wire().send(sent)) == [told]
    assert seen(await Wire().send(*[sent[at : at + 1] for at in range(len(sent))])) == [told]
    for at in range(1, len(sent)):
        assert seen(await Wire().send(sent[:at], sent[at:])) == [told]


@in_loop
async def test_requests_sent_ahead_are_answered_in_order():
    sent = b"".join(part for part, _ in GOOD[:-1])
    for size in (1, 7, 100, len(sent)):
        answers = await Wire().send(*[sent[at : at + size] for at in range(0, len(sent), size)])
        assert seen(answers) == [told for _, told in GOOD[:-1]]


@in_loop
async def test_nothing_is_smuggled_in_what_is_a_body(inner=b"GET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n"):
    for head in (
        POST + b"Connection: Upgrade\r\nUpgrade: h2c\r\nContent-Length: %d\r\n\r\n" % len(inner),
        POST + b"Connection: Upgrade\r\nUpgrade: websocket\r\nContent-Length: %d\r\n\r\n" % len(inner),
        GET + b"Content-Length: %d\r\n\r\n" % len(inner),
    ):
        assert [request[3] for request in seen(await Wire().send(head, inner))] == [inner.decode()]
        assert [request[3] for request in seen(await Wire().send(head + inner))] == [inner.decode()]


# -- Requests that are none --------------------------------------------------------------------------------------------

BAD = [
    (b"GET /\r\n", 400),  # HTTP/0.9
    (b"GET / \r\n", 400),
    (b"GET / HTTP/1.1 \r\n", 400),
    (b"GET  / HTTP/1.1\r\n" + HOST + b"\r\n", 400),
    (b"GET\t/ HTTP/1.1\r\n" + HOST + b"\r\n", 400),
    (b" GET / HTTP/1.1\r\n" + HOST + b"\r\n", 400),
    (b"GET / HTTP/1.1\n" + HOST, 400),
    (b"GET / HTTP/1.1\r\nHost: x\n\n", 400),
    (b"GET / http/1.1\r\n" + HOST + b"\r\n", 400),
    (b"GET / HTTP/1.1x\r\n" + HOST + b"\r\n", 400),
    (b"GET / HTTP/11\r\n" + HOST + b"\r\n", 400),
    (b"GET / HTTP/2.0\r\n" + HOST + b"\r\n", 505),
    (b"GET / HTTP/0.9\r\n" + HOST + b"\r\n", 505),
    (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
    (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400),  # TLS
    (b"{}\r\n\r\n", 400),
    (b"G(T / HTTP/1.1\r\n" + HOST + b"\r\n", 400),
    (b"GET * HTTP/1.1\r\n" + HOST + b"\r\n", 400),
    (b"GET x HTTP/1.1\r\n" + HOST + b"\r\n", 400),
    (b"GET ?x HTTP/1.1\r\n" + HOST + b"\r\n", 400),
    (b"GET /a#b HTTP/1.1\r\n" + HOST + b"\r\n", 400),
    (b"GET /a\x00b HTTP/1.1\r\n" + HOST + b"\r\n", 400),
    (b"GET /a\x7fb HTTP/1.1\r\n" + HOST + b"\r\n", 400),
    (b"GET ftp://x/ HTTP/1.1\r\n" + HOST + b"\r\n", 400),
    (b"GET http:///x HTTP/1.1\r\n" + HOST + b"\r\n", 400),
    (b"GET http://u:p@x/ HTTP/1.1\r\n" + HOST + b"\r\n", 400),
    (b"GET http://x:y/ HTTP/1.1\r\n" + HOST + b"\r\n", 400),
    (b"CONNECT example.com:443 HTTP/1.1\r\n" + HOST + b"\r\n", 501),
    (b"CONNECT /x HTTP/1.1\r\n" + HOST + b"\r\n", 501),
    (b"GET / HTTP/1.1\r\n\r\n", 400),
    (GET + HOST + b"\r\n", 400),
    (GET + b"Host: other\r\n\r\n", 400),
    (b"GET / HTTP/1.0\r\n" + HOST + HOST + b"\r\n", 400),
    (b"GET / HTTP/1.1\r\nHost: a b\r\n\r\n", 400),
    (b"GET / HTTP/1.1\r\nHost: a, b\r\n\r\n", 400),
    (b"GET / HTTP/1.1\r\nHost: a/b\r\n\r\n", 400),
    (b"GET / HTTP/1.1\r\nHost: u@a\r\n\r\n", 400),
    (b"GET / HTTP/1.1\r\nHost: a:b\r\n\r\n", 400),
    (b"GET / HTTP/1.1\r\nHost: [::1\r\n\r\n", 400),
    (b"GET / HTTP/1.1\r\nHost: \xe4\r\n\r\n", 400),
    (b"GET http://x/ HTTP/1.1\r\n" + HOST + HOST + b"\r\n", 400),
    (GET + b"X : 1\r\n\r\n", 400),
    (GET + b": 1\r\n\r\n", 400),
    (GET + b"X\r\n\r\n", 400),
    (GET + b" X: 1\r\n\r\n", 400),
    (GET + b"X: 1\r\n folded\r\n\r\n", 400),
    (GET + b"X: 1\r\n\tfolded\r\n\r\n", 400),
    (GET + b"X: a\x00b\r\n\r\n", 400),
    (GET + b"X: a\x01b\r\n\r\n", 400),
    (GET + b"X: a\rb\r\n\r\n", 400),
    (GET + b"X: a\nY: b\r\n\r\n", 400),
    (GET + b"X(: 1\r\n\r\n", 400),
    (GET + b"\xe4: 1\r\n\r\n", 400),
    (POST + b"Content-Length: 5\r\n" + CHUNKED + b"\r\n0\r\n\r\n", 400),
    (POST + CHUNKED + b"Content-Length: 5\r\n\r\n0\r\n\r\n", 400),
    (POST + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello", 400),
    (POST + b"Content-Length: 5\r\nContent-Length: 5\r\n\r\nhello", 400),
    (POST + b"Content-Length: 5, 5\r\n\r\nhello", 400),
    (POST + b"Content-Length: +5\r\n\r\nhello", 400),
    (POST + b"Content-Length: -5\r\n\r\nhello", 400),
    (POST + b"Content-Length: 0x5\r\n\r\nhello", 400),
    (POST + b"Content-Length: 5 5\r\n\r\nhello", 400),
    (POST + b"Content-Length:\r\n\r\nhello", 400),
    (POST + b"Content-Length: \xb2\r\n\r\nhello", 400),
    (POST + b"Content-Length: 9999999999999999999\r\n\r\n", 400),
    (POST + b"Transfer-Encoding: gzip, chunked\r\n\r\n", 501),
    (POST + b"Transfer-Encoding: gzip\r\n" + CHUNKED + b"\r\n", 501),
    (POST + b"Transfer-Encoding: gzip\r\n\r\n", 400),
    (POST + b"Transfer-Encoding: identity\r\n\r\n", 400),
    (POST + b"Transfer-Encoding: chunked, identity\r\n\r\n", 400),
    (POST + b"Transfer-Encoding: chunked, chunked\r\n\r\n", 501),
    (POST + CHUNKED + CHUNKED + b"\r\n", 501),
    (POST + b"Transfer-Encoding: xchunked\r\n\r\n", 400),
    (POST + b"Transfer-Encoding: \x0bchunked\r\n\r\n", 400),
    (POST + b"Transfer-Encoding: \"chunked\"\r\n\r\n", 400),
    (POST + b"Transfer-Encoding:\r\n\r\n", 400),
    (b"POST / HTTP/1.0\r\n" + HOST + CHUNKED + b"\r\n0\r\n\r\n", 400),
    (POST + CHUNKED + b"\r\nx\r\n", 400),
    (POST + CHUNKED + b"\r\n-1\r\n", 400),
    (POST + CHUNKED + b"\r\n 5\r\nhello\r\n", 400),
    (POST + CHUNKED + b"\r\n5 \r\nhello\r\n", 400),
    (POST + CHUNKED + b"\r\n0x5\r\nhello\r\n", 400),
    (POST + CHUNKED + b"\r\n5\nhello\r\n", 400),
    (POST + CHUNKED + b"\r\n5\r\nhelloX", 400),
    (POST + CHUNKED + b"\r\n5\r\nhello\n0\r\n\r\n", 400),
    (POST + CHUNKED + b"\r\n5;a\x00\r\nhello\r\n", 400),
    (POST + CHUNKED + b"\r\n11111111111111111\r\n", 400),
    (POST + CHUNKED + b"\r\n" + b"0" * 5000, 400),
    (POST + CHUNKED + b"\r\n5;" + b"a" * 5000, 400),
    (POST + CHUNKED + b"\r\n0\r\nX : 1\r\n\r\n", 400),
    (POST + CHUNKED + b"\r\n0\r\nX: 1\n\r\n\r\n", 400),
]  # fmt: skip


@pytest.mark.parametrize(("sent", "status"), BAD)
@in_loop
async def test_what_is_no_request_is_refused_however_it_is_cut(sent, status):
    """Once, and the connection ends with it, whatever the client sends behind."""
    for parts in ([sent], [sent, GET + b"\r\n"], [sent[at : at + 1] for at in range(min(len(sent), 300))] + [sent[300:]]):
        wire = Wire()
        answer = await wire.send(*parts)
        assert answer.startswith(b"HTTP/1.1 %d " % status)
        assert answer.count(b"connection: close\r\n") == 1
        assert wire.transport.ended


# -- Limits ------------------------------------------------------------------------------------------------------------


def with_headers(count: int, size: int = 1) -> bytes:
    return b"GET / HTTP/1.1\r\n" + HOST + b"".join(b"X-%d: %b\r\n" % (number, b"a" * size) for number in range(count - 1))


@pytest.mark.parametrize(
    ("sent", "settings", "status"),
    [
        (with_headers(100) + b"\r\n", {}, 200),
        (with_headers(101) + b"\r\n", {}, 431),
        (with_headers(1100) + b"\r\n", {}, 431),
        (with_headers(1100) + b"\r\n", {"max_headers": 1100}, 200),
        (with_headers(3) + b"\r\n", {"max_headers": 2}, 431),
        (with_headers(60, 1000) + b"\r\n", {}, 200),
        (with_headers(62, 1000) + b"\r\n", {}, 431),
        (with_headers(62, 1000) + b"\r\n", {"max_header_size": "64KiB"}, 200),
        (with_headers(62, 1000), {}, 431),
        (with_headers(2, 70_000), {}, 431),
        (b"GET /" + b"a" * 61_440, {}, 414),
        (b"GET /" + b"a" * 60_000 + b" HTTP/1.1\r\n" + HOST + b"\r\n", {}, 200),
        (b"A" * 61_441, {}, 414),
        (POST + CHUNKED + b"\r\n0\r\n" + b"X: 1\r\n" * 100 + b"\r\n", {}, 200),
        (POST + CHUNKED + b"\r\n0\r\n" + b"X: 1\r\n" * 101 + b"\r\n", {}, 431),
        (POST + CHUNKED + b"\r\n0\r\nX: " + b"a" * 61_440, {}, 431),
    ],
)
@in_loop
async def test_heads_and_trailers_have_limits(sent, settings, status):
    for size in (len(sent), 1000):
        wire = Wire(**settings)
        answer = await wire.send(*[sent[at : at + size] for at in range(0, len(sent), size)])
        assert answer.startswith(b"HTTP/1.1 %d " % status)


@in_loop
async def test_heads_and_bodies_without_end_are_not_kept():
    wire = Wire()
    await wire.send(GET, *[b"X: " + b"a" * 100_000] * 20)
    assert len(wire.protocol._buffer) == 0
    never = Wire(answering())
    await never.send(POST + CHUNKED + b"\r\n0\r\n", *[b"X: 1\r\n"] * 200)
    assert never.transport.ended


@in_loop
async def test_a_head_in_small_parts_is_looked_at_once(monkeypatch):
    """A client that sends byte by byte would else make us look at 60 KiB for each of them."""
    looked = []

    class Looks:
        def search(self, data: bytes, at: int = 0) -> None:
            looked.append(len(data) - at)

        def match(self, data: bytes, at: int, end: int) -> bool:
            looked.append(min(len(data), end) - at)
            return True

    monkeypatch.setattr(wire_module, "LONE_LF", Looks())
    monkeypatch.setattr(wire_module, "METHOD", Looks())
    for begun in (GET + HOST + b"X: ", b"GET /", b"G"):
        wire = Wire()
        wire.protocol.data_received(begun)
        looked.clear()
        for _ in range(2000):
            wire.protocol.data_received(b"a")
        assert len(looked) >= 2000
        assert max(looked) <= 64
        wire.leave()


@in_loop
async def test_who_is_slow_with_a_head_is_cut_off():
    silent, half = Wire(header_timeout=0.05), Wire(header_timeout=0.05)
    half.protocol.data_received(b"GET / HT")
    dripping = Wire(header_timeout=0.05)
    for _ in range(10):
        dripping.protocol.data_received(b"\r\n")
        await asyncio.sleep(0.01)
    await asyncio.sleep(0.1)
    assert (silent.transport.written, silent.transport.closed) == (b"", True)
    assert half.transport.written.startswith(b"HTTP/1.1 408 ")
    assert (dripping.transport.written, dripping.transport.closed) == (b"", True)


@in_loop
async def test_a_second_head_has_its_time_as_well():
    wire = Wire(header_timeout=0.05, keepalive=10)
    await wire.send(GET + b"\r\n")
    await asyncio.sleep(0.1)
    assert not wire.transport.closed
    await wire.send(b"GET")
    await asyncio.sleep(0.1)
    assert wire.transport.written.count(b"HTTP/1.1 408 ") == 1


@in_loop
async def test_a_connection_without_requests_is_closed():
    wire = Wire(keepalive=0.05)
    await wire.send(GET + b"\r\n")
    await asyncio.sleep(0.1)
    assert wire.transport.closed


@in_loop
async def test_connections_have_a_number():
    state = ServerState()
    first, second = Wire(state=state, max_connections=1), Wire(state=state, max_connections=1)
    assert second.transport.written.startswith(b"HTTP/1.1 503 ")
    assert seen(await first.send(GET + b"\r\n"))
    first.leave()
    second.leave()
    assert seen(await Wire(state=state, max_connections=1).send(GET + b"\r\n"))


@in_loop
async def test_a_client_that_takes_nothing_is_cut_off():
    async def endless(scope, receive, send):
        await send(start())
        while True:
            await send(body(b"x", more=True))
            await asyncio.sleep(0)

    wire = Wire(endless, idle=0.05)
    wire.protocol.data_received(GET + b"\r\n")
    await asyncio.sleep(0.01)
    wire.protocol.pause_writing()
    await asyncio.sleep(0.1)
    assert wire.transport.aborted
    wire.leave()


@pytest.mark.parametrize("ends", [b"Connection: close\r\n", b""])
@in_loop
async def test_who_takes_nothing_of_the_last_answer_is_cut_off(ends):
    """And who takes it slowly is not."""
    for taken in (0, 10):
        wire = Wire(idle=0.1, keepalive=0.01)
        wire.transport.unsent = 1000
        await wire.send(GET + ends + b"\r\n")
        for _ in range(20):
            await asyncio.sleep(0.02)
            wire.transport.unsent -= taken
        assert (wire.transport.closed, wire.transport.aborted) == (True, taken == 0)
        wire.leave()


# -- Responses ---------------------------------------------------------------------------------------------------------

LENGTH = (b"content-length", b"2")


@pytest.mark.parametrize(
    ("request_", "messages", "answer"),
    [
        (GET, [start(200, LENGTH), body(b"ok")], b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"),
        (GET, [start(), body(b"o", more=True), body(b""), body(b"k")], b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\no\r\n0\r\n\r\n"),
        (GET, [start(200, (b"transfer-encoding", b"gzip")), body(b"ok")], b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n"),
        (GET, [start(200, LENGTH, LENGTH), body(b"ok")], b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"),
        (GET, [start(200, LENGTH, (b"connection", b"x-y, close")), body(b"ok")], b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok"),
        (GET, [start(204, LENGTH), body(b"ok")], b"HTTP/1.1 204 No Content\r\n\r\n"),
        (GET, [start(304, LENGTH), body()], b"HTTP/1.1 304 Not Modified\r\ncontent-length: 2\r\n\r\n"),
        (GET, [start(304), body(b"ok")], b"HTTP/1.1 304 Not Modified\r\n\r\n"),
        (GET, [start(600, LENGTH), body(b"ok")], b"HTTP/1.1 600 \r\ncontent-length: 2\r\n\r\nok"),
        (GET, [start(299, LENGTH), body(b"ok")], b"HTTP/1.1 299 \r\ncontent-length: 2\r\n\r\nok"),
        (GET, [start(99, LENGTH), body(b"ok")], b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n"),
        (GET, [start(100), body(b"ok")], b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n"),
        (GET, [start(1000), body(b"ok")], b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n"),
        (GET, [start(200, (b"x", b"a\x01b")), body(b"ok")], b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n"),
        (GET, [start(200, (b"x", b"a\r\nb: c")), body(b"ok")], b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n"),
        (GET, [start(200, (b"x y", b"a")), body(b"ok")], b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n"),
        (GET, [start(200, (b"", b"a")), body(b"ok")], b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n"),
        (GET, [start(200, (b"content-length", b"x")), body(b"ok")], b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n"),
        (GET, [start(200, LENGTH, (b"content-length", b"3")), body(b"ok")], b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n"),
        (b"HEAD / HTTP/1.1\r\n" + HOST, [start(200, LENGTH), body(b"ok")], b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n"),
        (b"HEAD / HTTP/1.1\r\n" + HOST, [start(), body(b"ok")], b"HTTP/1.1 200 OK\r\n\r\n"),
        (GET, [], b"HTTP/1.1 500 Internal Server Error\r\ncontent-length: 0\r\n\r\n"),
    ],
)  # fmt: skip
@in_loop
async def test_a_response_is_framed_as_it_can_be_read(request_, messages, answer):
    wire = Wire(answering(*messages))
    assert await wire.send(request_ + b"\r\n") == answer
    closed = b"connection: close" in answer
    assert wire.transport.closed is closed
    if not closed:
        assert await wire.send(request_ + b"\r\n") == answer * 2


@pytest.mark.parametrize(
    ("messages", "answer"),
    [
        ([start(200, LENGTH), body(b"ok")], b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok"),
        ([start(), body(b"o", more=True), body(b"k")], b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\nok"),
        ([start(204), body()], b"HTTP/1.1 204 No Content\r\nconnection: close\r\n\r\n"),
    ],
)
@in_loop
async def test_a_client_of_http_1_0_gets_no_chunks(messages, answer):
    wire = Wire(answering(*messages))
    assert await wire.send(b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n" + GET) == answer
    assert wire.transport.closed
    assert not wire.transport.aborted


@pytest.mark.parametrize(
    ("version", "messages", "aborted"),
    [
        (b"1.1", [start(200, LENGTH), body(b"o")], True),
        (b"1.1", [start(200, LENGTH), body(b"okk")], True),
        (b"1.1", [start(200, LENGTH), body(b"o", more=True)], False),
        (b"1.1", [start(), body(b"ok", more=True)], False),
        (b"1.0", [start(), body(b"ok", more=True)], True),
    ],
)
@in_loop
async def test_a_response_that_is_not_whole_is_not_taken_for_whole(version, messages, aborted):
    """A close tells so where there is a length or chunks; else only a reset does."""
    wire = Wire(answering(*messages))
    answer = await wire.send(b"GET / HTTP/%b\r\n" % version + HOST + b"\r\n")
    assert not answer.endswith(b"0\r\n\r\n")
    assert (wire.transport.closed, wire.transport.aborted) == (True, aborted)


@in_loop
async def test_an_application_that_raises(caplog):
    async def raises(scope, receive, send):
        raise ValueError("a mistake")

    assert (await Wire(raises).send(GET + b"\r\n")).startswith(b"HTTP/1.1 500 ")
    assert "a mistake" in caplog.text


# -- Bodies and connections --------------------------------------------------------------------------------------------

EXPECT = POST + b"Content-Length: 5\r\nExpect: 100-continue\r\n\r\n"
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


@in_loop
async def test_who_waits_for_leave_to_send_gets_it_when_the_body_is_wanted():
    wire = Wire()
    assert await wire.send(EXPECT) == CONTINUE
    assert seen((await wire.send(b"hello")).removeprefix(CONTINUE))[0][3] == "hello"
    old = b"POST / HTTP/1.0\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n"
    assert await Wire().send(old) == b""


@in_loop
async def test_who_was_refused_gets_no_leave(caplog):
    answer = await Wire().send(POST + CHUNKED + b"Expect: 100-continue\r\n\r\nnone\r\n")
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert answer.count(b"HTTP/1.1 ") == 1
    assert not caplog.records


@in_loop
async def test_an_early_answer_ends_the_connection_when_the_client_could_read_it():
    early = b"HTTP/1.1 413 Content Too Large\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
    for sent in (EXPECT, POST + b"Content-Length: 5\r\n\r\nhel", POST + CHUNKED + b"\r\n5\r\nhello\r\n"):
        wire = Wire(answering(start(413, (b"content-length", b"0")), body()))
        assert (await wire.send(sent)).replace(b"Request Entity", b"Content") == early
        await wire.send(b"lo", GET + b"\r\n")
        assert wire.transport.written.count(b"HTTP/1.1") == 1
        assert (wire.transport.ended, wire.transport.closed) == (True, False)


@in_loop
async def test_a_body_that_nobody_takes_stops_the_client():
    going = asyncio.Event()

    async def later(scope, receive, send):
        await going.wait()
        await echo(scope, receive, send)

    wire = Wire(later)
    await wire.send(POST + b"Content-Length: 200000\r\n\r\n", b"x" * 100_000)
    assert wire.transport.paused
    going.set()
    await wire.settle()
    assert not wire.transport.paused
    await wire.send(b"x" * 100_000)
    assert len(seen(wire.transport.written)[0][3]) == 200_000


@in_loop
async def test_what_is_sent_ahead_without_end_stops_the_client():
    going = asyncio.Event()

    async def later(scope, receive, send):
        await going.wait()
        await echo(scope, receive, send)

    wire = Wire(later)
    await wire.send(GET + b"\r\n", *[GET + b"\r\n"] * 2500)
    assert wire.transport.paused
    going.set()
    while wire.transport.written.count(b"HTTP/1.1 200 OK") < 2501:
        await asyncio.sleep(0)
    assert not wire.transport.paused


@in_loop
async def test_a_client_that_leaves_is_told_to_the_application():
    told = []

    async def waits(scope, receive, send):
        told.append((await receive())["type"])
        told.append((await receive())["type"])
        await send(start())

    wire = Wire(waits)
    await wire.send(GET + b"\r\n")
    wire.leave()
    await wire.settle()
    assert told == ["http.request", "http.disconnect"]
    assert wire.transport.written == b""
    assert not wire.state.connections


@in_loop
async def test_a_server_that_ends_lets_the_request_end():
    going = asyncio.Event()

    async def later(scope, receive, send):
        await going.wait()
        await echo(scope, receive, send)

    busy, idle = Wire(later), Wire()
    await busy.send(GET + b"\r\n" + GET + b"\r\n")
    busy.protocol.shutdown()
    idle.protocol.shutdown()
    assert (busy.transport.closed, idle.transport.closed) == (False, True)
    going.set()
    await busy.settle()
    assert b"connection: close\r\n" in busy.transport.written
    assert (len(seen(busy.transport.written)), busy.transport.closed) == (1, True)


# -- Whatever comes ----------------------------------------------------------------------------------------------------

PIECES = [
    *[part for sent, _ in GOOD for part in sent.split(b" ")], *[sent for sent, _ in BAD], b"\r\n", b"\n", b"\r", b" ", b":", b"\0", b"0",
    b"5\r\nhello\r\n", b"0\r\n\r\n", CHUNKED, HOST, b"Content-Length: 5\r\n", b"Expect: 100-continue\r\n",
]  # fmt: skip


@given(st.lists(st.one_of(st.sampled_from(PIECES), st.binary(max_size=20)), max_size=12))
@example([POST, CHUNKED, b"\r\n", b"5\r\nhello\r\n", b"0\r\n", b"X"])
def test_whatever_comes_nothing_is_raised_and_each_answer_is_whole(parts):
    """And the application sees the same, however it is cut; what is refused may be so for another reason first."""

    @in_loop
    async def test():
        told = [answers(await Wire().send(b"".join(parts))), answers(await Wire().send(*parts))]
        assert told[0] == told[1]

    test()


def answers(told: bytes) -> list[bytes]:
    """What the application has answered, and that there was a refusal after it."""
    found = []
    while told:
        head, end, told = told.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 ")
        assert end
        length = head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0]
        assert length or head == CONTINUE[:-4]
        assert len(told) >= int(length or 0)
        found.append(told[: int(length or 0)] if head[9:10] in b"12" else b"refused")
        told = told[int(length or 0) :]
    return found


@given(st.lists(st.binary(min_size=1, max_size=50), max_size=10), st.data())
def test_a_chunked_body_is_what_it_was(parts, data):
    sent = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts) + b"0\r\n\r\n"
    cuts = sorted(data.draw(st.lists(st.integers(0, len(sent)), max_size=8)))
    body, got = Chunked(HeaderLimits()), []
    for begin, end in zip([0, *cuts], [*cuts, len(sent)], strict=True):
        part, rest = body.feed(sent[begin:end])
        got.append(part)
        if rest is not None:
            assert (rest, end) == (b"", len(sent))
            break
    else:
        raise AssertionError("it has no end")
    assert b"".join(got) == b"".join(parts)
