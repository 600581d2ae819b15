"""The side of clients, as bytes: which requests are some, what is refused, and how responses are framed."""

from __future__ import annotations

import contextlib
import json
import re
import threading
import time
from collections.abc import Iterator
from http.client import BadStatusLine, HTTPException

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.serve.in_process import Answer, Beside, beside
from tests.serve.origin import Origin, raw, running

HOST = b"Host: example.com\r\n"
GET = b"GET / HTTP/1.1\r\n" + HOST
POST = b"POST / HTTP/1.1\r\n" + HOST
CHUNKED = b"Transfer-Encoding: chunked\r\n"
KNOWN = "host: example.com"
CLOSE = b"GET /last HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
UNTOLD = {"use_remote_address": False, "generate_request_id": False}


@pytest.fixture(scope="module")
def upstream() -> Iterator[Origin]:
    with running() as upstream:
        yield upstream


@pytest.fixture(scope="module")
def plain(upstream: Origin) -> Iterator[Beside]:
    """A server without filters, and with the limits of the default."""
    with beside({"upstream": upstream.url, "filters": [], "forwarded": UNTOLD}) as served:
        yield served


def seen(answer: Answer) -> list[object]:
    """What upstream says that it was asked."""
    told = json.loads(answer.body)
    headers = [f"{name}: {value}" for name, value in told["headers"] if name != "x-forwarded-proto"]
    return [told["method"], told["target"], headers, told["body"]]


# -- Requests that are some --------------------------------------------------------------------------------------------

GOOD = [
    (GET + b"\r\n", ["GET", "/", [KNOWN], ""]),
    (b"\r\n\r\n" + GET + b"\r\n", ["GET", "/", [KNOWN], ""]),
    (b"get /a/../b//c HTTP/1.1\r\n" + HOST + b"\r\n", ["get", "/a/../b//c", [KNOWN], ""]),
    (b"GET /x? HTTP/1.1\r\n" + HOST + b"\r\n", ["GET", "/x?", [KNOWN], ""]),
    (b"GET /x?a?b/%2F&' HTTP/1.1\r\n" + HOST + b"\r\n", ["GET", "/x?a?b/%2F&'", [KNOWN], ""]),
    (b"GET //evil.example/ HTTP/1.1\r\n" + HOST + b"\r\n", ["GET", "//evil.example/", [KNOWN], ""]),
    (b"OPTIONS * HTTP/1.1\r\n" + HOST + b"\r\n", ["OPTIONS", "*", [KNOWN], ""]),
    (b"GET http://other.example:81/p?q HTTP/1.1\r\n" + HOST + b"\r\n", ["GET", "/p?q", ["host: other.example:81"], ""]),
    (b"GET HTTPS://other.example HTTP/1.1\r\n" + HOST + b"X: 1\r\n\r\n", ["GET", "/", ["host: other.example", "x: 1"], ""]),
    (b"GET http://other.example?q HTTP/1.1\r\n" + HOST + b"\r\n", ["GET", "/?q", ["host: other.example"], ""]),
    (b"OPTIONS http://other.example HTTP/1.1\r\n" + HOST + b"\r\n", ["OPTIONS", "/", ["host: other.example"], ""]),
    (b"GET / HTTP/1.1\r\nHost: [::1]:80\r\n\r\n", ["GET", "/", ["host: [::1]:80"], ""]),
    (GET + b"Authorization: \t Bearer t \t\r\nEmpty:\r\nTab: a\tb\r\n\r\n", ["GET", "/", [KNOWN, "authorization: Bearer t", "empty: ", "tab: a\tb"], ""]),
    (GET + b"User-Agent: \xff\xfe\r\nX: 1\r\nX: 2\r\n\r\n", ["GET", "/", [KNOWN, "user-agent: \xff\xfe", "x: 1", "x: 2"], ""]),
    (POST + b"Content-Length: 5\r\n\r\nhello", ["POST", "/", [KNOWN, "content-length: 5"], "hello"]),
    (GET + b"Content-Length: 0005\r\n\r\nhello", ["GET", "/", [KNOWN, "content-length: 0005"], "hello"]),
    (POST + b"Content-Length: 0\r\n\r\n", ["POST", "/", [KNOWN, "content-length: 0"], ""]),
    (POST + b"Transfer-Encoding: Chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n", ["POST", "/", [KNOWN, "transfer-encoding: chunked"], "hello"]),
    (POST + CHUNKED + b"\r\n00a;x=\"y\";z\r\nhello worl\r\n1 ;a\r\nd\r\n000\r\n\r\n", ["POST", "/", [KNOWN, "transfer-encoding: chunked"], "hello world"]),
    (POST + CHUNKED + b"\r\n2\r\nab\r\n0\r\nX-User: admin\r\nContent-Length: 9\r\n\r\n", ["POST", "/", [KNOWN, "transfer-encoding: chunked"], "ab"]),
    (b"POST / HTTP/1.1\r\n" + HOST + b"Connection: upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nContent-Length: 5\r\n\r\nhello", ["POST", "/", [KNOWN, "content-length: 5"], "hello"]),
]  # fmt: skip


@pytest.mark.parametrize(("sent", "told"), GOOD)
def test_a_request_however_it_is_cut(plain, sent, told):
    for parts in (
        [sent],
        [sent[:10], sent[10:]],
        [sent[:-1], sent[-1:]],
        [sent[at : at + 1] for at in range(len(sent))],
    ):
        assert seen(plain.answer(*parts)) == told


def test_requests_sent_ahead_are_answered_in_order(plain):
    sent = b"".join(part for part, _ in GOOD)
    for size in (7, 100, len(sent)):
        with plain.connect() as client:
            for at in range(0, len(sent), size):
                client.send(sent[at : at + size])
            assert [seen(client.answer()) for _ in GOOD] == [told for _, told in GOOD]


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
    (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400),  # TLS
    (b"{}\r\n\r\n", 400),
    (b"G(T / HTTP/1.1\r\n" + HOST + b"\r\n", 400),
    (b"GET * HTTP/1.1\r\n" + HOST + b"\r\n", 400),
    (b"GET x HTTP/1.1\r\n" + HOST + b"\r\n", 400),
    (b"GET ?x HTTP/1.1\r\n" + HOST + b"\r\n", 400),
    (b"GET /a#b HTTP/1.1\r\n" + HOST + b"\r\n", 400),
    (b"GET /a\x00b HTTP/1.1\r\n" + HOST + b"\r\n", 400),
    (b"GET /a\x7fb HTTP/1.1\r\n" + HOST + b"\r\n", 400),
    (b"GET /\xe4 HTTP/1.1\r\n" + HOST + b"\r\n", 400),
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
    (POST + b"Transfer-Encoding: gzip\r\n" + CHUNKED + b"\r\n", 400),
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
def test_what_is_no_request_is_refused_however_it_is_cut(plain, upstream, sent, status):
    """Once, and the connection ends with it, whatever the client sends behind."""
    upstream.requests.clear()
    for parts in (
        [sent],
        [sent, CLOSE],
        [sent[: len(sent) // 2], sent[len(sent) // 2 :]],
        [sent[at : at + 1] for at in range(300)] + [sent[300:]],
    ):
        told = plain.told(*parts)
        assert (told[:7], told[8:13]) == (b"HTTP/1.", b" %d " % status), told
        assert told.count(b"connection: close\r\n") == 1
        assert len(re.findall(rb"HTTP/1\.[01] \d", told)) == 1
    assert "/last" not in [request.target for request in upstream.requests]


# -- Limits ------------------------------------------------------------------------------------------------------------


def with_headers(count: int, size: int = 1) -> bytes:
    return (
        b"GET / HTTP/1.1\r\n" + HOST + b"".join(b"X-%d: %b\r\n" % (number, b"a" * size) for number in range(count - 1))
    )


@pytest.mark.parametrize(
    ("sent", "clients", "status"),
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
        (POST + CHUNKED + b"\r\n0\r\nX: " + b"a" * 61_440, {}, 400),
    ],
)
def test_heads_and_trailers_have_limits(plain, upstream, sent, clients, status):
    with beside({"upstream": upstream.url, "filters": [], "clients": clients}) as served:
        for size in (len(sent), 1000):
            assert served.answer(*[sent[at : at + size] for at in range(0, len(sent), size)]).status == status


def test_heads_without_end_are_not_read(plain):
    assert plain.told(GET, *[b"X: " + b"a" * 100_000] * 200).startswith(b"HTTP/1.1 431 ")


LATE = {"header_timeout": 0.2, "keepalive": 0.2}


@pytest.mark.parametrize(
    ("parts", "begins"),
    [
        ([b""], b"HTTP/1.1 408 "),
        ([b"GET / HT"], b"HTTP/1.1 408 "),
        ([b"\r\n"] * 3, b"HTTP/1.1 408 "),
        ([GET + b"\r\n"], b"HTTP/1.1 200 "),
    ],
)
def test_who_is_slow_is_cut_off(upstream, parts, begins):
    """With a head, or without a request at all."""
    with beside({"upstream": upstream.url, "filters": [], "clients": LATE}) as served:
        told = served.told(*parts)
    assert told.startswith(begins)
    assert told.count(b"HTTP/1.1 ") == 1


def test_who_is_slow_with_a_second_head_is_cut_off(upstream):
    with (
        beside({"upstream": upstream.url, "filters": [], "clients": {**LATE, "keepalive": 10}}) as served,
        served.connect() as client,
    ):
        client.send(GET + b"\r\n")
        assert client.answer().status == 200
        client.send(b"GET")
        assert (client.answer().status, client.rest()) == (408, b"")


def test_connections_have_a_number(upstream):
    with beside({"upstream": upstream.url, "filters": [], "clients": {"max_connections": 1}}) as served:
        with served.connect() as first:
            first.send(GET + b"\r\n")
            assert first.answer().status == 200
            told = served.told()
            assert told.startswith(b"HTTP/1.1 503 ")
            assert told.endswith(b"there are too many connections\n")
            first.send(GET + b"\r\n")
            assert first.answer().status == 200
        until = time.monotonic() + 10
        while served.answer(GET + b"\r\n").status != 200:
            assert time.monotonic() < until
        assert set(served.requests()) == {"200", "503"}


def test_a_request_without_host_or_with_an_empty_one(plain, upstream):
    """The one gets the address that it was sent to, the other that of upstream."""
    for sent in (b"GET / HTTP/1.0\r\n\r\n", b"GET / HTTP/1.1\r\nHost:\r\n\r\n"):
        method, target, headers, _ = seen(plain.answer(sent))
        at = plain.port if b"1.0" in sent else upstream.port
        assert (method, target, headers) == ("GET", "/", [f"host: 127.0.0.1:{at}"])


# -- Bodies, responses and connections ---------------------------------------------------------------------------------

INSIDE = b"GET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n"


@pytest.mark.parametrize(
    "framing", [b"Connection: Upgrade\r\nUpgrade: h2c\r\n", b"Connection: Upgrade\r\nUpgrade: websocket\r\n", b""]
)
def test_nothing_is_smuggled_in_what_is_a_body(plain, upstream, framing):
    upstream.requests.clear()
    head = POST + framing + b"Content-Length: %d\r\n\r\n" % len(INSIDE)
    for parts in ([head + INSIDE], [head, INSIDE]):
        assert seen(plain.answer(*parts))[3] == INSIDE.decode()
    assert [request.target for request in upstream.requests] == ["/", "/"]


EXPECT = POST + b"Content-Length: 5\r\nExpect: 100-continue\r\n\r\n"
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


def test_who_waits_for_leave_to_send_gets_it_when_the_body_is_wanted(plain):
    with plain.connect() as client:
        client.send(EXPECT)
        assert client.read(len(CONTINUE)) == CONTINUE
        client.send(b"hello")
        assert seen(client.answer())[3] == "hello"


def test_a_client_of_http_1_0_may_keep_its_connection(plain, upstream):
    """If it asks for that, as long as responses have a length."""
    upstream.answers["/unknown"] = raw(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n")
    asked = b"GET %b HTTP/1.0\r\nHost: example.com\r\n%b\r\n"
    with plain.connect() as client:
        for _ in range(2):
            client.send(asked % (b"/", b"Connection: keep-alive\r\n"))
            assert client.answer().headers["connection"] == "keep-alive"
        client.send(asked % (b"/unknown", b"Connection: keep-alive\r\n"))
        answer = client.answer()
        assert (answer.body, client.rest()) == (b"ok", b"")
        assert not {"connection", "transfer-encoding"} & set(answer.headers)
    for version, headers in ((b"1.0", b""), (b"1.1", b"Connection: close\r\n")):
        told = plain.told((asked % (b"/", headers)).replace(b"1.0", version), GET + b"\r\n")
        assert (told[:13], told.count(b" 200 OK\r\n")) == (b"HTTP/%b 200 " % version, 1)


def test_an_answer_that_comes_early_can_be_read(plain, upstream):
    """The client still sends, and gets the answer, not a reset."""

    async def enough(request, reader, writer) -> bool:
        await reader.read(5)
        writer.write(b"HTTP/1.1 413 Too Large\r\ncontent-length: 4\r\n\r\nmuch")
        await writer.drain()
        return False

    upstream.answers["/early"] = enough
    head = POST.replace(b" / ", b" /early ")
    for framing in (CHUNKED + b"\r\n186a0\r\n", b"Content-Length: 10000000\r\n\r\n"):
        with plain.connect() as client:
            client.send(head + framing)
            for _ in range(20):
                client.send(b"x" * 5000)
            early = client.answer()
            assert (early.status, early.body) == (413, b"much")


@pytest.mark.parametrize(
    ("asked", "sent", "status", "headers", "body"),
    [
        (GET, b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok", 200, {"content-length": "2"}, b"ok"),
        (GET, b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\no\r\n1\r\nk\r\n0\r\n\r\n", 200, {"transfer-encoding": "chunked"}, b"ok"),
        (GET, b"HTTP/1.1 200 OK\r\n\r\nok", 200, {"transfer-encoding": "chunked"}, b"ok"),
        (GET, b"HTTP/1.0 200 OK\r\n\r\nok", 200, {"transfer-encoding": "chunked"}, b"ok"),
        (GET, b"HTTP/1.1 204 No Content\r\n\r\n", 204, {}, b""),
        (GET, b"HTTP/1.1 304 Not Modified\r\ncontent-length: 2\r\netag: x\r\n\r\n", 304, {"etag": "x"}, b""),
        (GET, b"HTTP/1.1 299 Odd\r\ncontent-length: 2\r\n\r\nok", 299, {"content-length": "2"}, b"ok"),
        (b"HEAD / HTTP/1.1\r\n" + HOST, b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n", 200, {"content-length": "2"}, b""),
        (GET.replace(b"1.1", b"1.0"), b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", 200, {}, b"ok"),
        (GET.replace(b"1.1", b"1.0"), b"HTTP/1.1 204 No Content\r\n\r\n", 204, {}, b""),
    ],
)  # fmt: skip
def test_a_response_is_framed_as_it_can_be_read(plain, upstream, asked, sent, status, headers, body):
    upstream.answers["/shape"] = raw(sent)
    asked = asked.replace(b" / ", b" /shape ") + b"\r\n"
    with plain.connect() as client:
        for _ in range(1 if b"1.0" in asked else 2):
            client.send(asked)
            answer = client.answer(asked.partition(b" ")[0].decode())
            answer.headers.pop("date")
            assert (answer.status, answer.headers, answer.body) == (status, headers, body)
        if b"1.0" in asked:
            assert client.rest() == b""


@pytest.mark.parametrize(
    "sent",
    [
        b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\nzz\r\n",
    ],
)
def test_a_response_that_breaks_off_is_not_taken_for_whole(plain, upstream, sent):
    """Nor by a client of HTTP/1.0, which gets no length."""
    upstream.answers["/cut"] = raw(sent)
    with pytest.raises(HTTPException):
        plain.answer(GET.replace(b" / ", b" /cut ") + b"\r\n")
    if b"chunked" in sent:
        with pytest.raises(ConnectionResetError):
            plain.answer(GET.replace(b" / HTTP/1.1", b" /cut HTTP/1.0") + b"\r\n")


def test_a_client_that_takes_nothing_is_cut_off(upstream):
    async def endless(request, reader, writer) -> bool:
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        while True:
            writer.write(b"x" * 100_000)
            await writer.drain()

    upstream.answers["/endless"] = endless
    with (
        beside({"upstream": upstream.url, "filters": [], "stream_idle_timeout": 0.2}) as served,
        served.connect() as client,
    ):
        client.send(GET.replace(b" / ", b" /endless ") + b"\r\n")
        until = time.monotonic() + 20
        while served.requests() != {"200": 1}:
            assert time.monotonic() < until
            time.sleep(0.02)


def test_a_client_that_leaves_is_counted_without_a_status(upstream):
    async def never(request, reader, writer) -> bool:
        await reader.read()
        left.set()
        return False

    left = threading.Event()
    upstream.answers["/never"] = never
    with beside({"upstream": upstream.url, "filters": []}) as served:
        with served.connect() as client:
            client.send(GET.replace(b" / ", b" /never ") + b"\r\n")
            while not any(request.target == "/never" for request in upstream.requests):
                time.sleep(0.01)
        assert left.wait(10)
        assert served.requests() == {"0": 1}


# -- Whatever comes ----------------------------------------------------------------------------------------------------

PIECES = [
    *[part for sent, _ in GOOD for part in sent.split(b" ")], *[sent for sent, _ in BAD], b"\r\n", b"\n", b"\r", b" ", b":", b"\0", b"0",
    b"5\r\nhello\r\n", b"0\r\n\r\n", CHUNKED, HOST, b"Content-Length: 5\r\n",
]  # fmt: skip


@settings(max_examples=100)
@given(st.lists(st.one_of(st.sampled_from(PIECES), st.binary(max_size=20)), max_size=12))
def test_whatever_comes_each_answer_is_whole_and_the_server_goes_on(plain, parts):
    with plain.connect() as client:
        with contextlib.suppress(OSError):
            for part in parts:
                client.send(part)
            client.end()
        with contextlib.suppress(BadStatusLine, ConnectionError):  # no more answers
            while True:
                assert client.answer().status in (200, 400, 408, 414, 431, 501, 505)
    assert plain.answer(GET + b"\r\n").status == 200
