"""WebSockets over HTTP/2 (RFC 8441), to real servers of HTTP/1.1 and HTTP/2."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import json
import logging
import threading
import time
from collections.abc import Iterator
from contextlib import closing

import pytest
from aiohttp import ClientSession, WSMsgType, web
from wsproto import ConnectionType
from wsproto.connection import Connection as Frames
from wsproto.events import CloseConnection, TextMessage

from tests.grpc_services import GrpcServer
from tests.serve.conftest import HEADERS
from tests.serve.http2_client import Connection, Stream
from tests.serve.in_process import Beside, Client, beside
from tests.serve.origin import raw
from tests.serve.ports import listening
from tests.serve.test_http2_to_upstream import closing as stopping
from tests.serve.test_protocols import echoes, probing
from tests.serve.test_serve import certificate

VERSION = (("sec-websocket-version", "13"),)


class Server:
    """aiohttp's, which says texts in capitals; `seen` are the headers of those who came, `gone` is told when one has left."""

    def __init__(self) -> None:
        self.seen: list[dict[str, str]] = []
        self.gone = threading.Event()
        self._loop = asyncio.new_event_loop()
        with listening() as sock:
            self.url = f"http://127.0.0.1:{sock.getsockname()[1]}"
            self._loop.run_until_complete(self._start(sock.dup()))
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()

    async def _start(self, sock: object) -> None:
        app = web.Application()
        app.router.add_get("/ws", self._talk)
        self._runner = web.AppRunner(app)
        await self._runner.setup()
        await web.SockSite(self._runner, sock).start()  # type: ignore[arg-type]

    async def _talk(self, request: web.Request) -> web.WebSocketResponse:
        self.seen.append({name.lower(): value for name, value in request.headers.items()})
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        async for message in socket:
            if message.type == WSMsgType.TEXT:
                await socket.send_str(message.data.upper())
        self.gone.set()
        return socket

    def close(self) -> None:
        asyncio.run_coroutine_threadsafe(self._runner.cleanup(), self._loop).result(20)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


@pytest.fixture
def server() -> Iterator[Server]:
    with closing(Server()) as server:
        yield server


def port_of(served) -> int:
    return int(served.url.rpartition(":")[2])


def opened(connection: Connection, path: str = "/ws", protocol: str = "websocket") -> Stream:
    assert connection.h2.remote_settings.enable_connect_protocol == 1
    return connection.stream("CONNECT", path, VERSION, protocol=protocol)


def talk(stream: Stream, *said: str) -> list[str]:
    """Say texts one after the other, then close: what was answered."""
    frames, heard = Frames(ConnectionType.CLIENT), []
    for text in said:
        stream.send(frames.send(TextMessage(text)))
        whole = ""
        while len(whole) < len(text):
            frames.receive_data(stream.receive())
            whole += "".join(event.data for event in frames.events() if isinstance(event, TextMessage))
        heard.append(whole)
    stream.send(frames.send(CloseConnection(1000)))
    frames.receive_data(stream.rest())
    assert [type(event) for event in frames.events()] == [CloseConnection]
    return heard


@pytest.mark.carries("serve", "WebSocket")
def test_a_server_of_http1(on_engine, server):
    """It gets an upgrade with a key, which the client neither has nor sees accepted."""
    served = on_engine(HEADERS, upstream=server.url)
    with Connection(port_of(served)) as connection:
        stream = opened(connection)
        assert stream.status == 200
        assert not {"upgrade", "connection", "sec-websocket-accept"} & set(stream.headers)
        assert talk(stream, "hello", "x" * 20_000) == ["HELLO", "X" * 20_000]
    seen = server.seen[0]
    assert (seen["upgrade"].lower(), seen["connection"].lower()) == ("websocket", "upgrade")
    assert len(seen["sec-websocket-key"]) == 24
    assert seen["x-wasm"] == "hello"


def test_filters_see_an_upgrade(serve, server):
    script = """
@on_request_headers
get_header_map_value 0 :method
get_header_map_value 0 upgrade
@on_response_headers
get_header_map_value 2 :status
"""
    served = serve(settings=probing(script), upstream=server.url, access_log="json")
    with Connection(port_of(served)) as connection:
        assert talk(opened(connection), "one") == ["ONE"]
    for said in (
        'value(0, :method) = 0 "GET"',
        'value(0, upgrade) = 0 "websocket"',
        'value(2, :status) = 0 "101"',
    ):
        assert said in served.log
    served.stop()
    (line,) = map(json.loads, served.access_log)
    assert (line["method"], line["protocol"], line["status"]) == ("GET", "HTTP/2", 200)


def test_a_connection_carries_others_beside_it(server):
    """For longer than one without requests is kept, and one that breaks off is told to upstream."""
    settings = {"upstream": server.url, "filters": [], "clients": {"keepalive": 0.1}}
    with beside(settings) as served, Connection(served.port) as connection:
        first, second = opened(connection), opened(connection)
        assert (first.status, second.status) == (200, 200)
        time.sleep(0.3)
        other = connection.stream("GET", "/none", end=True)
        assert (other.status, other.rest()) == (404, b"404: Not Found")
        assert not connection.going_away
        first.reset()
        assert server.gone.wait(10)
        assert talk(second, "still here") == ["STILL HERE"]


def answered(served: Beside, path: str = "/ws", protocol: str = "websocket") -> tuple[int, bytes]:
    with Connection(served.port) as connection:
        stream = opened(connection, path, protocol)
        return stream.status, stream.rest()


SWITCHES = b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n"


PROTOCOL_ERROR = b"upstream connect error or disconnect/reset before headers. reset reason: protocol error"


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (SWITCHES + b"\r\n", (502, PROTOCOL_ERROR)),
        (SWITCHES + b"sec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n", (502, PROTOCOL_ERROR)),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok", (502, b"")),
        (b"HTTP/1.1 204 No Content\r\n\r\n", (502, b"")),
        (b"HTTP/1.1 302 Found\r\nlocation: /x\r\ncontent-length: 0\r\n\r\n", (302, b"")),
        (b"HTTP/1.1 426 Upgrade Required\r\ncontent-length: 2\r\n\r\nno", (426, b"no")),
    ],
)
@pytest.mark.parametrize("filters", [[], [HEADERS]], ids=["past filters", "through a filter"])
def test_a_server_that_does_not_take_it(origin, filters, answer, told):
    """A 2xx would tell the client that it has."""
    origin.answers["/ws"] = raw(answer)
    with beside({"upstream": origin.url, "filters": filters}) as served:
        assert answered(served) == told
        assert served.requests() == {str(told[0]): 1}


@pytest.mark.parametrize(("local", "status"), [(403, 403), (200, 502)])
def test_a_filter_that_answers(origin, local, status):
    script = f"@on_request_headers\nsend_local_response {local} details no a=b -1\nreturn 1"
    with beside({"upstream": origin.url, **probing(script)}) as served:
        assert answered(served)[0] == status
    assert origin.requests == []


def test_what_else_connect_asks_for_is_not_there(origin):
    with beside({"upstream": origin.url, "filters": []}) as served, Connection(served.port) as connection:
        assert opened(connection, protocol="connect-udp").status == 501
        plain = connection.h2.get_next_available_stream_id()
        stream = connection._streams[plain] = Stream(connection, plain)
        connection.h2.send_headers(plain, [(":method", "CONNECT"), (":authority", "a:443")])
        assert stream.status == 501
    assert origin.requests == []


# -- To a server over HTTP/2 -------------------------------------------------------------------------------------------


def over_http1(served: Beside) -> list[str]:
    """What aiohttp's client is answered, which checks how its key is accepted."""

    async def main() -> list[str]:
        async with ClientSession() as session, session.ws_connect(f"http://127.0.0.1:{served.port}/ws") as ws:
            await ws.send_str("one")
            return [await ws.receive_str(timeout=20)]

    return asyncio.run(main())


@pytest.mark.parametrize("filters", [[], [HEADERS]], ids=["past filters", "through a filter"])
def test_a_server_of_http2(server, tmp_path, filters):
    """Another of us, before the same server."""
    log = tmp_path / "log"
    inner = {"upstream": server.url, "filters": [], "access_log": {"format": "json", "file": str(log)}}
    with beside(inner) as between:
        upstream = {"url": f"http://127.0.0.1:{between.port}", "protocol": "http2"}
        with beside({"upstream": upstream, "filters": filters}) as served:
            assert over_http1(served) == ["ONE"]
            with Connection(served.port) as connection:
                assert talk(opened(connection), "two", "three") == ["TWO", "THREE"]
            assert answered(served, "/none") == (404, b"404: Not Found")
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert [(line["protocol"], line["status"]) for line in lines] == [("HTTP/2", status) for status in (200, 200, 404)]
    assert ["x-wasm" in seen for seen in server.seen] == [bool(filters)] * 2


def test_a_server_of_http2_without_them():
    with stopping(GrpcServer()) as server:
        upstream = {"url": server.url, "protocol": "http2", "connect_timeout": 0.2}
        with beside({"upstream": upstream, "filters": []}) as served:
            status, text = answered(served)
    assert (status, text.rpartition(b": ")[2]) == (502, b"no WebSockets over HTTP/2")


def test_where_tls_chooses_they_go_over_http1(server, tmp_path):
    """Many servers of both know them there alone."""
    cert, key = certificate(tmp_path)
    log = tmp_path / "log"
    inner = {
        "upstream": server.url,
        "filters": [],
        "tls": {"certificate": cert, "key": key},
        "access_log": {"format": "json", "file": str(log)},
    }
    with beside(inner) as between:
        tls = {"ca": cert, "server_name": "localhost"}
        upstream = {"url": f"https://127.0.0.1:{between.port}", "protocol": "auto", "tls": tls}
        with beside({"upstream": upstream, "filters": []}) as served, Connection(served.port) as connection:
            assert connection.stream("GET", "/none", end=True).status == 404
            assert talk(opened(connection), "one") == ["ONE"]
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert [(line["protocol"], line["status"]) for line in lines] == [("HTTP/2", 404), ("HTTP/1.1", 101)]


# -- How long they may last --------------------------------------------------------------------------------------------

UPGRADE = b"GET /ws HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n"
FILTERS = pytest.mark.parametrize("filters", [[], [HEADERS]], ids=["past filters", "through a filter"])


def switched(client: Client) -> Client:
    """A client that speaks with the server of `echoes`."""
    client.send(UPGRADE)
    head = b""
    while not head.endswith(b"\r\n\r\nhi"):
        more = client.read(1)
        assert more, head
        head += more
    assert head.startswith(b"HTTP/1.1 101 ")
    return client


def told(client: Client, data: bytes) -> bytes:
    client.send(data)
    return client.read(len(data))


@FILTERS
def test_one_over_http1_that_says_nothing_is_cut_off(origin, filters):
    origin.answers["/ws"] = echoes
    settings = {"upstream": origin.url, "filters": filters, "stream_idle_timeout": 0.6}
    with beside(settings) as served, switched(served.connect()) as client:
        for _ in range(4):  # longer than that, but not without a byte
            time.sleep(0.2)
            assert told(client, b"a") == b"A"
        with contextlib.suppress(ConnectionError):
            assert client.rest() == b""
        until = time.monotonic() + 20
        while origin.open:  # upstream is told
            assert time.monotonic() < until
            time.sleep(0.01)


@FILTERS
def test_one_whose_server_has_ended_is_cut_off(origin, filters):
    """The client could still send, but does not."""

    async def ends(request, reader, writer) -> bool:
        writer.write(SWITCHES + b"\r\nhi")
        writer.write_eof()
        await reader.read()
        over.set()
        return False

    over = threading.Event()
    origin.answers["/ws"] = ends
    settings = {"upstream": origin.url, "filters": filters, "stream_idle_timeout": 0.4}
    with beside(settings) as served, switched(served.connect()) as client:
        assert client.rest() == b""
        assert over.wait(20)


@FILTERS
def test_one_over_http2_that_says_nothing_is_cut_off(server, filters):
    settings = {"upstream": server.url, "filters": filters, "stream_idle_timeout": 0.4}
    with beside(settings) as served, Connection(served.port) as connection:
        connection.settimeout(20)
        stream = opened(connection)
        assert stream.status == 200
        with contextlib.suppress(ConnectionResetError):
            stream.rest()
        assert server.gone.wait(20)


@FILTERS
def test_one_over_http1_is_one_of_the_connections(origin, filters):
    origin.answers["/ws"] = echoes
    with beside({"upstream": origin.url, "filters": filters, "clients": {"max_connections": 1}}) as served:
        with switched(served.connect()) as client:
            time.sleep(0.05)
            assert served.told().startswith(b"HTTP/1.1 503 ")
            assert told(client, b"still here") == b"STILL HERE"
        until = time.monotonic() + 20
        while served.told(UPGRADE.replace(b"upgrade\r\n", b"close\r\n", 1)).startswith(b"HTTP/1.1 503 "):
            assert time.monotonic() < until


def test_one_over_http1_gets_its_time_when_the_server_ends(serve, origin):
    origin.answers["/ws"] = echoes
    served = serve(settings={"filters": []})
    with switched(Client(("127.0.0.1", port_of(served)))) as client:
        served.process.terminate()
        time.sleep(0.5)
        assert told(client, b"still here") == b"STILL HERE"
        assert served.process.poll() is None
    assert served.process.wait(20) == 0


# -- What is not taken -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("local", [False, True], ids=["of upstream", "of a filter"])
def test_a_refused_2xx_is_no_client_that_left(engine, origin, caplog, local):
    """Filters see why a stream ends."""
    caplog.set_level(logging.INFO, "proxywasm_host.guest")
    origin.answers["/ws"] = raw(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
    answers = "@on_request_headers\nsend_local_response 200 details no a=b -1\nreturn 1\n" * local
    script = f"{answers}@on_log\nget_property response%00code_details"
    with beside({"upstream": origin.url, "engine": engine.name, **probing(script)}) as served:
        assert answered(served)[0] == 502
    (line,) = (line for line in caplog.messages if "get_property(" in line)
    assert line.rpartition(" = ")[2] == ('0 "details"' if local else '0 "via_upstream"')


def test_a_server_of_http2_without_them_serves_all_else():
    """So it is not left out for that."""
    with stopping(GrpcServer()) as server:
        outliers = {"consecutive_5xx": 1}
        upstream = {"url": server.url, "protocol": "http2", "connect_timeout": 0.2, "outlier_detection": outliers}
        with beside({"upstream": upstream, "filters": []}) as served:
            assert [answered(served)[0] for _ in range(2)] == [502, 502]
            counted = served.counted("upstream_failures"), served.counted("upstream_ejections")
    assert [list(each.values()) for each in counted] == [[0], [0]]


def test_a_content_length_of_a_filter_does_not_go_with_an_upgrade(engine, origin):
    """Which has no body: the server would wait for it."""
    origin.answers["/ws"] = echoes
    script = "@on_request_headers\nadd_header_map_value 0 content-length 5"
    settings = {"upstream": origin.url, "engine": engine.name, **probing(script)}
    with beside(settings) as served, switched(served.connect()) as client:
        assert told(client, b"hello") == b"HELLO"
    assert (origin.requests[0]["upgrade"], origin.requests[0]["content-length"]) == ("websocket", None)


# -- When the server ends ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("opens", ["HTTP/1.1", "HTTP/2", "WebSocket over HTTP/1.1", "WebSocket over HTTP/2"])
def test_what_is_cut_off_ends_in_its_filters(origin, caplog, opens):
    """And the filters themselves after it."""
    caplog.set_level(logging.INFO, "proxywasm_host.guest")

    async def never(request, reader, writer) -> bool:
        await reader.read()
        return False

    async def accepts(request, reader, writer) -> bool:
        key = (request["sec-websocket-key"] or "").encode()
        accepted = base64.b64encode(hashlib.sha1(key + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest())
        writer.write(SWITCHES + b"sec-websocket-accept: " + accepted + b"\r\n\r\nhi")
        await reader.read()
        return False

    origin.answers.update({"/ws": accepts, "/never": never})
    settings = {"upstream": origin.url, "shutdown_timeout": 1, **probing("@on_log\nsay log\n@on_delete\nsay delete")}
    began = time.monotonic()
    with contextlib.ExitStack() as stack, beside(settings) as served:
        if "1.1" in opens:
            client = stack.enter_context(served.connect())
            client.send(
                UPGRADE if "WebSocket" in opens else UPGRADE.replace(b"/ws", b"/never").replace(b"websocket", b"x")
            )
        else:
            connection = stack.enter_context(Connection(served.port))
            stream = opened(connection) if "WebSocket" in opens else connection.stream("GET", "/never", end=True)
        if "WebSocket" in opens:
            assert (client.read(12) if "1.1" in opens else stream.receive()) in (b"HTTP/1.1 101", b"hi")
        while not origin.requests:
            time.sleep(0.01)
    assert [line for line in caplog.messages if line in ("log", "delete")] == ["log", "delete", "delete"]  # the root's
    assert not asyncio.all_tasks(served._loop)
    assert time.monotonic() - began < 10
