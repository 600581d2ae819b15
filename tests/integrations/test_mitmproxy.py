"""The addon in a real mitmdump and a real mitmweb, in an environment of their own that `make` installs.

Two processes serve all tests: a mitmdump with whole bodies, in each of its modes, and a mitmweb that streams bodies.
"""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import socket
import subprocess
import threading
import time
from pathlib import Path

import aiohttp
import httpx2
import pytest
from aiohttp import web

from tests.driver.test_grpc import certificate
from tests.driver.test_http2 import Server
from tests.serve import http2_client
from tests.serve import origin as origins
from tests.serve.ports import closed_port, listening

ROOT = Path(__file__).parents[2]
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
BIN = CACHE / "proxywasm-host/mitmproxy-newest/bin"
"""`make` installs it."""
SCRIPT = ROOT / "proxywasm_host/integrations/mitmproxy/script.py"
FILTERS = ROOT / "tests/filters"
WATCHER = """
def response(flow): print("FLOW", flow.request.path, flow.comment.replace("\\n", " | "), flush=True)
"""
PROBE = """\
@on_request_headers
get_header_map_value 0 x-body
if_status 0
set_property rewrites 1
get_header_map_value 0 x-local
if_status 0
send_local_response 418 tea short%20and%20stout x-local=1 -1
get_header_map_value 0 x-ask
if_status 0
http_call idp :method=GET&:path=/allowed&:authority=idp "" "" 60000
get_header_map_value 0 x-ask
if_status 0
return 1
@on_http_call_response
set_effective_context $stream
continue_stream 0
@on_request_body
get_property rewrites
if_status 0
set_buffer_bytes 0 0 1000 to-upstream
@on_response_body
get_property rewrites
if_status 0
set_buffer_bytes 1 0 1000 to-client
@on_request_trailers
replace_header_map_value 1 x-asked filtered
@on_response_trailers
replace_header_map_value 3 x-answer filtered
"""
NETWORK = """\
@on_downstream_data
set_buffer_bytes 2 0 1000 to-the-server
@on_upstream_data
set_buffer_bytes 3 0 1000 to-the-client
"""
BODY = {"x-body": "1"}


class Program:
    """One of mitmproxy's programs, and what it has written."""

    def __init__(self, program: str, tmp_path: Path, *options: str) -> None:
        watcher = tmp_path / "watcher.py"
        watcher.write_text(WATCHER)
        self.port = closed_port()
        given = [f"confdir={tmp_path}", "connection_strategy=lazy", "ssl_insecure=true", *options]
        settings = [word for each in given if not each.startswith("--") for word in ("--set", each)]
        flags = [word for each in given if each.startswith("--") for word in each.split("=", 1)]
        fixed = ["-s", SCRIPT, "-s", watcher, "--listen-host", "127.0.0.1", "-p", str(self.port)]
        environment = os.environ | {"PYTHONPATH": f"{ROOT}:{ROOT / 'engines/wasmtime'}", "PYTHONUNBUFFERED": "1"}
        self.process = subprocess.Popen(
            [BIN / program, *fixed, *settings, *flags],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=tmp_path,
        )
        self.lines: list[str] = []
        self._reading = threading.Thread(target=lambda: self.lines.extend(self.process.stdout))
        self._reading.start()

    def until(self, text: str) -> str:
        """The line that has this, as soon as it is there."""
        deadline = time.monotonic() + 120
        while True:
            for line in self.lines:
                if text in line:
                    return line.strip()
            assert self.process.poll() is None or text in "".join(self.lines), "".join(self.lines)
            assert time.monotonic() < deadline, "".join(self.lines)
            time.sleep(0.02)

    def client(self, **options) -> httpx2.Client:
        return httpx2.Client(base_url=f"http://127.0.0.1:{self.port}", timeout=60, **options)

    def close(self) -> None:
        self.process.terminate()
        self.process.wait(60)
        self._reading.join()
        self.process.stdout.close()
        print(*self.lines)  # pytest shows it if the test fails


def filters(place: Path) -> list[str]:
    """Options for our filters."""
    for name, text in (("headers", "from Rust"), ("probe", PROBE), ("network", NETWORK)):
        (place / f"{name}.conf").write_text(text)
    return [
        f"proxywasm_filters={FILTERS}/rust/headers.wasm",
        f"proxywasm_filters={FILTERS}/c/probe_0_2_1.wasm",
        "proxywasm_configuration=@headers.conf",
        "proxywasm_configuration=@probe.conf",
        f"proxywasm_network_filters={FILTERS}/c/probe_0_2_1.wasm",
        "proxywasm_network_configuration=@network.conf",
    ]


@pytest.fixture(scope="module")
def upstream():
    with origins.running() as origin:
        yield origin


@pytest.fixture(scope="module")
def tcp_server():
    with listening() as server:
        yield server


@pytest.fixture(scope="module")
def http2_upstream(tmp_path_factory):
    server = Server(certificate(tmp_path_factory.mktemp("tls") / "server"))
    yield server
    server.kill()


@pytest.fixture(scope="module")
def dump(tmp_path_factory, upstream, tcp_server, http2_upstream):
    """A mitmdump with whole bodies. Its port is for `upstream`; `ports` are those of its other modes."""
    modes = {
        "regular": "regular",
        "upstream": f"upstream:{upstream.url}",
        "tcp": f"reverse:tcp://127.0.0.1:{tcp_server.getsockname()[1]}",
        "http2": f"reverse:https://127.0.0.1:{http2_upstream.port}",
    }
    ports = {name: closed_port() for name in modes}
    place = tmp_path_factory.mktemp("mitmdump")
    options = [f"--mode={mode}@{ports[name]}" for name, mode in modes.items()]
    options += [*filters(place), f"proxywasm_clusters=idp={upstream.url}"]
    program = Program("mitmdump", place, f"--mode=reverse:{upstream.url}", *options)
    program.ports = ports
    for port in (program.port, *ports.values()):
        program.until(f"listening at 127.0.0.1:{port}")
    yield program
    program.close()


@pytest.fixture(scope="module")
def mitmweb(tmp_path_factory, upstream, http2_upstream):
    """A mitmweb that streams bodies."""
    place = tmp_path_factory.mktemp("mitmweb")
    http2, regular, page = closed_port(), closed_port(), closed_port()
    options = [f"--mode=reverse:https://127.0.0.1:{http2_upstream.port}@{http2}", f"--mode=regular@{regular}"]
    options.append(f"--web-port={page}")
    options += ["web_open_browser=false", "web_password=secret", "proxywasm_stream=true", *filters(place)]
    program = Program("mitmweb", place, f"--mode=reverse:{upstream.url}", *options)
    program.ports = {"http2": http2, "regular": regular, "page": page}
    for port in (program.port, http2, regular):
        program.until(f"listening at 127.0.0.1:{port}")
    yield program
    program.close()


def test_headers_pass_both_ways_and_the_flow_tells(dump):
    with dump.client() as client:
        answer = client.get("/a?b=c", headers={"x-remove-me": "1"})
    seen = answer.json()
    headers = dict(seen["headers"])
    assert (seen["target"], headers["x-wasm"], headers.get("x-remove-me")) == ("/a?b=c", "from Rust", None)
    assert answer.headers["server"] == "proxy-wasm"
    line = dump.until("FLOW /a?b=c")
    assert "request: -x-remove-me: 1 | request: +x-wasm: from Rust" in line
    assert "response: +server: proxy-wasm" in line


@pytest.mark.carries("mitmproxy", "local responses")
def test_a_local_response_instead_of_upstream(dump, upstream):
    before = len(upstream.requests)
    with dump.client() as client:
        answer = client.post("/tea", headers={"x-local": "please"}, content=b"x" * 10_000)
    assert (answer.status_code, answer.headers["x-local"], answer.text) == (418, "1", "short and stout")
    assert len(upstream.requests) == before
    assert "answered 418 (tea)" in dump.until("FLOW /tea")


@pytest.mark.carries("mitmproxy", "callouts")
def test_a_filter_asks_another_service_first(dump, upstream):
    with dump.client() as client:
        answer = client.get("/asked", headers={"x-ask": "1"})
    assert answer.status_code == 200
    assert [request.target for request in upstream.requests[-2:]] == ["/allowed", "/asked"]


@pytest.mark.parametrize("program", ["dump", "mitmweb"])
def test_head_204_and_an_upstream_that_is_cut(program, request, upstream):
    upstream.answers["/204"] = origins.raw(b"HTTP/1.1 204 No Content\r\n\r\n", keep=True)
    upstream.answers["/cut"] = origins.raw(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nshort")
    with request.getfixturevalue(program).client() as client:
        assert client.head("/head").content == b""
        assert client.post("/empty").json()["method"] == "POST"
        assert client.get("/204").status_code == 204
        if program == "dump":
            assert client.get("/cut").status_code == 502
        else:
            with pytest.raises(httpx2.RemoteProtocolError):  # its head has gone
                client.get("/cut")
        assert client.get("/after").status_code == 200


def test_whole_bodies_are_rewritten_both_ways(dump, upstream):
    with dump.client() as client:
        answer = client.post("/body", content=b"from the client", headers=BODY)
    assert answer.content == b"to-client"
    assert (upstream.requests[-1].body, upstream.requests[-1]["content-length"]) == (b"to-upstream", "11")


def test_a_regular_proxy_and_one_in_front_of_another(dump, upstream):
    for mode, target in (("regular", "/through"), ("upstream", f"{upstream.url}/through")):
        connection = http.client.HTTPConnection("127.0.0.1", dump.ports[mode])
        connection.request("GET", f"{upstream.url}/through")
        seen = json.loads(connection.getresponse().read())
        connection.close()
        assert (seen["target"], dict(seen["headers"])["x-wasm"]) == (target, "from Rust")


@pytest.mark.carries("mitmproxy", "HTTP/2")
def test_http_2_of_a_client(dump):
    with httpx2.Client(http2=True, verify=False) as client:
        answer = client.post(f"https://127.0.0.1:{dump.port}/h2", content=b"body", headers={"host": "example.com"})
    seen = answer.json()
    assert (answer.http_version, seen["target"], seen["body"]) == ("HTTP/2", "/h2", "body")
    assert dict(seen["headers"])["x-wasm"] == "from Rust"


@pytest.mark.carries("mitmproxy", "request trailers", "response trailers")
@pytest.mark.parametrize("program", ["dump", "mitmweb"])
def test_trailers_pass_the_filters(program, request):
    port = request.getfixturevalue(program).ports["http2"]
    _, body, trailers = http2_client.request(port, "/echo/trailers", [], b"body", [("x-asked", "yes")])
    assert b"x-wasm=from Rust" in body
    assert body.endswith(b" x-asked=filtered body")
    assert trailers == {"x-answer": "filtered"}


@pytest.mark.carries("mitmproxy", "WebSocket")
@pytest.mark.parametrize("program", ["dump", "mitmweb"])
def test_a_websocket_passes_the_filters_until_it_opens(program, request):
    async def echo(request):
        opened = web.WebSocketResponse()
        await opened.prepare(request)
        await opened.send_str((await opened.receive_str()) + request.headers["x-wasm"])
        await opened.close()
        return opened

    async def ask(proxy: str) -> str:
        app = web.Application()
        app.router.add_get("/ws", echo)
        runner = web.AppRunner(app)
        await runner.setup()
        sock = listening()
        url = f"http://127.0.0.1:{sock.getsockname()[1]}/ws"
        await web.SockSite(runner, sock).start()
        try:
            async with aiohttp.ClientSession() as session:
                async with session.ws_connect(url, proxy=proxy) as opened:
                    await opened.send_str("Hello ")
                    said = await opened.receive_str()
                with pytest.raises(aiohttp.WSServerHandshakeError, match="418"):
                    await session.ws_connect(url, proxy=proxy, headers={"x-local": "please"})
        finally:
            await runner.cleanup()
        return said

    port = request.getfixturevalue(program).ports["regular"]
    assert asyncio.run(ask(f"http://127.0.0.1:{port}")) == "Hello from Rust"


@pytest.mark.carries("mitmproxy", "TCP")
def test_tcp_connections_pass_the_network_filters(dump, tcp_server):
    with socket.create_connection(("127.0.0.1", dump.ports["tcp"])) as client:
        client.sendall(b"hello")
        accepted, _ = tcp_server.accept()
        with accepted:
            assert accepted.recv(100) == b"to-the-server"
            accepted.sendall(b"hello")
            assert client.recv(100) == b"to-the-client"


# -- Streamed ----------------------------------------------------------------------------------------------------------


def test_streamed_bodies_are_rewritten_both_ways(mitmweb, upstream):
    with mitmweb.client() as client:
        answer = client.post("/body", content=b"from the client", headers=BODY)
    assert answer.content.startswith(b"to-client")
    assert upstream.requests[-1].body.startswith(b"to-upstream")
    assert upstream.requests[-1]["content-length"] is None


@pytest.mark.carries("mitmproxy", "request bodies part by part")
def test_a_streamed_request_goes_part_by_part(mitmweb, upstream):
    came, seen = threading.Event(), []

    async def first_part(request, reader, writer):
        size = int(await reader.readline(), 16)
        part = await reader.readexactly(size)
        seen.append(part)
        came.set()  # only now the client sends the second
        while await reader.readline() != b"0\r\n":
            pass
        await reader.readline()
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
        return True

    upstream.answers["/parts"] = first_part

    def parts():
        yield b"one"
        assert came.wait(60)
        yield b"two"

    with mitmweb.client() as client:
        assert client.post("/parts", content=parts(), headers=BODY).status_code == 200
    assert seen == [b"to-upstream"]


@pytest.mark.carries("mitmproxy", "response bodies part by part")
def test_a_streamed_response_comes_part_by_part(mitmweb, upstream):
    seen = threading.Event()

    async def events(request, reader, writer):
        writer.write(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\none\r\n")
        await writer.drain()
        await asyncio.get_running_loop().run_in_executor(None, seen.wait, 60)
        writer.write(b"3\r\ntwo\r\n0\r\n\r\n")
        return True

    upstream.answers["/events"] = events
    with mitmweb.client() as client, client.stream("GET", "/events", headers=BODY) as answer:
        parts = answer.iter_raw()
        first = next(parts)
        seen.set()  # only now the second is sent
        assert (first, b"".join(parts)[:9]) == (b"to-client", b"to-client")


def test_the_page_of_mitmweb_shows_what_filters_did(mitmweb):
    with mitmweb.client() as client:
        client.get("/shown", headers={"x-remove-me": "1"})
        client.get("/shown/local", headers={"x-local": "please"})
        page = f"http://127.0.0.1:{mitmweb.ports['page']}/flows"
        flows = client.get(page, headers={"authorization": "Bearer secret"}).json()
    comments = {flow["request"]["path"]: flow["comment"].splitlines() for flow in flows}
    assert comments["/shown"] == [
        "request: -x-remove-me: 1",
        "request: +x-wasm: from Rust",
        "response: +x-wasm: from Rust",
        "response: +server: proxy-wasm",
    ]
    assert comments["/shown/local"][-1] == "answered 418 (tea)"


# -- What is wrong -----------------------------------------------------------------------------------------------------


def test_a_filter_that_is_not_there_ends_the_program(tmp_path):
    program = Program("mitmdump", tmp_path, "proxywasm_filters=none.wasm")
    try:
        program.until("none.wasm")
        program.process.wait(60)
    finally:
        program.close()


def test_options_that_do_not_fit_are_refused(mitmweb):
    given = {"proxywasm_configuration": ["a", "b", "c"]}
    with mitmweb.client() as client:
        token = "c0ffee"
        cookie = f"_mitmproxy_xsrf={token}; _xsrf={token}"
        headers = {"authorization": "Bearer secret", "x-xsrftoken": token, "cookie": cookie}
        page = f"http://127.0.0.1:{mitmweb.ports['page']}/options"
        answer = client.put(page, json=given, headers=headers)
        assert (answer.status_code, "3 configurations are given for 2 filters" in answer.text) == (400, True)
        assert client.get("/still").headers["server"] == "proxy-wasm"
