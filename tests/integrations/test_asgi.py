"""The ASGI middleware, message by message: what filters see, what the application gets, what the client gets."""

from __future__ import annotations

import pytest

from proxywasm_host import Services
from proxywasm_host.integrations.asgi import Filter, ProxyWasmMiddleware
from tests.integrations.asgi import Server, lifespan, read, respond, scope
from tests.support import code

BACKENDS = [
    pytest.param(("asyncio", {}), id="asyncio"),
    pytest.param(("asyncio", {"use_uvloop": True}), id="uvloop"),
    pytest.param(("trio", {}), id="trio"),
]
pytestmark = pytest.mark.anyio


@pytest.fixture(params=BACKENDS)
def anyio_backend(request):
    return request.param


@pytest.fixture
def wrap(engine, log):
    """An application behind filters: probes with these scripts, or filters."""

    def wrap(app, *filters, **options):
        async def only_http(scope, receive, send):
            assert scope["type"] == "http", "no lifespan here"
            await app(scope, receive, send)

        chain = [
            Filter(code("c/probe_0_2_1"), f"probe{number}", each) if isinstance(each, str) else each
            for number, each in enumerate(filters, 1)
        ]
        return ProxyWasmMiddleware(only_http, chain, engine=engine, services=Services(log=log), **options)

    return wrap


async def hello(scope, receive, send):
    await respond(send, 200, [(b"content-length", b"6"), (b"server", b"app")], b"Hello.")


async def echo(scope, receive, send):
    await respond(send, 200, [], await read(receive))


async def get(app, *args, body=(), **more) -> Server:
    server = Server(body)
    await app(scope(*args, **more), server.receive, server.send)
    return server


async def test_headers_pass_the_filter_both_ways(wrap, log):
    seen = {}

    async def app(scope, receive, send):
        seen.update(scope)
        await hello(scope, receive, send)

    app = wrap(app, Filter(code("rust/headers"), configuration="from Rust"))
    async with lifespan(app):
        server = await get(app, "GET", "/a%20b?c=d", [("x-remove-me", "1"), ("x-two", "a"), ("x-two", "b")])

    assert (seen["method"], seen["path"], seen["raw_path"], seen["query_string"]) == (
        "GET",
        "/a b",
        b"/a%20b",
        b"c=d",
    )
    assert seen["headers"] == [(b"host", b"example.com"), (b"x-two", b"a"), (b"x-two", b"b"), (b"x-wasm", b"from Rust")]
    assert server.status == 200
    assert server.header(b"server") == b"proxy-wasm"
    assert server.header(b"content-length") == b"6"
    assert server.body == b"Hello."
    assert log.take() == [
        "headers: configured, value from Rust",
        "headers: request for /a%20b?c=d by -",
        "headers: response by app",
        "headers: done",
    ]


async def test_a_server_without_lifespan(wrap):
    app = wrap(hello, Filter(code("rust/headers")))
    server = await get(app)
    assert server.header(b"x-wasm") == b"hello"
