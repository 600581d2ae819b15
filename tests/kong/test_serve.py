"""``proxywasm serve`` with a configuration of Kong: a plugin in Lua, one of a plugin server, two filters; 20 routes."""

from __future__ import annotations

import json
import os
import shutil
import signal

import httpx2
import pytest

from tests.kong.conftest import PLUGINS, python_server
from tests.serve.conftest import Served
from tests.serve.origin import running
from tests.support import FILTERS

FILE = """
_format_version: "3.0"
services:
- name: api
  url: {origin}/base
  plugins: [{{name: hello}}, {{name: py_hello, config: {{message: salut}}}}]
  filter_chains: [{{filters: [{{name: rust-headers, config: from-rust}}]}}]
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
- name: auth
  url: {origin}
  filter_chains: [{{filters: [{{name: rust-auth, config: secret}}]}}]
  routes:
{routes}
upstreams:
- {{name: pool, targets: [{{target: '{address}'}}]}}
"""


@pytest.fixture(scope="module")
def origin():
    with running() as origin:
        yield origin


@pytest.fixture(scope="module")
def gateway(origin, tmp_path_factory):
    """A gateway on the default engine."""
    folder = tmp_path_factory.mktemp("gateway")
    filters = folder / "filters"
    filters.mkdir()
    for name in ("rust/headers", "go/headers", "rust/auth", "c/probe_0_2_1"):
        shutil.copy(FILTERS / f"{name}.wasm", filters / f"{name.replace('/', '-').replace('c-probe_0_2_1', 'probe')}.wasm")
    routes = "\n".join(f"  - {{name: r{number}, paths: [/route/{number}], methods: [GET], headers: {{x-v: [v{number}]}}}}" for number in range(20))
    file = folder / "kong.yaml"
    file.write_text(FILE.format(origin=origin.url, address=f"127.0.0.1:{origin.port}", routes=routes))
    environment = {
        **os.environ,
        **python_server(folder),
        "KONG_WASM_FILTERS_PATH": str(filters),
        "KONG_LUA_PACKAGE_PATH": f"{PLUGINS}/lua/?.lua",
    }
    served = Served(folder, ["--config", str(file), "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"], environment)
    yield served
    served.stop(signal.SIGTERM)


def headers_at(answer):
    return {name.lower(): value for name, value in answer.json()["headers"]}


def test_one_request_meets_lua_a_plugin_server_and_two_filters(gateway):
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


def test_bodies_both_ways(gateway):
    for path, body in (("/balanced", "x" * 1_000_000), ("/api", "y" * 5000)):
        answer = httpx2.post(gateway.url + path, content=body, timeout=30)
        assert answer.json()["body"] == body
    assert headers_at(answer)["x-body"] == body  # which a plugin has read


def test_an_exit_of_lua_is_seen_by_no_filter(gateway):
    answer = gateway.get("/api", headers={"x-deny": "lua"})
    assert (answer.status_code, answer.json()["message"]) == (402, "denied by lua")
    assert (answer.headers["x-by"], answer.headers["x-lua-source"]) == ("lua", "exit")
    assert "x-wasm" not in answer.headers


@pytest.mark.parametrize("number", [0, 7, 19])
def test_twenty_routes_told_apart_by_path_and_header(gateway, number):
    assert gateway.get(f"/route/{number}", headers={"x-v": "other", "authorization": "secret"}).status_code == 404
    answer = gateway.get(f"/route/{number}", headers={"x-v": f"V{number}"})
    assert answer.status_code == 401  # of the filter
    answer = gateway.get(f"/route/{number}", headers={"x-v": f"v{number}", "authorization": "Bearer secret"})
    assert answer.json()["target"] == "/"


def test_a_filter_chooses_the_target(gateway):
    assert gateway.get("/chosen/x").json()["target"] == "/x"


def test_an_upstream_that_is_down_is_told_in_kongs_words(gateway):
    answer = gateway.get("/down")
    assert (answer.status_code, answer.json()["message"]) == (503, "The upstream server is currently unavailable")


def test_no_route(gateway):
    answer = gateway.get("/none")
    assert (answer.status_code, answer.json()["message"]) == (404, "no Route matched with those values")


def test_metrics_and_the_page_know_its_filters(gateway):
    assert httpx2.get(f"{gateway.admin}/healthz", timeout=30).status_code == 200
    shown = json.dumps(gateway.live())
    assert ("rust-headers" in shown, "go-headers" in shown) == (True, True)
