"""The middleware of aiohttp: handlers of every kind behind filters, over real connections."""

from __future__ import annotations

import asyncio
import gzip
import re
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web

from proxywasm_host import Services
from proxywasm_host.integrations.aiohttp import Clusters, Filter, ProxyWasmMiddleware
from tests.conftest import ENGINES
from tests.serve import origin
from tests.support import code

LOCAL = "send_local_response 418 tea short%20and%20stout x-local=1 -1\n"
RESUME = "set_effective_context $stream\ncontinue_stream "
SEES = "@on_response_body\nsay body\n"


def running(handler, script, ask, *, log=None, engine=None, setup=id, **options):
    """What `ask` (of a session and a URL) gives, with a handler behind a probe or filter."""

    async def main():
        chain = [Filter(code("c/probe_0_2_1"), "probe", configuration=script) if isinstance(script, str) else script]
        services = Services(log=log) if log else None
        app = web.Application(middlewares=[ProxyWasmMiddleware(chain, engine=engine, services=services, **options)])
        app.router.add_route("*", "/{tail:.*}", handler)
        app.cleanup_ctx.append(app.middlewares[0].context)
        setup(app)
        return await served(app, ask)

    return asyncio.run(main())


async def served(app, ask):
    """What `ask` gives of an application."""
    runner = web.AppRunner(app, shutdown_timeout=1)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        async with aiohttp.ClientSession() as session:
            return await asyncio.wait_for(ask(session, f"http://127.0.0.1:{runner.addresses[0][1]}"), 20)
    finally:
        await runner.cleanup()


async def get(session, url, method="GET", **options):
    async with session.request(method, url, **options) as response:
        return response, await response.read()


async def echo(request):
    return web.json_response(
        {
            "method": request.method,
            "path": request.raw_path,
            "headers": dict(request.headers),
            "body": await request.text(),
        }
    )


@pytest.mark.parametrize("engine", ENGINES)
def test_headers_pass_the_filter_both_ways(engine):
    headers = Filter(code("rust/headers"), configuration="from Rust")

    async def ask(session, url):
        response, _ = await get(session, f"{url}/a%20b?c=d", headers={"x-remove-me": "1", "x-two": "a"})
        return response, await response.json()

    response, seen = running(echo, headers, ask, engine=engine)
    assert (response.status, response.headers["server"], seen["path"]) == (200, "proxy-wasm", "/a%20b?c=d")
    assert (seen["headers"]["x-wasm"], seen["headers"]["x-two"], seen["headers"].get("x-remove-me")) == (
        "from Rust",
        "a",
        None,
    )


def test_bodies_are_rewritten_both_ways():
    script = "@on_request_body\nset_buffer_bytes 0 0 1000 to-the-handler\n@on_response_body\nset_buffer_bytes 1 0 1000 to-the-client\n"
    seen = []

    async def handler(request):
        seen.append(await request.text())
        return web.Response(text="from the handler")

    _, body = running(handler, script, lambda session, url: get(session, url, "POST", data=b"from the client"))
    assert (seen, body) == (["to-the-handler"], b"to-the-client")


async def in_parts(request):
    response = web.StreamResponse()
    await response.prepare(request)
    async for part in request.content.iter_any():
        await response.write(part.upper())
    await response.write_eof()
    return response


@pytest.mark.carries("aiohttp", "request bodies part by part", "response bodies part by part")
def test_parts_both_ways_at_the_same_time(log):
    async def parts():
        for number in range(5):
            yield b"part %d " % number
            await asyncio.sleep(0)

    _, body = running(in_parts, SEES, lambda session, url: get(session, url, "POST", data=parts()), log=log)
    assert body == b"PART 0 PART 1 PART 2 PART 3 PART 4 "
    assert log.take().count("body") >= 2


def test_files_pass_the_filters(log):
    async def handler(request):
        return web.FileResponse(__file__)

    _, body = running(handler, SEES, get, log=log)
    with open(__file__, "rb") as file:
        assert body == file.read()
    assert "body" in log.take()


def test_compressed_responses_are_what_filters_see(log):
    async def handler(request):
        response = web.Response(text="x" * 1000)
        response.enable_compression(web.ContentCoding.gzip)
        return response

    async def ask(session, url):
        async with session.get(url, headers={"accept-encoding": "gzip"}) as response:
            return response.headers["content-encoding"], await response.read()

    script = "@on_response_body\nget_buffer_bytes 1 0 2\n"
    assert running(handler, script, ask, log=log) == ("gzip", b"x" * 1000)
    assert gzip.compress(b"")[:2] == b"\x1f\x8b"
    assert any("\\x1f" in line or "%1f" in line for line in log.take())


def test_what_a_handler_raises():
    async def handler(request):
        raise web.HTTPConflict(text="no") if request.path == "/conflict" else ValueError("of the handler")

    async def ask(session, url):
        return [(await get(session, url + path))[0].status for path in ("/conflict", "/fails")]

    assert running(handler, Filter(code("rust/headers"), configuration="x"), ask) == [409, 500]


@pytest.mark.carries("aiohttp", "local responses")
def test_a_local_response_instead_of_the_handler():
    async def handler(request):
        raise AssertionError("it is not called")

    response, body = running(
        handler, "@on_request_headers\n" + LOCAL, lambda s, url: get(s, url, "POST", data=b"x" * 100_000)
    )
    assert (response.status, response.headers["x-local"], body) == (418, "1", b"short and stout")


def test_a_local_response_after_the_response_has_begun_cuts_it():
    async def handler(request):
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(b"one")
        await asyncio.sleep(0.02)
        with pytest.raises(OSError):
            for _ in range(10):
                await response.write(b"two")
        return response

    with pytest.raises(aiohttp.ClientPayloadError):
        running(handler, "@on_response_body/2\n" + LOCAL, get)


@pytest.mark.carries("aiohttp", "callouts")
def test_a_filter_asks_another_service_first():
    async def handler(request):
        return web.Response(text="Hello.")

    script = f'@on_request_headers\nhttp_call 127.0.0.1:$PORT :method=GET&:path=/c&:authority=au "" "" 1000\nreturn 1\n@on_http_call_response\n{RESUME}0\n'
    with origin.running() as idp:
        script = script.replace("$PORT", str(idp.port))
        _, body = running(
            handler, script, lambda s, url: get(s, url, "POST", data=b"body"), clusters=Clusters(any_host=True)
        )
        assert (body, [request.target for request in idp.requests]) == (b"Hello.", ["/c"])


def test_the_handler_s_routes_signals_and_state_are_there_once():
    calls, by = [], web.RequestKey("by", str)

    async def handler(request):
        assert request[by] == "another middleware"
        return web.Response(text=request.match_info["tail"])

    def setup(app):
        @web.middleware
        async def first(request, handler):
            request[by] = "another middleware"
            return await handler(request)

        async def signal(request, response):
            calls.append(response.status)
            response.headers["x-signal"] = "1"

        app.middlewares.insert(0, first)
        app.on_response_prepare.append(signal)

    response, body = running(handler, "", lambda session, url: get(session, f"{url}/a/b"), setup=setup)
    assert (body, response.headers.getall("x-signal"), calls) == (b"a/b", ["1"], [200])


@pytest.mark.carries("aiohttp", "WebSocket")
def test_a_websocket_passes_the_filters_until_it_opens():
    async def handler(request):
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        await socket.send_str((await socket.receive_str()) + request.headers["x-wasm"])
        await socket.close()
        return socket

    async def ask(session, url):
        async with session.ws_connect(url) as socket:
            await socket.send_str("Hello ")
            return await socket.receive_str()

    assert running(handler, Filter(code("rust/headers"), configuration="from Rust"), ask) == "Hello from Rust"
    with pytest.raises(aiohttp.WSServerHandshakeError, match="418"):
        running(handler, "@on_request_headers\n" + LOCAL, ask)


def test_a_client_that_goes_away_while_a_filter_holds_its_request(log):
    async def ask(session, url):
        with pytest.raises(asyncio.TimeoutError):
            await get(session, url, timeout=aiohttp.ClientTimeout(0.2))
        while "log" not in log.messages:
            await asyncio.sleep(0.05)

    running(echo, "@on_request_headers\nreturn 1\n@on_log\nsay log\n", ask, log=log)


def test_head_and_keep_alive():
    async def handler(request):
        return web.Response(text="Hello.")

    async def ask(session, url):
        first, body = await get(session, url, "HEAD")
        _, hello = await get(session, url)
        return first.headers["content-length"], body, hello

    assert running(handler, Filter(code("rust/headers"), configuration="x"), ask) == ("6", b"", b"Hello.")


def test_the_program_of_the_page_runs(monkeypatch):
    root = Path(__file__).parents[2]
    monkeypatch.chdir(root)
    [program] = re.findall(r"^```python\n(.*?)^```$", (root / "docs/aiohttp.md").read_text(), re.MULTILINE | re.DOTALL)
    names = {"__name__": "app"}
    exec(program, names)
    response, body = asyncio.run(served(names["app"], get))
    assert (response.headers["server"], body) == ("proxy-wasm", b"Hello.")
