"""A configuration of Kong in ``proxywasm serve`` and in front of an application, on every engine: a plugin in Lua, one
of a plugin server, filters in Rust, C and Go; 20 routes."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from contextlib import contextmanager
from shutil import which
from urllib.parse import urlsplit

import anyio.from_thread
import httpx2
import pytest

from proxywasm_host.kong.asgi import KongMiddleware
from tests.conftest import ENGINES
from tests.kong.conftest import PLUGINS, javascript_server, processes_that_name
from tests.serve.conftest import Served
from tests.serve.origin import running
from tests.support import FILTERS

FILE = """
_format_version: "3.0"
services:
- name: api
  url: {origin}/base
  plugins: [{{name: hello}}, {{name: py_hello, config: {{message: salut}}}}]
  filter_chains: [{{filters: [{{name: rust-headers, config: from-rust}}, {{name: probe, config: "{shared}"}}]}}]
  routes:
  - name: api
    paths: [/api]
    filter_chains: [{{filters: [{{name: go-headers, config: from-go}}]}}]
- name: balanced
  host: pool
  routes: [{{name: balanced, paths: [/balanced]}}]
- {{name: down, url: 'http://127.0.0.1:1', retries: 0, routes: [{{name: down, paths: [/down]}}]}}
- name: chosen
  url: http://127.0.0.1:1
  filter_chains: [{{filters: [{{name: probe, config: "@on_request_headers\\nset_property kong.service.target {address}"}}]}}]
  routes: [{{name: chosen, paths: [/chosen]}}]
- name: limited
  url: {origin}
  routes:
  - name: limited
    paths: [/limited]
    filter_chains: [{{filters: [{{name: rate-limiting, config: {{hour: 3, day: 100}}}}]}}]
  - name: limited-by-header
    paths: [/by-header]
    filter_chains: [{{filters: [{{name: rate-limiting, config: {{day: 2, limit_by: header, header_name: x-who, hide_client_headers: true}}}}]}}]
- name: auth
  url: {origin}
  plugins: [{{name: hello}}]
  filter_chains: [{{filters: [{{name: rust-auth, config: secret}}]}}]
  routes:
{routes}
upstreams:
- {{name: pool, targets: [{{target: '{address}'}}]}}
"""
SHARED = r"@on_request_headers\nget_property kong.ctx.shared.python\nadd_header_map_value 0 x-filter-saw at:$ptr:$size\nset_property kong.ctx.shared.filter probe"
NAMES = {
    "rust/headers": "rust-headers",
    "go/headers": "go-headers",
    "go/rate_limiting": "rate-limiting",
    "rust/auth": "rust-auth",
    "c/probe_0_2_1": "probe",
}


@pytest.fixture(scope="module")
def origin():
    with running() as origin:
        yield origin


async def echo(scope, receive, send):
    """An application that answers as the origin does."""
    if scope["type"] != "http":
        return
    body = b""
    while (message := await receive())["type"] == "http.request":
        body += message["body"]
        if not message.get("more_body"):
            break
    target = scope["path"] + (f"?{scope['query_string'].decode()}" if scope["query_string"] else "")
    headers = [(name.decode(), value.decode("latin-1")) for name, value in scope["headers"]]
    said = json.dumps({"target": target, "headers": headers, "body": body.decode("latin-1")}).encode()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(said))]})
    await send({"type": "http.response.body", "body": said})


class InFrontOfAnApplication:
    """A gateway in this process; asked as a `Served` is."""

    def __init__(self, portal, file, environment, engine):
        async def start():
            self._middleware = KongMiddleware(echo, file, environment=environment, engine=engine)
            transport = httpx2.ASGITransport(self._middleware)
            self._client = httpx2.AsyncClient(transport=transport, base_url="http://127.0.0.1", timeout=30)

        self._portal = portal
        portal.call(start)

    def get(self, path, **options):
        return self._portal.call(lambda: self._client.get(path, **options))

    def post(self, path, body):
        return self._portal.call(lambda: self._client.post(path, content=body))

    def stop(self):
        self._portal.call(self._middleware._stop)
        self._portal.call(self._client.aclose)
        self._middleware.close()


class InServe(Served):
    def post(self, path, body):
        return httpx2.post(self.url + path, content=body, timeout=30)


@pytest.fixture(scope="module")
def environment(running_servers, tmp_path_factory):
    filters = tmp_path_factory.mktemp("filters")
    for name, own in NAMES.items():
        shutil.copy(FILTERS / f"{name}.wasm", filters / f"{own}.wasm")
    shutil.copy(FILTERS / "go/rate_limiting.meta.json", filters / "rate-limiting.meta.json")
    return {**os.environ, **running_servers, "KONG_WASM_FILTERS_PATH": str(filters), "KONG_LUA_PACKAGE_PATH": f"{PLUGINS}/lua/?.lua"}


@pytest.fixture(scope="module")
def file(origin, tmp_path_factory):
    routes = "\n".join(f"  - {{name: r{number}, paths: [/route/{number}], methods: [GET], headers: {{x-v: [v{number}]}}}}" for number in range(20))
    file = tmp_path_factory.mktemp("configuration") / "kong.yaml"
    file.write_text(FILE.format(origin=origin.url, address=f"127.0.0.1:{origin.port}", routes=routes, shared=SHARED))
    return file


@contextmanager
def serving(file, environment, folder, **more):
    served = InServe(folder, ["--config", str(file), "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"], {**environment, **more})
    try:
        yield served
    finally:
        served.stop(signal.SIGTERM)


@pytest.fixture(scope="module", params=[f"{carrier} {engine}" for engine in ENGINES for carrier in ("serve", "asgi")])
def gateway(request, file, environment, tmp_path_factory):
    """A gateway in each carrier, on each engine."""
    carrier, engine = request.param.split()
    if carrier == "serve":
        with serving(file, environment, tmp_path_factory.mktemp("served"), PROXYWASM_ENGINE=engine) as served:
            yield served
    else:
        with anyio.from_thread.start_blocking_portal() as portal:
            asgi = InFrontOfAnApplication(portal, file, environment, engine)
            yield asgi
            asgi.stop()


of_serve = pytest.mark.parametrize("gateway", [f"serve {ENGINES[0]}"], indirect=True)
"""What no engine and no other carrier has to do with."""


def headers_at(answer):
    return {name.lower(): value for name, value in answer.json()["headers"]}


def test_one_request_meets_lua_a_plugin_server_and_filters(gateway):
    answer = gateway.get("/api/x?q=1", headers={"x-remove-me": "1", "x-forwarded-for": "1.2.3.4"})
    said, came = answer.json(), headers_at(answer)
    assert (answer.status_code, said["target"]) == (200, "/base/x?q=1")
    assert came["x-lua"] == "moin api"
    assert came["x-python"].startswith("salut 127.0.0.1")
    assert [value for name, value in said["headers"] if name.lower() == "x-wasm"] == ["from-rust", "from-go"]
    assert "x-remove-me" not in came
    assert "x-proxywasm-upstream" not in came
    assert came["x-forwarded-for"] == "1.2.3.4, 127.0.0.1"
    assert (came["x-forwarded-path"], came["x-forwarded-prefix"]) == ("/api/x", "/api")
    assert answer.headers["x-lua-source"] == "service"
    assert answer.headers["x-python-status"] == "200"
    assert answer.headers.get_list("x-wasm") == ["from-rust", "from-go"]


def test_what_one_shares_the_next_one_sees(gateway):
    answer = gateway.get("/api")
    came = headers_at(answer)
    assert came["x-python-saw"] == "moin"  # of Lua
    assert came["x-filter-saw"] == "salut"  # of the plugin server
    assert answer.headers["x-lua-saw"] == "probe"  # of the filter


def test_bodies_both_ways(gateway):
    for path, body in (("/balanced", "x" * 1_000_000), ("/api", "y" * 5000)):
        answer = gateway.post(path, body)
        assert answer.json()["body"] == body
    assert headers_at(answer)["x-body"] == body  # which a plugin has read


def test_an_exit_of_lua_is_seen_by_no_plugin_behind_it_and_no_filter(gateway):
    answer = gateway.get("/api", headers={"x-deny": "lua"})
    assert (answer.status_code, answer.json()["message"]) == (402, "denied by lua")
    assert (answer.headers["x-by"], answer.headers["x-lua-source"]) == ("lua", "exit")
    assert not {"x-wasm", "x-lua-saw", "x-python-status"} & set(answer.headers)


def test_an_exit_of_a_plugin_server_passes_lua_and_no_filter(gateway):
    answer = gateway.get("/api", headers={"x-deny": "python"})
    assert (answer.status_code, answer.text) == (403, "denied by python")
    assert (answer.headers["x-by"], answer.headers["x-lua-source"]) == ("python", "exit")
    assert not {"x-wasm", "x-lua-saw"} & set(answer.headers)


def test_a_local_response_of_a_filter_passes_lua(gateway):
    answer = gateway.get("/route/3", headers={"x-v": "v3"})
    assert (answer.status_code, answer.headers["x-lua-source"]) == (401, "exit")


@pytest.mark.parametrize("number", [0, 7, 19])
def test_twenty_routes_told_apart_by_path_and_header(gateway, number):
    assert gateway.get(f"/route/{number}", headers={"x-v": "other", "authorization": "secret"}).status_code == 404
    answer = gateway.get(f"/route/{number}", headers={"x-v": f"V{number}"})
    assert answer.status_code == 401  # of the filter
    answer = gateway.get(f"/route/{number}", headers={"x-v": f"v{number}", "authorization": "Bearer secret"})
    assert answer.json()["target"] == "/"
    assert headers_at(answer)["x-lua"] == f"moin r{number}"


def test_no_route(gateway):
    answer = gateway.get("/none")
    assert (answer.status_code, answer.json()["message"]) == (404, "no Route matched with those values")


def test_a_filter_chooses_the_target(gateway):
    assert gateway.get("/chosen/x").json()["target"] == "/x"


def limits(answer):
    return {name: value for name, value in answer.headers.items() if "ratelimit" in name and name != "ratelimit-reset"}


def test_a_filter_limits_how_much_a_client_may_ask(gateway):
    answers = [gateway.get("/limited") for _ in range(4)]
    assert [answer.status_code for answer in answers] == [200, 200, 200, 429]
    assert limits(answers[0]) == {
        "x-ratelimit-limit-hour": "3",
        "x-ratelimit-remaining-hour": "2",
        "x-ratelimit-limit-day": "100",
        "x-ratelimit-remaining-day": "99",
        "ratelimit-limit": "3",
        "ratelimit-remaining": "2",
    }
    assert [limits(answer)["ratelimit-remaining"] for answer in answers] == ["2", "1", "0", "0"]
    assert (answers[3].text.strip(), answers[3].headers["retry-after"]) == ("API rate limit exceeded", answers[3].headers["ratelimit-reset"])
    assert 1 <= int(answers[3].headers["retry-after"]) <= 3600


def test_each_client_and_each_route_has_a_limit_of_its_own(gateway):
    asked = [("a", 200), ("a", 200), ("b", 200), ("a", 429), ("b", 200), ("b", 429)]
    answers = [gateway.get("/by-header", headers={"x-who": who}) for who, _ in asked]
    assert [answer.status_code for answer in answers] == [status for _, status in asked]
    assert limits(answers[0]) == {}


@of_serve
def test_an_upstream_that_is_down_is_told_in_kongs_words(gateway):
    answer = gateway.get("/down")
    assert (answer.status_code, answer.json()["message"]) == (503, "The upstream server is currently unavailable")


@of_serve
def test_metrics_and_the_page_know_its_filters(gateway):
    assert httpx2.get(f"{gateway.admin}/healthz", timeout=30).status_code == 200
    shown = json.dumps(gateway.live())
    assert ("rust-headers" in shown, "go-headers" in shown) == (True, True)


@pytest.mark.skipif(not which("npm"), reason="Kong's PDK for JavaScript is installed with npm")
def test_clients_that_leave_amid_a_plugin_do_not_end_its_server(origin, tmp_path):
    """Kong's server in JavaScript would die of a connection that ends before what it has said is read."""
    file = tmp_path / "kong.yaml"
    service = {"name": "js", "url": origin.url, "plugins": [{"name": "js_hello"}], "routes": [{"name": "js", "paths": ["/"]}]}
    file.write_text(json.dumps({"_format_version": "3.0", "services": [service]}))
    with serving(file, os.environ, tmp_path, **javascript_server(tmp_path)) as served:
        assert headers_at(served.get())["x-javascript"].startswith("bonjour 127.0.0.1")
        where = urlsplit(served.url)
        for _ in range(50):
            with socket.create_connection((where.hostname, where.port), 30) as client:
                client.sendall(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n")
        assert headers_at(served.get())["x-javascript"].startswith("bonjour 127.0.0.1")
        assert "ended with" not in served.log


def test_a_gateway_that_cannot_start_leaves_no_plugin_server(tmp_path):
    shutil.copy(FILTERS / "rust/auth.wasm", tmp_path)  # refuses to be without a configuration
    file = tmp_path / "kong.yaml"
    service = {"name": "s", "url": "http://127.0.0.1:1", "routes": [{"paths": ["/"]}], "plugins": [{"name": "js_hello"}]}
    chain = {"service": {"name": "s"}, "filters": [{"name": "auth"}]}
    file.write_text(json.dumps({"_format_version": "3.0", "services": [service], "filter_chains": [chain]}))
    ran = subprocess.run(
        [sys.executable, "-m", "proxywasm_host.cli", "serve", "--config", file, "--listen", "127.0.0.1:0"],
        env={**os.environ, **javascript_server(tmp_path), "KONG_WASM_FILTERS_PATH": str(tmp_path)},
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert ran.returncode != 0
    assert "refused its configuration" in ran.stderr
    assert processes_that_name(tmp_path) == []
