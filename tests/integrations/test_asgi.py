"""The ASGI middleware, message by message: what filters see, what the application gets, what the client gets."""

from __future__ import annotations

from functools import partial

import anyio
import pytest

from proxywasm_host import PluginError, Services
from proxywasm_host.integrations.asgi import Clusters, Filter, ProxyWasmMiddleware
from proxywasm_host.integrations.asynchronous import ResponseOver
from proxywasm_host.runtime.effects import HttpCall, HttpCallReply
from tests.integrations.asgi import Server, get, lifespan, read, respond, scope
from tests.support import code

pytestmark = pytest.mark.anyio

ENDS = "@on_log\nsay log\n@on_done\nsay done\n@on_delete\nsay delete\n"
ENDED = ["log", "done", "delete"]
LOCAL = "send_local_response 418 tea short%20and%20stout x-local=1 -1\n"
CALL = 'http_call upstream :method=GET&:path=/c&:authority=au "" "" 1000\n'
RESUME = "set_effective_context $stream\ncontinue_stream "


async def hello(scope, receive, send):
    await respond(send, 200, [(b"content-length", b"6"), (b"server", b"app")], b"Hello.")


async def echo(scope, receive, send):
    await respond(send, 200, [], await read(receive))


SHORTER = "@on_response_body\nset_buffer_bytes 1 0 1000 short\n"


class Idp:
    """A client of callouts that answers when it is told to."""

    def __init__(self) -> None:
        self.asked = anyio.Event()
        self.answer = anyio.Event()
        self.calls: list[HttpCall] = []

    async def __call__(self, callout: HttpCall) -> HttpCallReply:
        self.calls.append(callout)
        self.asked.set()
        await self.answer.wait()
        return HttpCallReply([(b":status", b"200")])


@pytest.fixture
async def idp():
    return Idp()


@pytest.fixture
def calling(wrap, idp):
    """As `wrap`, with a cluster ``upstream`` that is `idp`."""
    return lambda *args, **options: wrap(
        *args, clusters={"upstream": "http://upstream.example"}, clients={HttpCall: idp}, **options
    )


# -- Headers -----------------------------------------------------------------------------------------------------------


async def test_a_filter_sees_headers_as_envoy_shows_them(wrap, log):
    app = wrap(hello, "@on_request_headers\nget_header_map_pairs 0")
    headers = [
        ("host", "example.test"),
        ("te", "gzip, trailers"),
        ("connection", "upgrade, x-named"),
        ("upgrade", "x"),
        ("x-named", "1"),
        ("cookie", "a=1"),
        ("cookie", "b=2"),
        ("expect", "100-continue"),
        ("keep-alive", "5"),
    ]
    await get(app, "GET", "/a%2520b?c=%2520d", headers)
    pairs = ":authority=example.test, :path=/a%252520b?c=%252520d, :method=GET, :scheme=http, te=trailers, cookie=a=1, cookie=b=2"
    assert log.take() == [f"get_header_map_pairs(0) = 0 [{pairs}]"]


async def test_what_a_filter_changes_is_in_all_of_the_scope(wrap):
    seen = {}

    async def app(scope, receive, send):
        seen.update(scope)
        await hello(scope, receive, send)

    script = """@on_request_headers
replace_header_map_value 0 :path /new%2520path?q=1
replace_header_map_value 0 :scheme https
add_header_map_value 0 x-bytes %ff%e4
"""
    await get(wrap(app, script), "GET", "/old?p=2")
    assert {name: seen[name] for name in ("scheme", "path", "raw_path", "query_string", "headers")} == {
        "scheme": "https",
        "path": "/new path",
        "raw_path": b"/new%20path",
        "query_string": b"q=1",
        "headers": [(b"host", b"example.com"), (b"x-bytes", b"\xff\xe4")],
    }


async def test_properties_of_the_connection(wrap, log):
    names = [
        "source%00address", "source%00port", "destination%00address", "request%00protocol", "connection%00mtls",
        "connection%00tls_version",
    ]  # fmt: skip
    app = wrap(hello, "@on_request_headers\n" + "".join(f"get_property {name}\n" for name in names))
    tls = {"tls": {"tls_version": 0x0304, "client_cert_chain": ["…"], "client_cert_name": "CN=x"}}
    await get(app, "GET", "/r", client=("2001:db8::1", 4711), http_version="2", extensions=tls)
    assert [line.partition(" = ")[2] for line in log.take()] == [
        '0 "[2001:db8::1]:4711"',
        '0 "g%12%00%00%00%00%00%00"',
        '0 "198.51.100.1:80"',
        '0 "HTTP/2"',
        '0 "%01"',
        '0 "TLSv1.3"',
    ]


# -- Bodies ------------------------------------------------------------------------------------------------------------


@pytest.mark.carries("asgi", "request bodies part by part", "response bodies part by part")
async def test_bodies_stream_both_ways(wrap):
    """The second part of the request is not sent before the response to the first has come."""
    server = Server([b"one", b"two"])
    later, server.incoming = server.incoming[1:], server.incoming[:1]
    waits = anyio.Event()
    given = server.receive

    async def receive():
        if not server.incoming:
            await waits.wait()
        return await given()

    async def echo_parts(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})
        more = True
        while more:
            message = await receive()
            more = message["more_body"]
            await send({"type": "http.response.body", "body": message["body"], "more_body": more})

    app = wrap(echo_parts, "@on_request_body\n@on_response_body\n")
    async with anyio.create_task_group() as group:
        sent = scope("POST", "/", [("transfer-encoding", "chunked")])
        group.start_soon(app, sent, receive, server.send)
        await server.until(lambda: server.chunks == [b"one"])
        server.incoming += later
        waits.set()
    assert server.chunks == [b"one", b"two"]
    assert server.complete


@pytest.mark.parametrize(
    ("method", "body", "more", "told"),
    [
        ("GET", [], {}, ["headers"]),
        ("GET", [], {"http_version": "2"}, ["headers"]),
        ("POST", [b"x"], {"http_version": "2"}, ["headers", "body"]),
        ("GET", [b"x"], {"http_version": "2"}, ["headers", "body"]),
    ],
)
async def test_a_request_that_ends_with_its_headers(wrap, log, method, body, more, told):
    script = "@on_request_headers/eos\nsay headers\n@on_request_headers\nsay headers\n@on_request_body\nsay body\n"
    server = await get(wrap(echo, script), method, "/", body=body, **more)
    assert server.body == b"".join(body)
    assert log.take() == told


# -- Local responses ---------------------------------------------------------------------------------------------------


async def test_a_local_response_while_the_application_reads(wrap, log):
    told = []

    async def app(scope, receive, send):
        while (message := await receive())["type"] == "http.request":
            told.append(message["body"])
        await respond(send, 200, [], b"too late")

    script = "@on_request_body/eos\n" + LOCAL
    server = await get(wrap(app, script), "POST", "/", [("transfer-encoding", "chunked")], body=[b"a", b"b"])
    assert told == [b"a"]
    assert (server.status, server.body) == (418, b"short and stout")


async def test_an_application_whose_response_is_replaced_is_told(wrap):
    ended = []

    async def app(scope, receive, send):
        try:
            await respond(send, 200, [], b"one", b"two")
        except OSError as error:
            ended.append(error)
            raise

    server = await get(wrap(app, "@on_response_headers\n" + LOCAL))
    assert (server.status, server.body) == (418, b"short and stout")
    assert isinstance(ended[0], ResponseOver)


# -- Pauses ------------------------------------------------------------------------------------------------------------


async def test_a_client_that_leaves_while_its_request_is_paused(calling, idp, log):
    server = Server()
    app = calling(hello, "@on_request_headers\n" + CALL + "return 1\n@on_http_call_response\n" + RESUME + "0\n" + ENDS)
    async with anyio.create_task_group() as group:
        group.start_soon(app, scope(), server.receive, server.send)
        await idp.asked.wait()
        server.left.set()
    assert not server.sent
    assert log.take()[-3:] == ENDED


async def test_a_client_that_leaves_while_its_response_is_paused(calling, idp, log):
    server = Server()
    app = calling(hello, "@on_response_headers\n" + CALL + "return 1\n" + ENDS)
    async with anyio.create_task_group() as group:
        group.start_soon(app, scope(), server.receive, server.send)
        await idp.asked.wait()
        server.left.set()
    assert not server.sent
    assert log.take()[-3:] == ENDED


async def test_what_is_let_go_reaches_the_client_while_the_application_is_busy(calling, idp):
    server, finish = Server(), anyio.Event()

    async def app(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"one", "more_body": True})
        await finish.wait()
        await send({"type": "http.response.body", "body": b"two", "more_body": False})

    app = calling(app, "@on_response_body/1\n" + CALL + "return 1\n@on_http_call_response\n" + RESUME + "1\n")
    async with anyio.create_task_group() as group:
        group.start_soon(app, scope(), server.receive, server.send)
        await idp.asked.wait()
        assert server.body == b""
        idp.answer.set()
        await server.until(lambda: server.body == b"one")
        finish.set()
    assert server.chunks == [b"one", b"two"]


async def test_one_stream_lets_another_go(wrap):
    """What comes out of a stream because of another one's event goes to its own client."""
    first, second = Server(), Server()
    script = """@on_request_headers
get_header_map_value 0 x-go
if_status 1
set a $ctx
if_status 1
return 1
set_effective_context $a
continue_stream 0
"""
    app = wrap(hello, script)
    async with lifespan(app), anyio.create_task_group() as group:
        group.start_soon(app, scope(), first.receive, first.send)
        await anyio.wait_all_tasks_blocked()
        assert not first.sent
        await app(scope("GET", "/", [("x-go", "1")]), second.receive, second.send)
    assert first.status == second.status == 200


async def test_a_tick_answers_a_stream(wrap):
    script = "@on_configure\nset_tick_period_milliseconds 5\n@on_request_headers\nreturn 1\n@on_tick\nset_effective_context $stream\n"
    app = wrap(hello, script + LOCAL)
    async with lifespan(app):
        with anyio.fail_after(5):
            assert (await get(app)).status == 418


# -- Back-pressure -----------------------------------------------------------------------------------------------------


async def test_reading_stops_while_filters_hold_more_than_their_limit(calling, idp):
    part = b"x" * 1000
    server = Server([part] * 50)
    sent = []

    async def app(scope, receive, send):
        sent.append(len(await read(receive)))
        await respond(send)

    script = "@on_request_headers\n" + CALL + "return 1\n@on_http_call_response\n" + RESUME + "0\n"
    app = calling(app, script, buffer_limit=10_000)
    async with anyio.create_task_group() as group:
        group.start_soon(app, scope("POST", "/", [("content-length", "50000")]), server.receive, server.send)
        await idp.asked.wait()
        await anyio.wait_all_tasks_blocked()
        assert len(server.incoming) == 50 - 11
        idp.answer.set()
    assert sent == [50_000]


async def test_the_application_waits_while_filters_hold_more_than_their_limit(calling, idp):
    server, sent = Server(), []

    async def app(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for number in range(50):
            await send({"type": "http.response.body", "body": b"x" * 1000, "more_body": number < 49})
            sent.append(number)

    script = "@on_response_headers\n" + CALL + "return 1\n@on_http_call_response\n" + RESUME + "1\n"
    app = calling(app, script, buffer_limit=10_000)
    async with anyio.create_task_group() as group:
        group.start_soon(app, scope(), server.receive, server.send)
        await idp.asked.wait()
        await anyio.wait_all_tasks_blocked()
        assert len(sent) == 10
        idp.answer.set()
    assert len(server.body) == 50_000


# -- The end -----------------------------------------------------------------------------------------------------------


async def test_a_client_that_leaves_while_it_is_sent_the_response(wrap, log):
    server = Server()

    async def send(message):
        if message["type"] == "http.response.body":
            raise OSError("closed")

    told = []

    async def app(scope, receive, send):
        try:
            await respond(send, 200, [], b"one", b"two", b"three")
        except OSError as error:
            told.append(error)
        told.append(await receive())

    await wrap(app, "@on_response_body\n" + ENDS)(scope(), server.receive, send)
    assert isinstance(told[0], ResponseOver)
    assert told[1] == {"type": "http.disconnect"}
    assert log.take() == ENDED


async def test_an_application_that_listens_while_it_sends(calling, idp):
    """As Starlette does: it cancels what it sends when it is told that the client is gone.

    The request was paused, so that the server's next message is awaited beside; hypercorn sends it from within the
    last send.
    """
    server = Server()

    async def send(message):
        if message.get("more_body") is False:
            server.left.set()
            for _ in range(10):
                await anyio.lowlevel.checkpoint()
        await server.send(message)

    async def app(scope, receive, send):
        async def listen():
            while (await receive())["type"] != "http.disconnect":
                pass

        async def first(function):
            await function()
            both.cancel_scope.cancel()

        async with anyio.create_task_group() as both:
            both.start_soon(first, partial(respond, send, 200, [], b"one", b"two"))
            await first(listen)

    paused = "@on_request_headers\n" + CALL + "return 1\n@on_http_call_response\n" + RESUME + "0\n"
    async with anyio.create_task_group() as group:
        group.start_soon(calling(app, paused), scope(), server.receive, send)
        await idp.asked.wait()
        await anyio.wait_all_tasks_blocked()
        idp.answer.set()
    assert (server.body, server.complete) == (b"onetwo", True)


async def test_an_application_that_says_nothing(wrap, log):
    async def app(scope, receive, send):
        pass

    assert (await get(wrap(app, "@on_request_headers\n" + ENDS))).sent == []
    assert log.take() == ENDED


@pytest.mark.carries("asgi", "response trailers")
async def test_trailers_where_the_server_offers_them(wrap):
    async def app(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": [], "trailers": True})
        await send({"type": "http.response.body", "body": b"x", "more_body": False})
        await send({"type": "http.response.trailers", "headers": [(b"a", b"1")], "more_trailers": True})
        await send({"type": "http.response.trailers", "headers": [(b"b", b"2")], "more_trailers": False})

    app = wrap(app, "@on_response_trailers\nadd_header_map_value 3 x-wasm 3\n")
    offered = await get(app, extensions={"http.response.trailers": {}})
    assert offered.sent[0]["trailers"] is True
    assert offered.sent[-1]["headers"] == [(b"a", b"1"), (b"b", b"2"), (b"x-wasm", b"3")]
    assert offered.complete

    without = await get(app)
    assert [message["type"] for message in without.sent][-1] == "http.response.body"
    assert (without.body, without.complete) == (b"x", True)


async def test_trailers_that_the_application_has_not_announced(wrap):
    """It is too late for them when a filter makes them."""
    app = wrap(hello, "@on_response_body/eos\nadd_header_map_value 3 x-wasm 3\n")
    server = await get(app, "GET", "/", [("te", "trailers")], extensions={"http.response.trailers": {}})
    assert (server.body, server.complete, len(server.sent)) == (b"Hello.", True, 3)


# -- Life --------------------------------------------------------------------------------------------------------------


async def test_websockets_pass_untouched(engine):
    seen = []

    async def app(scope, receive, send):
        seen.append((scope, receive, send))

    untouched = ({"type": "websocket"}, object(), object())
    await ProxyWasmMiddleware(app, ["no such file"], engine=engine)(*untouched)
    assert seen == [untouched]


async def test_filters_that_do_not_load_fail_the_start(wrap):
    app = wrap(hello, Filter(code("rust/auth")))
    server = Server()
    server.incoming = [{"type": "lifespan.startup"}]
    await app({"type": "lifespan"}, server.receive, server.send)
    [message] = server.sent
    assert message["type"] == "lifespan.startup.failed"
    assert "on_configure returned false" in message["message"]


async def test_the_applications_lifespan_is_its_own(engine):
    told = []

    async def app(scope, receive, send):
        while True:
            message = await receive()
            told.append(message["type"])
            await send({"type": message["type"] + ".complete"})
            if message["type"] == "lifespan.shutdown":
                return

    async with lifespan(ProxyWasmMiddleware(app, [Filter(code("c/minimal"))], engine=engine)):
        assert told == ["lifespan.startup"]
    assert told == ["lifespan.startup", "lifespan.shutdown"]


async def test_another_chain_takes_over(calling, idp):
    """A request in progress ends on the chain that it began with."""
    adds = "add_header_map_value 2 x-chain {}\n"
    old = calling(
        hello,
        "@on_request_headers\n"
        + CALL
        + "return 1\n@on_http_call_response\n"
        + RESUME
        + "0\n@on_response_headers\n"
        + adds.format("old"),
    )
    probe = old.filters[0]
    before, after = Server(), Server()
    async with lifespan(old), anyio.create_task_group() as group:
        group.start_soon(old, scope(), before.receive, before.send)
        await idp.asked.wait()
        await old.reload([Filter(probe.code, vm_id="new", configuration="@on_response_headers\n" + adds.format("new"))])
        await old(scope(), after.receive, after.send)
        assert after.header(b"x-chain") == b"new"

        with pytest.raises(PluginError):
            await old.reload([Filter(code("rust/auth"))])
        assert (await get(old)).header(b"x-chain") == b"new"
        idp.answer.set()
        await before.until(lambda: before.complete)
        [worker] = old._workers.values()
        assert before.header(b"x-chain") == b"old"
    assert worker.host.plugins == []


async def test_a_worker_that_ends_is_told_and_another_takes_its_place(wrap, caplog):
    app = wrap(hello, "")
    assert (await get(app)).status == 200
    [worker] = app._workers.values()

    async def fails():
        raise ValueError("of a driver")

    worker.driver.start_soon(fails)
    with anyio.fail_after(5):
        while "of a driver" not in caplog.text:
            await anyio.lowlevel.checkpoint()
    assert "the worker ended, with its filters" in caplog.text
    assert worker.ended
    assert (await get(app)).status == 200


async def test_every_event_loop_has_vms_of_its_own(wrap, anyio_backend):
    name, options = anyio_backend
    app = wrap(hello, "@on_response_headers\nadd_header_map_value 2 x-seen 1\n")

    def elsewhere():
        return anyio.run(get, app, backend=name, backend_options=options).header(b"x-seen")

    assert (await get(app)).header(b"x-seen") == b"1"
    assert await anyio.to_thread.run_sync(elsewhere) == b"1"
    assert await anyio.to_thread.run_sync(elsewhere) == b"1"
    assert (await get(app)).header(b"x-seen") == b"1"


def test_clusters_are_checked():
    with pytest.raises(ValueError, match="without a path, not 'http://x/y'"):
        Clusters({"idp": "http://x/y"})
    assert "127.0.0.1:80" not in Clusters()
    assert "127.0.0.1:80" in Clusters(any_host=True)
    assert "outbound|80||x" not in Clusters(any_host=True)
    assert Services(clusters=Clusters({"idp": "https://x"})).clusters
