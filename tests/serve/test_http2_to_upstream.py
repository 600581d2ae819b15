"""HTTP/2 to upstream, as a real gRPC server and a real gRPC client see it; and how it is agreed."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socketserver
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from queue import Queue
from typing import ClassVar

import grpc
import h2.config
import h2.connection
import h2.events
import pytest

from tests.grpc_services import GrpcServer
from tests.serve import http2_client
from tests.serve.conftest import BODY, HEADERS
from tests.serve.in_process import Beside, beside, serving
from tests.serve.test_serve import certificate, signed
from tests.support import FILTERS


def one(value: bytes) -> bytes:
    return value


@pytest.fixture
def upstream() -> Iterator[GrpcServer]:
    with closing(GrpcServer()) as server:
        yield server


@contextmanager
def closing(server: GrpcServer) -> Iterator[GrpcServer]:
    try:
        yield server
    finally:
        server.stop()


@contextmanager
def through(filters: list[str] | None = None, **upstream: object) -> Iterator[tuple[Beside, grpc.Channel]]:
    """A client that has us between itself and upstream."""
    settings = {"upstream": {"protocol": "http2", **upstream}, "filters": filters or []}
    with beside(settings) as served, grpc.insecure_channel(f"127.0.0.1:{served.port}") as channel:
        yield served, channel


@pytest.mark.carries("serve", "response trailers", "HTTP/2")
@pytest.mark.parametrize("filters", [[], [HEADERS]], ids=["past filters", "through a filter"])
def test_grpc_through_us(upstream, filters):
    with through(filters, url=upstream.url) as (_, channel):
        echo = channel.unary_unary("/test.Echo/Echo", one, one)
        answer, call = echo.with_call(b"hello", metadata=(("x-mine", "1"),), timeout=10)
        assert answer == b"hello"
        assert dict(call.initial_metadata())["x-begin"] == "1"
        assert dict(call.trailing_metadata())["x-end"] == "2"
        method, metadata, message = upstream.seen[-1]
        assert (method, message, metadata["x-mine"]) == ("/test.Echo/Echo", b"hello", "1")
        assert ("x-wasm" in metadata) is bool(filters)

        call = channel.stream_stream("/test.Echo/StreamEcho", one, one)(iter([b"one", b"two", b"three"]), timeout=10)
        assert list(call) == [b"echo of one", b"echo of two", b"echo of three"]
        assert dict(call.trailing_metadata())["x-end"] == "2"

        for name, code in (("Abort", grpc.StatusCode.NOT_FOUND), ("Unknown", grpc.StatusCode.UNIMPLEMENTED)):
            with pytest.raises(grpc.RpcError) as raised:
                channel.unary_unary(f"/test.Echo/{name}", one, one)(b"", timeout=10)
            assert raised.value.code() == code


class Trailers(socketserver.BaseRequestHandler):
    """A server of HTTP/2 that notes the headers of requests and what comes after their bodies."""

    seen: ClassVar[list[list[tuple[str, str]]]] = []

    def handle(self) -> None:
        connection = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False, header_encoding="utf-8"))
        connection.initiate_connection()
        while True:
            self.request.sendall(connection.data_to_send())
            if not (data := self.request.recv(65536)):
                return
            for event in connection.receive_data(data):
                if isinstance(event, h2.events.TrailersReceived):
                    self.seen.append(sorted(event.headers))
                elif isinstance(event, h2.events.StreamEnded):
                    connection.send_headers(event.stream_id, [(":status", "200")], end_stream=True)


@pytest.mark.carries("serve", "request trailers")
def test_trailers_of_a_request(engine):
    Trailers.seen.clear()
    script = "@on_request_trailers\nadd_header_map_value 1 x-more 2\nreplace_header_map_value 1 x-sum 3"
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Trailers) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        url = f"http://127.0.0.1:{server.server_address[1]}"
        for filters in ([], [{"file": str(FILTERS / "c/probe_0_2_1.wasm"), "configuration": script}]):
            settings = {"upstream": {"url": url, "protocol": "http2"}, "filters": filters, "engine": engine.name}
            with beside(settings) as served:
                got, _, _ = http2_client.request(served.port, "/", (), b"body", [("x-sum", "1")], tls=False)
                assert got[":status"] == "200"
        server.shutdown()
        thread.join()
    assert Trailers.seen == [[("x-sum", "1")], [("x-more", "2"), ("x-sum", "3")]]


@pytest.mark.carries("serve", "request bodies part by part", "response bodies part by part")
def test_messages_go_while_the_stream_is_open(upstream):
    """Each is answered before the next is sent: nothing waits for the end of a body."""
    with through([HEADERS], url=upstream.url) as (_, channel):
        say: Queue[bytes | None] = Queue()
        answers = channel.stream_stream("/test.Echo/StreamEcho", one, one)(iter(say.get, None), timeout=10)
        for number in range(3):
            say.put(b"%d" % number)
            assert next(answers) == b"echo of %d" % number
        say.put(None)
        assert list(answers) == []


def test_many_streams_share_connections(upstream):
    with through(url=upstream.url) as (_, channel):
        echo = channel.unary_unary("/test.Echo/Echo", one, one)
        calls = [echo.future(b"%d" % number, timeout=30) for number in range(300)]
        assert [call.result() for call in calls] == [b"%d" % number for number in range(300)]
        assert len(upstream.seen) == 300


def test_who_leaves_is_told_to_upstream(upstream):
    with through([HEADERS], url=upstream.url) as (_, channel):
        call = channel.unary_unary("/test.Echo/Slow", one, one).future(b"", timeout=10)
        while not upstream.seen:
            assert not upstream.services.cancelled.wait(0.005)
        call.cancel()
        assert upstream.services.cancelled.wait(10)


def test_calls_that_fail_are_made_once_more(upstream):
    retry = {"retry_on": ["unavailable"], "num_retries": 2, "base_interval": 0.001}
    with through(url=upstream.url, retry=retry) as (served, channel):
        assert channel.unary_unary("/test.Echo/Flaky", one, one)(b"hello", timeout=10) == b"hello"
        assert [message for _, _, message in upstream.seen] == [b"hello"] * 3
        assert served.counted("upstream_retries") == {"upstream": 2}


def test_a_server_that_goes_away_and_comes_back(upstream):
    with closing(GrpcServer()) as other:
        retry = {"retry_on": ["connect-failure", "refused-stream", "reset"], "base_interval": 0.001}
        with through(servers=[upstream.url, other.url], retry=retry) as (_, channel):
            echo = channel.unary_unary("/test.Echo/Echo", one, one)

            def rounds() -> tuple[int, int]:
                were = len(upstream.seen), len(other.seen)
                assert [echo(b"x", timeout=10) for _ in range(4)] == [b"x"] * 4
                return len(upstream.seen) - were[0], len(other.seen) - were[1]

            assert rounds() == (2, 2)
            other.stop()
            assert rounds() == (4, 0)
            with closing(GrpcServer(given=other.port)) as again:
                assert rounds()[0] == 2
                assert len(again.seen) == 2


def test_a_stream_outlives_a_reload(serve, upstream):
    """It goes on over its connection, while new ones go elsewhere."""
    with closing(GrpcServer()) as other:

        def settings(server: GrpcServer) -> dict[str, object]:
            return {"upstreams": {"it": {"url": server.url, "protocol": "http2"}}, "routes": [{"upstream": "it"}]}

        served = serve(settings=settings(upstream), upstream=None, watch=True)
        with grpc.insecure_channel(served.url.removeprefix("http://")) as channel:
            say: Queue[bytes | None] = Queue()
            answers = channel.stream_stream("/test.Echo/StreamEcho", one, one)(iter(say.get, None), timeout=30)
            say.put(b"before")
            assert next(answers) == b"echo of before"
            (served.errors.parent / "serve.yaml").write_text(json.dumps(settings(other)))
            assert served.wait_for("loaded the changes")
            assert channel.unary_unary("/test.Echo/Echo", one, one)(b"new", timeout=10) == b"new"
            assert [message for _, _, message in other.seen] == [b"new"]
            say.put(b"after")
            assert next(answers) == b"echo of after"
            say.put(None)
            assert list(answers) == []


# -- What is agreed ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def pair(tmp_path_factory) -> tuple[str, str]:
    return certificate(tmp_path_factory.mktemp("tls"))


@pytest.mark.parametrize(("protocol", "spoken"), [("http1", "HTTP/1.1"), ("http2", "HTTP/2"), ("auto", "HTTP/2")])
def test_the_protocol_is_agreed_by_alpn(origin, pair, tmp_path, protocol, spoken):
    """Another of us is the server: it knows both, and wants a certificate."""
    cert, key = pair
    log = tmp_path / "log"
    inner = {
        "upstream": origin.url,
        "tls": {"certificate": cert, "key": key, "client_ca": cert},
        "access_log": {"format": "json", "file": str(log)},
    }
    with beside(inner) as server:
        leaf, leaf_key = signed(tmp_path, cert, key)
        tls = {"ca": cert, "certificate": leaf, "key": leaf_key, "server_name": "localhost"}
        upstream = {"url": f"https://127.0.0.1:{server.port}", "protocol": protocol, "tls": tls}
        with beside({"upstream": upstream, "filters": [BODY]}) as served:
            request = b"POST /x HTTP/1.1\r\nhost: example.com:81\r\ncontent-length: 5\r\n\r\nhello"
            for _ in range(2):
                assert served.answer(request).status == 200
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert [(line["protocol"], line["host"], line["status"]) for line in lines] == [(spoken, "example.com:81", 200)] * 2
    assert [(request["host"], request.body) for request in origin.requests] == [("example.com:81", b"HELLO")] * 2


def test_a_server_that_knows_http1_only(pair):
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                await reader.readuntil(b"\r\n\r\n")
                writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
        writer.close()

    async def main() -> None:
        tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        tls.load_cert_chain(*pair)
        server = await asyncio.start_server(answer, "127.0.0.1", 0, ssl=tls)
        url = f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        upstream = {"url": url, "protocol": "auto", "tls": {"ca": pair[0]}}
        async with serving({"upstream": upstream}) as served:
            for _ in range(3):
                got = await served.ask(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
                assert got.startswith(b"HTTP/1.1 200 OK\r\n")
        server.close()

    asyncio.run(main())
