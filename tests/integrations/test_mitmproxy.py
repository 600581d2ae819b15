"""The addon in a real mitmdump: one for all tests of a kind, in an environment of its own that `make` installs."""

from __future__ import annotations

import http.client
import json
import os
import socket
import subprocess
import threading
import time
from pathlib import Path

import httpx2
import pytest

from tests.serve import origin as origins
from tests.serve.ports import closed_port

ROOT = Path(__file__).parents[2]
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
BIN = CACHE / "proxywasm-host/mitmproxy/bin"
"""`make` installs it."""
SCRIPT = ROOT / "proxywasm_host/integrations/mitmproxy/script.py"
FILTERS = ROOT / "tests/filters"
WATCHER = """
def response(flow): print("FLOW", flow.request.path, flow.comment.replace("\\n", " | "), flush=True)
"""


class Mitmdump:
    """A mitmdump in front of an origin, with these options."""

    def __init__(self, tmp_path: Path, *options: str) -> None:
        watcher = tmp_path / "watcher.py"
        watcher.write_text(WATCHER)
        self.port = closed_port()
        fixed = (
            "--listen-host",
            "127.0.0.1",
            "-p",
            str(self.port),
            "--set",
            f"confdir={tmp_path}",
            "--set",
            "connection_strategy=lazy",
        )
        command = [BIN / "mitmdump", "-s", SCRIPT, "-s", watcher, *fixed, *options]
        environment = os.environ | {"PYTHONPATH": f"{ROOT}:{ROOT / 'engines/wasmtime'}", "PYTHONUNBUFFERED": "1"}
        self.process = subprocess.Popen(
            command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=tmp_path
        )
        self.lines: list[str] = []
        self._reading = threading.Thread(target=lambda: self.lines.extend(self.process.stdout))
        self._reading.start()

    def until(self, text: str) -> str:
        """The line that has this, as soon as it is there."""
        deadline = time.monotonic() + 60
        while True:
            for line in self.lines:
                if text in line:
                    return line.strip()
            assert self.process.poll() is None or text in "".join(self.lines), "".join(self.lines)
            assert time.monotonic() < deadline, "".join(self.lines)
            time.sleep(0.02)

    def client(self, **options) -> httpx2.Client:
        return httpx2.Client(base_url=f"http://127.0.0.1:{self.port}", **options)

    def close(self) -> None:
        self.process.terminate()
        self.process.wait(10)
        self._reading.join()
        self.process.stdout.close()
        print(*self.lines)  # pytest shows it if the test fails


@pytest.fixture(scope="module")
def upstream():
    with origins.running() as origin:
        yield origin


def made(tmp_path_factory, modules: dict[str, str], *options: str) -> Mitmdump:
    """One with filters, by their configurations."""
    place = tmp_path_factory.mktemp("mitm")
    for number, (module, configuration) in enumerate(modules.items()):
        (place / f"{number}.conf").write_text(configuration)
        options += (
            "--set",
            f"proxywasm_filters={FILTERS / module}.wasm",
            "--set",
            f"proxywasm_configuration=@{number}.conf",
        )
    dump = Mitmdump(place, *options)
    dump.until("proxy listening" if "reverse" not in str(options) else "reverse proxy to")
    return dump


SCRIPTED = "@on_request_headers\nget_header_map_value 0 x-local\nif_status 0\nsend_local_response 418 tea short%20and%20stout x-local=1 -1\n"
BODIES = (
    "@on_request_body\nset_buffer_bytes 0 0 1000 to-upstream\n@on_response_body\nset_buffer_bytes 1 0 1000 to-client\n"
)


@pytest.fixture(scope="module")
def reverse(tmp_path_factory, upstream):
    chain = {"rust/headers": "from Rust", "c/probe_0_2_1": SCRIPTED}
    regular = closed_port()
    dump = made(tmp_path_factory, chain, "--mode", f"reverse:{upstream.url}", "--mode", f"regular@{regular}")
    dump.regular = regular
    yield dump
    dump.close()


def test_headers_pass_both_ways_and_the_flow_tells(reverse):
    with reverse.client() as client:
        answer = client.get("/a?b=c", headers={"x-remove-me": "1"})
    seen = answer.json()
    headers = dict(seen["headers"])
    assert (seen["target"], headers["x-wasm"], headers.get("x-remove-me")) == ("/a?b=c", "from Rust", None)
    assert answer.headers["server"] == "proxy-wasm"
    line = reverse.until("FLOW /a?b=c")
    assert "request: -x-remove-me: 1 | request: +x-wasm: from Rust" in line
    assert "response: +server: proxy-wasm" in line


@pytest.mark.carries("mitmproxy", "local responses")
def test_a_local_response_instead_of_upstream(reverse, upstream):
    before = len(upstream.requests)
    with reverse.client() as client:
        answer = client.post("/tea", headers={"x-local": "please"}, content=b"x" * 10_000)
    assert (answer.status_code, answer.headers["x-local"], answer.text) == (418, "1", "short and stout")
    assert len(upstream.requests) == before
    assert "answered 418 (tea)" in reverse.until("FLOW /tea")


def test_head_204_and_an_upstream_that_is_cut(reverse, upstream):
    upstream.answers["/204"] = origins.raw(b"HTTP/1.1 204 No Content\r\n\r\n", keep=True)
    upstream.answers["/cut"] = origins.raw(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nshort")
    with reverse.client() as client:
        assert client.head("/head").content == b""
        assert client.get("/204").status_code == 204
        assert client.get("/cut").status_code == 502
        assert client.get("/after").status_code == 200


@pytest.fixture(scope="module", params=["whole", "streamed"])
def bodies(request, tmp_path_factory, upstream):
    streamed = ["--set", f"proxywasm_stream={str(request.param == 'streamed').lower()}"]
    dump = made(tmp_path_factory, {"c/probe_0_2_1": BODIES}, "--mode", f"reverse:{upstream.url}", *streamed)
    dump.streams = request.param == "streamed"
    yield dump
    dump.close()


def test_bodies_are_rewritten_both_ways(bodies, upstream):
    with bodies.client() as client:
        answer = client.post("/body", content=b"from the client")
    assert answer.content.startswith(b"to-client")
    assert upstream.requests[-1].body.startswith(b"to-upstream")
    length = upstream.requests[-1]["content-length"]
    assert length == (None if bodies.streams else "11")


@pytest.mark.carries("mitmproxy", "response bodies part by part")
def test_a_streamed_response_comes_part_by_part(bodies, upstream):
    if not bodies.streams:
        return
    seen = threading.Event()

    async def events(request, reader, writer):
        import asyncio

        writer.write(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\none\r\n")
        await writer.drain()
        await asyncio.get_running_loop().run_in_executor(None, seen.wait, 20)
        writer.write(b"3\r\ntwo\r\n0\r\n\r\n")
        return True

    upstream.answers["/events"] = events
    with bodies.client(timeout=20) as client, client.stream("GET", "/events") as answer:
        parts = answer.iter_raw()
        first = next(parts)
        seen.set()  # only now the second is sent
        assert (first, b"".join(parts)[:9]) == (b"to-client", b"to-client")


def test_a_regular_proxy(reverse, upstream):
    connection = http.client.HTTPConnection("127.0.0.1", reverse.regular)
    connection.request("GET", f"{upstream.url}/through")
    seen = json.loads(connection.getresponse().read())
    connection.close()
    assert (seen["target"], dict(seen["headers"])["x-wasm"]) == ("/through", "from Rust")


@pytest.mark.carries("mitmproxy", "HTTP/2")
def test_http_2_of_a_client(reverse, upstream):
    with httpx2.Client(http2=True, verify=False) as client:
        answer = client.post(f"https://127.0.0.1:{reverse.port}/h2", content=b"body", headers={"host": "example.com"})
    seen = answer.json()
    assert (answer.http_version, seen["target"], seen["body"]) == ("HTTP/2", "/h2", "body")
    assert dict(seen["headers"])["x-wasm"] == "from Rust"


@pytest.mark.carries("mitmproxy", "TCP")
def test_tcp_connections(tmp_path_factory):
    with socket.create_server(("127.0.0.1", 0)) as server:
        script = "@on_downstream_data\nset_buffer_bytes 2 0 1000 to-the-server\n@on_upstream_data\nset_buffer_bytes 3 0 1000 to-the-client\n"
        mode = f"reverse:tcp://127.0.0.1:{server.getsockname()[1]}"
        dump = made(tmp_path_factory, {"c/probe_0_2_1": script}, "--mode", mode)
        try:
            with socket.create_connection(("127.0.0.1", dump.port)) as client:
                client.sendall(b"hello")
                accepted, _ = server.accept()
                with accepted:
                    assert accepted.recv(100) == b"to-the-server"
                    accepted.sendall(b"hello")
                    assert client.recv(100) == b"to-the-client"
        finally:
            dump.close()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--set", "proxywasm_filters=none.wasm"], "none.wasm"),
        (["--set", "proxywasm_configuration=x"], "1 configurations are given, and 0 filters"),
    ],
)
def test_what_is_wrong_is_said_at_the_start(tmp_path, options, said):
    dump = Mitmdump(tmp_path, *options)
    try:
        dump.until(said)
        dump.process.wait(20)
    finally:
        dump.close()
