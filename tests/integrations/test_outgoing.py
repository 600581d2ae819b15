"""Filters on the calls that a program makes: with each client library, what upstream gets and what the program gets."""

from __future__ import annotations

import asyncio
import gzip
import json
import re
from itertools import count
from pathlib import Path

import aiohttp
import anyio
import httpx2
import pytest
import urllib3
from aiohttp import web
from aiohttp.test_utils import TestServer

from proxywasm_host import Match, Services
from proxywasm_host.driver.clients import AsyncClients
from proxywasm_host.integrations import httpx2 as of_httpx2
from proxywasm_host.integrations import requests as of_requests
from proxywasm_host.integrations import urllib3 as of_urllib3
from proxywasm_host.integrations.aiohttp import client as of_aiohttp
from proxywasm_host.integrations.httpx2 import Filter
from tests.conftest import ENGINES
from tests.integrations.programs import CLIENTS, CUT, REFUSED, Program
from tests.serve import origin as origins
from tests.serve.ports import closed_port
from tests.support import code

ROOT = Path(__file__).parents[2]
PROGRAMS = re.findall(r"^```python\n(.*?)^```$", (ROOT / "docs/outgoing.md").read_text(), re.MULTILINE | re.DOTALL)
LOCAL = "send_local_response 418 tea short%20and%20stout x-local=1 -1\n"
CALL = 'http_call idp :method=GET&:path=/allowed&:authority=idp "" "" 1000\n'
RESUME = "set_effective_context $stream\ncontinue_stream "


@pytest.fixture(scope="module")
def upstream():
    with origins.running() as origin:
        yield origin


@pytest.fixture(params=CLIENTS)
def program(request, log):
    """A program with filters: ``program(script of a probe or filter)``."""

    def program(script="", engine=None, **options):
        probe = isinstance(script, str)
        chain = [Filter(code("c/probe_0_2_1"), "probe", configuration=script) if probe else script]
        return Program(request.param, chain, services=Services(log=log), engine=engine, **options)

    return program


@pytest.mark.parametrize("engine_name", ENGINES)
def test_headers_pass_the_filter_both_ways(program, upstream, engine_name):
    headers = Filter(code("rust/headers"), configuration="from Rust")
    answer = program(headers, engine=engine_name).send(
        "GET", f"{upstream.url}/a%20b?c=d", [("x-remove-me", "1"), ("x-two", "a")]
    )
    seen = json.loads(answer.body)
    shown = dict(seen["headers"])
    assert (seen["method"], seen["target"]) == ("GET", "/a%20b?c=d")
    assert (shown["x-wasm"], shown["x-two"], shown.get("x-remove-me")) == ("from Rust", "a", None)
    assert (answer.status, answer["server"], answer["content-type"]) == (200, "proxy-wasm", "application/json")


@pytest.mark.carries("requests", "request bodies part by part")
@pytest.mark.carries("urllib3", "request bodies part by part")
@pytest.mark.carries("aiohttp client", "request bodies part by part")
@pytest.mark.carries("httpx", "request bodies part by part")
@pytest.mark.parametrize("body", [b"a body", ["a ", "body"]], ids=["whole", "in parts"])
def test_bodies_are_rewritten_both_ways(program, upstream, body):
    script = "@on_request_body\nset_buffer_bytes 0 0 1000 to-upstream\n@on_response_body\nset_buffer_bytes 1 0 1000 to-program\n"
    given = body if isinstance(body, bytes) else iter([part.encode() for part in body])
    answer = program(script).send("POST", upstream.url, body=given)
    assert answer.body[:10] == b"to-program"
    assert upstream.requests[-1].body[:11] == b"to-upstream"
    framing = dict(upstream.requests[-1].headers)
    assert framing.get("content-length") == ("11" if isinstance(body, bytes) else None)


def test_what_filters_do_to_method_path_and_host(program, upstream):
    script = "@on_request_headers\nreplace_header_map_value 0 :method PUT\nreplace_header_map_value 0 :path /other?x=%2525\nreplace_header_map_value 0 :authority another.example\n"
    seen = json.loads(program(script).send("GET", f"{upstream.url}/a").body)
    assert (seen["method"], seen["target"], dict(seen["headers"])["host"]) == ("PUT", "/other?x=%25", "another.example")


@pytest.mark.carries("requests", "local responses")
@pytest.mark.carries("urllib3", "local responses")
@pytest.mark.carries("aiohttp client", "local responses")
@pytest.mark.carries("httpx", "local responses")
def test_a_local_response_instead_of_the_call(program, upstream):
    before = len(upstream.requests)
    answer = program("@on_request_headers\n" + LOCAL).send("POST", upstream.url, body=b"body")
    assert (answer.status, answer["x-local"], answer.body) == (418, "1", b"short and stout")
    assert len(upstream.requests) == before


@pytest.mark.carries("requests", "callouts")
@pytest.mark.carries("urllib3", "callouts")
@pytest.mark.carries("aiohttp client", "callouts")
@pytest.mark.carries("httpx", "callouts")
def test_a_filter_asks_another_service_first(program, upstream):
    script = f"@on_request_headers\n{CALL}return 1\n@on_http_call_response\n{RESUME}0\n"
    answer = program(script, clusters={"idp": upstream.url}).send("GET", f"{upstream.url}/asked")
    assert answer.status == 200
    assert [request.target for request in upstream.requests[-2:]] == ["/allowed", "/asked"]


def test_a_filter_may_be_for_one_host_or_path(program, upstream):
    headers = Filter(code("rust/headers"), configuration="x", match=Match(hosts=["127.0.0.1"], paths=["/a*"]))
    sent = [json.loads(program(headers).send("GET", f"{upstream.url}{path}").body) for path in ("/a?b", "/b?/a")]
    assert [dict(each["headers"]).get("x-wasm") for each in sent] == ["x", None]


def test_what_the_transport_raises_the_program_gets(program):
    with pytest.raises(REFUSED):
        program().send("GET", f"http://127.0.0.1:{closed_port()}/")


async def endless(request, reader, writer):
    writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
    for _ in count():
        writer.write(b"x" * 1000)
        await writer.drain()


def test_a_response_that_filters_break_off(program, upstream):
    upstream.answers["/endless"] = endless
    with pytest.raises(CUT, match="tea"):
        program("@on_response_body/2\n" + LOCAL).send("GET", f"{upstream.url}/endless")


@pytest.mark.carries("requests", "response bodies part by part")
@pytest.mark.carries("urllib3", "response bodies part by part")
@pytest.mark.carries("aiohttp client", "response bodies part by part")
@pytest.mark.carries("httpx", "response bodies part by part")
def test_a_program_that_stops_reading(program, upstream, log):
    upstream.answers["/endless"] = endless
    answer = program("@on_response_body\n@on_log\nsay log\n@on_delete\nsay delete\n").send(
        "GET", f"{upstream.url}/endless", stop_after=500
    )
    assert answer.body[:500] == b"x" * 500
    assert log.take()[-3:] == ["log", "delete", "delete"]  # the last is the plugin


def test_cookies_encodings_and_redirects_are_the_library_s(upstream):
    upstream.answers["/moved"] = origins.raw(
        b"HTTP/1.1 302 Found\r\nlocation: /there\r\nset-cookie: a=1\r\nset-cookie: b=2\r\ncontent-length: 0\r\n\r\n",
        keep=True,
    )
    import requests

    headers = [Filter(code("rust/headers"), configuration="hello")]
    with requests.Session() as session:
        session.mount("http://", of_requests.ProxyWasmAdapter(requests.adapters.HTTPAdapter(), headers))
        response = session.get(f"{upstream.url}/moved")
        assert (response.json()["target"], [each.status_code for each in response.history]) == ("/there", [302])
        assert dict(session.cookies) == {"a": "1", "b": "2"}
    with of_urllib3.ProxyWasmPoolManager(urllib3.PoolManager(), headers) as manager:
        response = manager.request("POST", f"{upstream.url}/moved", fields={"name": "value"})
        assert (response.json()["target"], len(response.retries.history)) == ("/there", 1)
        before = upstream.connections
        assert manager.urlopen("GET", upstream.url).headers["server"] == "proxy-wasm"
        assert upstream.connections == before
    with httpx2.Client(
        transport=of_httpx2.ProxyWasmTransport(httpx2.HTTPTransport(), headers), follow_redirects=True
    ) as client:
        response = client.get(f"{upstream.url}/moved")
        assert (response.json()["target"], dict(client.cookies)) == ("/there", {"a": "1", "b": "2"})


def test_an_aiohttp_session_keeps_its_ways(upstream):
    """Redirects, cookies, encodings, forms, WebSockets and time-outs are aiohttp's, with filters between."""
    upstream.answers["/moved"] = origins.raw(
        b"HTTP/1.1 302 Found\r\nlocation: /there\r\nset-cookie: a=1\r\ncontent-length: 0\r\n\r\n", keep=True
    )
    zipped = gzip.compress(b"Hello.")
    upstream.answers["/zipped"] = origins.raw(
        b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: %d\r\n\r\n" % len(zipped), zipped, keep=True
    )
    upstream.answers["/silent"] = origins.raw(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n", b"some", keep=True)

    async def calls():
        filters = of_aiohttp.ProxyWasmClientMiddleware([Filter(code("rust/headers"), configuration="from Rust")])
        async with aiohttp.ClientSession(upstream.url, middlewares=[filters]) as session:
            async with session.get("/moved") as response:
                assert ((await response.json())["target"], response.history[0].status) == ("/there", 302)
                assert response.headers["server"] == "proxy-wasm"
                assert response.history[0].cookies["a"].value == "1"
            assert await (await session.get("/zipped")).text() == "Hello."
            form = aiohttp.FormData({"name": "value"})
            form.add_field("file", b"content", filename="a.txt")
            seen = json.loads(await (await session.post("/form", data=form)).read())
            assert "content" in seen["body"]
            assert dict(seen["headers"])["x-wasm"] == "from Rust"
            with pytest.raises(asyncio.TimeoutError):
                async with session.get("/silent", timeout=aiohttp.ClientTimeout(0.5)) as response:
                    await response.read()
            async with session.get("/not/read"):
                pass
        await filters.aclose()

    asyncio.run(calls())


@pytest.mark.carries("aiohttp client", "WebSocket")
def test_a_websocket_of_a_program_passes_the_filters_until_it_opens():
    async def echo(request):
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        await socket.send_str((await socket.receive_str()) + request.headers["x-wasm"])
        await socket.close()
        return socket

    async def calls():
        app = web.Application()
        app.router.add_get("/", echo)
        filters = of_aiohttp.ProxyWasmClientMiddleware([Filter(code("rust/headers"), configuration="from Rust")])
        async with (
            TestServer(app) as server,
            aiohttp.ClientSession(middlewares=[filters]) as session,
            session.ws_connect(server.make_url("/")) as socket,
        ):
            await socket.send_str("Hello ")
            assert await socket.receive_str() == "Hello from Rust"
        await filters.aclose()

    asyncio.run(calls())


def test_what_a_filter_lets_go_late_is_not_waited_for_until_upstream_speaks(upstream):
    """In an event loop: the first part is held, and let go by a reply, while upstream is silent."""

    async def slow(request, reader, writer):
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\ndata: 1\n\n")
        await writer.drain()
        await reader.read()

    upstream.answers["/slow"] = slow
    script = f"@on_response_body\n{CALL}return 1\n@on_http_call_response\n{RESUME}1\n"

    async def first() -> bytes:
        chain = [Filter(code("c/probe_0_2_1"), "probe", configuration=script)]
        transport = of_httpx2.AsyncProxyWasmTransport(
            httpx2.AsyncHTTPTransport(), chain, clusters={"idp": upstream.url}
        )
        async with (
            httpx2.AsyncClient(transport=transport) as client,
            client.stream("GET", f"{upstream.url}/slow") as response,
        ):
            async for part in response.aiter_raw():
                return part
        return b""

    assert anyio.run(first) == b"data: 1\n\n"


def test_requests_at_the_same_time_have_streams_of_their_own(upstream):
    async def many() -> list[int]:
        transport = of_httpx2.AsyncProxyWasmTransport(
            httpx2.AsyncHTTPTransport(), [Filter(code("rust/headers"), configuration="x")]
        )
        statuses = []
        async with httpx2.AsyncClient(transport=transport) as client:

            async def one() -> None:
                response = await client.post(upstream.url, content=b"x" * 100_000)
                statuses.append(response.status_code)

            async with anyio.create_task_group() as group:
                for _ in range(50):
                    group.start_soon(one)
        return statuses

    assert anyio.run(many) == [200] * 50


@pytest.mark.parametrize("kind", [kind for kind in CLIENTS if kind != "aiohttp"])
def test_what_sends_is_a_transport(kind):
    wanted, make = {
        "requests": ("adapter", of_requests.ProxyWasmAdapter),
        "urllib3": ("manager", of_urllib3.ProxyWasmPoolManager),
    }.get(kind, ("transport", of_httpx2.ProxyWasmTransport))
    with pytest.raises(TypeError, match=f"app must be the {wanted} that sends"):
        make(["auth.wasm"], [])


@pytest.mark.parametrize("program", PROGRAMS)
def test_every_program_of_the_page_runs(program, upstream, monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    exec(program.replace("http://127.0.0.1:8000", upstream.url), {})
    assert capsys.readouterr().out == "proxy-wasm\n"


def test_a_call_while_the_filters_end(upstream, monkeypatch):
    """It gets new ones: those that end would carry it no more."""
    asyncio.run(while_filters_end(upstream, monkeypatch))


async def while_filters_end(upstream, monkeypatch):
    ending, ended = asyncio.Event(), asyncio.Event()
    aclose = AsyncClients.aclose

    async def slow(self):
        ending.set()
        await ended.wait()
        await aclose(self)

    transport = of_httpx2.AsyncProxyWasmTransport(
        httpx2.AsyncHTTPTransport(), [Filter(code("rust/headers"))], clusters={"up": upstream.url}
    )
    async with httpx2.AsyncClient(transport=transport) as client:
        assert (await client.get(upstream.url)).status_code == 200
        monkeypatch.setattr(AsyncClients, "aclose", slow)
        [worker] = transport._workers.values()
        stopping = asyncio.create_task(worker.stop())  # as after an error
        await ending.wait()
        assert (await asyncio.wait_for(client.get(upstream.url), 20)).status_code == 200
        ended.set()
        await stopping
