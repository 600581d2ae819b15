"""The reverse proxy between a client in memory and an upstream on a socket."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterable

import pytest

from proxywasm_host.integrations.asgi.scope import TARGET
from proxywasm_host.runtime.header_limits import HeaderLimits
from proxywasm_host.serve.config import Upstream
from proxywasm_host.serve.connection import Connection, UpstreamError
from proxywasm_host.serve.proxy import DETAILS, Proxy
from tests.integrations.asgi import DISCONNECT, scope
from tests.serve.origin import Origin, Reader, Request, Writer, raw
from tests.serve.ports import closed_port


class Client:
    """A client of the proxy: what it sends, part by part, and what it gets."""

    def __init__(self, parts: Iterable[bytes] = ()) -> None:
        parts = list(parts) or [b""]
        self.incoming = [{"type": "http.request", "body": part, "more_body": True} for part in parts]
        self.incoming[-1]["more_body"] = False
        self.gone = asyncio.Event()
        self.sent: list[dict] = []

    async def receive(self) -> dict:
        await asyncio.sleep(0)
        if self.incoming:
            return self.incoming.pop(0)
        await self.gone.wait()
        return DISCONNECT

    async def send(self, message: dict) -> None:
        await asyncio.sleep(0)
        self.sent.append(message)

    @property
    def status(self) -> int:
        return self.sent[0]["status"]

    @property
    def headers(self) -> dict[bytes, bytes]:
        return dict(self.sent[0]["headers"])

    @property
    def body(self) -> bytes:
        return b"".join(message["body"] for message in self.sent[1:])

    @property
    def complete(self) -> bool:
        return self.sent[-1].get("more_body") in (False, None) and len(self.sent) > 1


def on_origin(test: Callable) -> Callable:
    """Run a test in an event loop, with an origin."""

    def run() -> None:
        async def whole() -> None:
            async with Origin() as origin:
                await asyncio.wait_for(test(origin), 20)

        asyncio.run(whole())

    run.__name__ = test.__name__
    return run


async def through(
    origin: Origin,
    target: str = "/",
    method: str = "GET",
    headers: Iterable = (),
    parts: Iterable[bytes] = (),
    **settings,
) -> Client:
    proxy = Proxy(Upstream(url=origin.url, **settings))
    client = Client(parts)
    await proxy(scope(method, target, headers), client.receive, client.send)
    proxy.close()
    return client


@on_origin
async def test_a_request_arrives_as_it_was_sent(origin):
    client = await through(
        origin, "/a%2Fb/%C3%A4?x=1%20y&&z", "GET", [("host", "example.com"), ("x-one", "1"), ("x-one", "2")]
    )
    seen = json.loads(client.body)
    assert (client.status, seen["method"], seen["target"]) == (200, "GET", "/a%2Fb/%C3%A4?x=1%20y&&z")
    assert seen["headers"] == [["host", "example.com"], ["x-one", "1"], ["x-one", "2"]]
    assert client.complete
    assert b"date" in client.headers


@on_origin
async def test_what_belongs_to_one_connection_stays_there(origin):
    headers = [
        ("connection", "close, X-Mine"),
        ("x-mine", "1"),
        ("te", "trailers"),
        ("upgrade", "h2c"),
        ("keep-alive", "5"),
        ("x-yours", "1"),
    ]
    client = await through(origin, "/", "GET", headers)
    assert json.loads(client.body)["headers"] == [["host", "example.com"], ["x-yours", "1"]]
    origin.answers["/hop"] = raw(
        b"HTTP/1.1 200 OK\r\nconnection: X-Mine\r\nx-mine: 1\r\nkeep-alive: 5\r\nx-yours: 1\r\ncontent-length: 0\r\n\r\n"
    )
    client = await through(origin, "/hop")
    assert set(client.headers) == {b"x-yours", b"content-length", b"date"}


@on_origin
async def test_bodies_are_framed_as_they_are_known(origin):
    for method, headers, parts, framing in (
        ("POST", [("content-length", "10")], [b"hello", b"world"], ["content-length", "10"]),
        ("POST", [("transfer-encoding", "chunked")], [b"hello", b"world"], ["transfer-encoding", "chunked"]),
        ("POST", [], [b"helloworld"], ["content-length", "10"]),
        ("POST", [], [b"hello", b"world"], ["transfer-encoding", "chunked"]),
        ("POST", [("content-length", "0")], [], ["content-length", "0"]),
        ("GET", [], [], None),
    ):
        seen = json.loads((await through(origin, "/", method, headers, parts)).body)
        assert seen["body"] == b"".join(parts).decode()
        assert [pair for pair in seen["headers"] if pair[0] != "host"] == ([framing] if framing else [])


@on_origin
async def test_cookies_that_http2_has_split_are_one(origin):
    client = await through(origin, "/", "GET", [("cookie", "a=1"), ("cookie", "b=2")])
    assert ["cookie", "a=1; b=2"] in json.loads(client.body)["headers"]


@on_origin
async def test_host_and_path_of_upstream(origin):
    proxy = Proxy(Upstream(url=f"{origin.url}/base/", rewrite_host=True))
    client = Client()
    await proxy(scope("GET", "/x?y", [("host", "example.com")]), client.receive, client.send)
    seen = json.loads(client.body)
    assert seen["target"] == "/base/x?y"
    assert seen["headers"] == [["host", f"127.0.0.1:{origin.port}"], ["x-forwarded-host", "example.com"]]
    proxy.close()


@pytest.mark.parametrize(
    ("method", "answer", "status", "body", "length"),
    [
        (
            "GET",
            b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\nx-trailer: 1\r\n\r\n",
            200,
            b"abcde",
            None,
        ),
        ("GET", b"HTTP/1.1 200 OK\r\n\r\nuntil the end", 200, b"until the end", None),
        ("GET", b"HTTP/1.0 200 OK\r\n\r\nold", 200, b"old", None),
        (
            "GET",
            b"HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok",
            200,
            b"ok",
            b"2",
        ),
        ("HEAD", b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n", 200, b"", b"1000"),
        ("GET", b"HTTP/1.1 204 No Content\r\n\r\n", 204, b"", None),
        ("GET", b"HTTP/1.1 304 Not Modified\r\ncontent-length: 1000\r\netag: x\r\n\r\n", 304, b"", None),
    ],
)
def test_responses_of_all_shapes(method, answer, status, body, length):
    @on_origin
    async def test(origin):
        origin.answers["/"] = raw(answer)
        client = await through(origin, "/", method)
        assert (client.status, client.body, client.headers.get(b"content-length")) == (status, body, length)
        assert client.complete

    test()


WHOLE = b"HTTP/1.1 200 OK\r\nX-Seen: yes \t\r\nContent-Length: 2\r\n\r\nok"


@pytest.mark.parametrize(
    ("sent", "headers", "body"),
    [
        (WHOLE, {b"x-seen": b"yes", b"content-length": b"2"}, b"ok"),
        (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n" + WHOLE, {b"x-seen": b"yes", b"content-length": b"2"}, b"ok"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked\r\nX: 1\r\n\r\n1\r\no\r\n1;x=y\r\nk\r\n0\r\nX-Trailer: 1\r\n\r\n", {b"x": b"1"}, b"ok"),
        (b"HTTP/1.1 200\r\ncontent-length: 0\r\n\r\n", {b"content-length": b"0"}, b""),
    ],
)  # fmt: skip
def test_a_response_however_it_is_cut(sent, headers, body):
    async def test():
        for parts in ([sent[at : at + 1] for at in range(len(sent))], *[[sent[:at], sent[at:]] for at in range(len(sent))]):
            connection = Connection(HeaderLimits())
            connection.connection_made(asyncio.WriteTransport())
            connection.begin(b"GET")
            for part in parts:
                connection.data_received(part)
            await connection.head(1)
            assert (connection.status, dict(connection.headers).items() >= headers.items()) == (200, True)
            assert b"".join([data async for data, _ in connection.chunks(1)]) == body
            assert connection.reusable

    asyncio.run(test())


@on_origin
async def test_a_second_response_to_one_request(origin):
    """Its bytes do not change the first, and the connection is not used again."""
    origin.answers["/twice"] = raw(WHOLE + b"HTTP/1.1 500 No\r\nX-Second: 1\r\nContent-Length: 0\r\n\r\n", keep=True)
    proxy, client, other = Proxy(Upstream(url=origin.url)), Client(), Client()
    await proxy(scope("GET", "/twice"), client.receive, client.send)
    await proxy(scope(), other.receive, other.send)
    assert (client.status, client.body, set(client.headers)) == (200, b"ok", {b"x-seen", b"content-length", b"date"})
    assert (other.status, origin.connections) == (200, 2)
    proxy.close()


@on_origin
async def test_a_response_that_nobody_asked_for(origin):
    async def twice(request: Request, reader: Reader, writer: Writer) -> bool:
        writer.write(WHOLE)
        await asyncio.sleep(0.05)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nsmuggled!")
        return True

    origin.answers["/twice"] = twice
    proxy, client, other = Proxy(Upstream(url=origin.url)), Client(), Client()
    await proxy(scope("GET", "/twice"), client.receive, client.send)
    await asyncio.sleep(0.15)
    await proxy(scope(), other.receive, other.send)
    assert json.loads(other.body)["target"] == "/"
    assert origin.connections == 2
    proxy.close()


@pytest.mark.parametrize(
    ("announced", "connections"), [("Content-Length: 5", 2), ("Transfer-Encoding: chunked", 2), ("Content-Length: 0", 1), ("X: 1", 1)]
)
def test_a_body_where_there_is_none_is_no_response_to_the_next_request(announced, connections):
    """It may come later, when another request has the connection."""

    @on_origin
    async def test(origin):
        origin.answers["/none"] = raw(b"HTTP/1.1 204 No Content\r\n%b\r\n\r\n" % announced.encode(), keep=True)
        proxy, client, other = Proxy(Upstream(url=origin.url)), Client(), Client()
        await proxy(scope("GET", "/none"), client.receive, client.send)
        await proxy(scope(), other.receive, other.send)
        assert (client.status, other.status, origin.connections) == (204, 200, connections)
        proxy.close()

    test()


@on_origin
async def test_connections_are_used_again(origin):
    proxy = Proxy(Upstream(url=origin.url))
    for method in ("GET", "HEAD", "POST", "GET"):
        client = Client([b"x"] if method == "POST" else [])
        await proxy(scope(method), client.receive, client.send)
        assert client.status == 200
    assert origin.connections == 1
    proxy.close()
    await asyncio.sleep(0.05)
    assert origin.open == 0


# -- What goes wrong ---------------------------------------------------------------------------------------------------

RESET = "upstream connect error or disconnect/reset before headers. reset reason: "


def test_nobody_listens():
    async def test():
        proxy, client, asked = Proxy(Upstream(url=f"http://127.0.0.1:{closed_port()}")), Client(), scope()
        await proxy(asked, client.receive, client.send)
        assert client.status == 503
        assert client.body.decode().startswith(f"{RESET}remote connection failure, transport failure reason: ")
        assert asked["state"][DETAILS] == "upstream_reset_before_response_started{remote_connection_failure}"

    asyncio.run(test())


@pytest.mark.parametrize(
    ("answer", "status", "says"),
    [
        (b"", 503, f"{RESET}connection termination"),
        (b"HTTP/1.1 200 OK\r\nconte", 503, f"{RESET}connection termination"),
        (b"nonsense\r\n\r\n", 502, f"{RESET}protocol error"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: x\r\n\r\n", 502, f"{RESET}protocol error"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\ntransfer-encoding: chunked\r\n\r\n", 502, f"{RESET}protocol error"),
        (
            b"HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n",
            502,
            f"{RESET}protocol error",
        ),
        (b"HTTP/1.1 700 Odd\r\ncontent-length: 0\r\n\r\n", 502, f"{RESET}protocol error"),
        (b"HTTP/1.1 099 Odd\r\ncontent-length: 0\r\n\r\n", 502, f"{RESET}protocol error"),
        (b"HTTP/1.1 20 OK\r\n\r\n", 502, f"{RESET}protocol error"),
        (b"HTTP/1.1 200OK\r\n\r\n", 502, f"{RESET}protocol error"),
        (b"HTTP/2.0 200 OK\r\n\r\n", 502, f"{RESET}protocol error"),
        (b"ICY 200 OK\r\n\r\n", 502, f"{RESET}protocol error"),
        (b"<html>no head", 502, f"{RESET}protocol error"),
        (b"HTTP/1.1 200 OK\r\nx: 1\r\n folded\r\n\r\n", 502, f"{RESET}protocol error"),
        (b"HTTP/1.1 200 OK\r\nx : 1\r\n\r\n", 502, f"{RESET}protocol error"),
        (b"HTTP/1.1 200 OK\r\nx: a\x00b\r\n\r\n", 502, f"{RESET}protocol error"),
        (b"HTTP/1.1 200 OK\r\nx: a\nb: c\r\n\r\n", 502, f"{RESET}protocol error"),
        (b"HTTP/1.1 200 OK\ncontent-length: 2\n\nok", 502, f"{RESET}protocol error"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nab", 502, f"{RESET}protocol error"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: -1\r\n\r\n", 502, f"{RESET}protocol error"),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: gzip, chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n", 502, f"{RESET}protocol error"),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: gzip\r\n\r\nab", 502, f"{RESET}protocol error"),
        (b"HTTP/1.0 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n", 502, f"{RESET}protocol error"),
        (b"HTTP/1.1 200 OK\r\n" + b"x: 1\r\n" * 101 + b"\r\n", 502, f"{RESET}protocol error"),
        (b"HTTP/1.1 200 OK\r\nx: " + b"a" * 61_440 + b"\r\n\r\n", 502, f"{RESET}protocol error"),
        (b"HTTP/1.1 200 OK\r\nx: " + b"a" * 1_000_000, 502, f"{RESET}protocol error"),
        (b"HTTP/1.1 100 Continue\r\nx: " + b"a" * 61_440 + b"\r\n\r\n", 502, f"{RESET}protocol error"),
    ],
)
def test_no_good_response(answer, status, says):
    @on_origin
    async def test(origin):
        origin.answers["/"] = raw(answer)
        client = await through(origin)
        assert (client.status, client.body.decode()) == (status, says)

    test()


@on_origin
async def test_a_response_that_does_not_come_in_time(origin):
    async def never(request: Request, reader: Reader, writer: Writer) -> bool:
        await reader.read()
        return False

    origin.answers["/"] = never
    client = await through(origin, timeout=0.1)
    assert (client.status, client.body) == (504, b"upstream request timeout")
    await asyncio.sleep(0.05)
    assert origin.open == 0


@pytest.mark.parametrize(
    "parts",
    [
        [b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf"],
        [b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n"],
        [b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n", b"zz\r\n"],
    ],
)
def test_a_response_that_breaks_off_is_not_taken_for_whole(parts):
    @on_origin
    async def test(origin):
        origin.answers["/"] = raw(*parts)
        proxy, client = Proxy(Upstream(url=origin.url)), Client()
        with pytest.raises(UpstreamError):
            await proxy(scope(), client.receive, client.send)
        assert client.status == 200
        assert client.sent[-1].get("more_body", True)

    test()


@on_origin
async def test_a_body_that_makes_no_progress_is_broken_off(origin):
    async def stalls(request: Request, reader: Reader, writer: Writer) -> bool:
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf")
        await reader.read()
        return False

    origin.answers["/"] = stalls
    with pytest.raises(UpstreamError, match="stream idle timeout"):
        await through(origin, idle_timeout=0.1)


@on_origin
async def test_no_connection_is_free(origin):
    release = asyncio.Event()

    async def held(request: Request, reader: Reader, writer: Writer) -> bool:
        await release.wait()
        writer.write(b"HTTP/1.1 204 No Content\r\n\r\n")
        return True

    origin.answers["/held"] = held
    proxy, one, other = Proxy(Upstream(url=origin.url, max_connections=1, connect_timeout=0.1)), Client(), Client()
    first = asyncio.ensure_future(proxy(scope("GET", "/held"), one.receive, one.send))
    await asyncio.sleep(0.02)
    await proxy(scope(), other.receive, other.send)
    assert (other.status, other.body.decode()) == (503, f"{RESET}overflow")
    release.set()
    await first
    assert one.status == 204
    again = Client()
    await proxy(scope(), again.receive, again.send)
    assert again.status == 200
    proxy.close()


@pytest.mark.parametrize(("method", "parts", "status"), [("GET", [], 200), ("POST", [b"x"], 503), ("POST", [], 503)])
def test_a_connection_that_the_server_closes_meanwhile(method, parts, status):
    """What may be repeated is sent again on a new connection; the rest is not."""

    @on_origin
    async def test(origin):
        async def once(request: Request, reader: Reader, writer: Writer) -> bool:
            writer.write(b"HTTP/1.1 204 No Content\r\n\r\n")
            await reader.read(1)  # the next request meets a server that goes away
            return False

        origin.answers["/once"] = once
        proxy, first, second = Proxy(Upstream(url=origin.url)), Client(), Client(parts)
        await proxy(scope("GET", "/once"), first.receive, first.send)
        await proxy(scope(method), second.receive, second.send)
        assert (first.status, second.status) == (204, status)
        assert origin.connections == (2 if status == 200 else 1)
        proxy.close()

    test()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        (b"x", b"a\r\nb: c"),
        (b"x", b"a\nb"),
        (b"x y", b"z"),
        (b"transfer-encoding ", b"chunked"),
        (b"x", b"\0"),
        (b"", b"z"),
    ],
)
def test_a_malformed_header_is_not_sent(name, value):
    @on_origin
    async def test(origin):
        proxy, client, asked = Proxy(Upstream(url=origin.url)), Client(), scope()
        asked["headers"].append((name, value))
        await proxy(asked, client.receive, client.send)
        assert client.status == (503)
        assert origin.requests == []

    test()


@pytest.mark.parametrize(
    ("method", "target", "headers"),
    [
        ("GET", b"x", []),
        ("GET", b"http://other/", []),
        ("GET", b"*", []),
        ("GET", b"/a b", []),
        ("GET", b"/a#b", []),
        ("GET", b"", []),
        ("CONNECT", b"/x", []),
        ("G T", b"/", []),
        ("POST", b"/", [("content-length", "x")]),
        ("POST", b"/", [("content-length", "-1")]),
        ("POST", b"/", [("content-length", "")]),
        ("POST", b"/", [("content-length", "1"), ("content-length", "2")]),
    ],
)
def test_what_a_filter_makes_malformed_is_not_sent(method, target, headers):
    @on_origin
    async def test(origin):
        for base in ("", "/base"):
            proxy, client = Proxy(Upstream(url=origin.url + base)), Client()
            await proxy(scope(method, "/", headers, **{TARGET: target}), client.receive, client.send)
            assert client.status == 503
        assert origin.requests == []

    test()


# -- Bodies and clients that go their own way --------------------------------------------------------------------------


@on_origin
async def test_a_body_of_another_length_than_announced(origin):
    for length, says in (("3", "longer"), ("9", "shorter")):
        client = await through(origin, "/", "POST", [("content-length", length)], [b"hello"])
        assert client.status == 503
        assert client.body.decode() == f"{RESET}the request's body is {says} than its content-length"


@on_origin
async def test_a_response_before_the_request_has_ended(origin):
    async def enough(request: Request, reader: Reader, writer: Writer) -> bool:
        await reader.read(5)
        writer.write(b"HTTP/1.1 413 Too Large\r\ncontent-length: 0\r\n\r\n")
        await writer.drain()
        return False

    class Endless(Client):
        async def receive(self) -> dict:
            await asyncio.sleep(0.001)
            return {"type": "http.request", "body": b"x" * 1000, "more_body": True}

    origin.answers["/"] = enough
    proxy, client = Proxy(Upstream(url=origin.url)), Endless()
    await proxy(scope("POST", "/", [("transfer-encoding", "chunked")]), client.receive, client.send)
    assert client.status == 413
    assert client.complete
    proxy.close()


@on_origin
async def test_a_server_that_does_not_read_stops_the_client(origin):
    read = asyncio.Event()

    async def slow(request: Request, reader: Reader, writer: Writer) -> bool:
        await read.wait()
        await request.read(reader)
        writer.write(
            b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%d" % (len(str(len(request.body))), len(request.body))
        )
        return True

    origin.answers["/"] = slow
    client = Client([b"x" * 65536] * 400)
    proxy = Proxy(Upstream(url=origin.url))
    going = asyncio.ensure_future(
        proxy(scope("POST", "/", [("transfer-encoding", "chunked")]), client.receive, client.send)
    )
    await asyncio.sleep(0.2)
    assert len(client.incoming) > 200
    read.set()
    await going
    assert client.body == b"%d" % (65536 * 400)
    proxy.close()


@on_origin
async def test_a_client_that_does_not_read_stops_the_server(origin):
    written = 0

    async def large(request: Request, reader: Reader, writer: Writer) -> bool:
        nonlocal written
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 26214400\r\n\r\n")
        for _ in range(400):
            writer.write(b"x" * 65536)
            await writer.drain()
            written += 1
        return True

    class Slow(Client):
        def __init__(self) -> None:
            super().__init__()
            self.reads = asyncio.Event()

        async def send(self, message: dict) -> None:
            await self.reads.wait()
            await super().send(message)

    origin.answers["/"] = large
    proxy, client = Proxy(Upstream(url=origin.url)), Slow()
    going = asyncio.ensure_future(proxy(scope(), client.receive, client.send))
    await asyncio.sleep(0.3)
    assert written < 200
    client.reads.set()
    await going
    assert len(client.body) == 26214400
    assert client.complete
    proxy.close()


@pytest.mark.parametrize("begun", [False, True])
def test_a_client_that_goes_away_ends_the_exchange_with_upstream(begun):
    @on_origin
    async def test(origin):
        ended = asyncio.Event()

        async def wait(request: Request, reader: Reader, writer: Writer) -> bool:
            if begun:
                writer.write(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n")
            assert await reader.read() == b""
            ended.set()
            return False

        origin.answers["/"] = wait
        proxy, client = Proxy(Upstream(url=origin.url)), Client()
        going = asyncio.ensure_future(proxy(scope(), client.receive, client.send))
        await asyncio.sleep(0.15)
        client.gone.set()
        await going
        await ended.wait()
        assert [message["type"] for message in client.sent] == (
            ["http.response.start", "http.response.body"] if begun else []
        )

    test()
