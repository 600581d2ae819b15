"""A gateway in the harness: what the fixture ``proxywasm`` gives to tests of filters, for a configuration of Kong."""

from __future__ import annotations

import pytest

from proxywasm_host.kong.testing import gateway
from proxywasm_host.testing import NEVER, Harness, Response
from tests.kong.conftest import PLUGINS
from tests.support import FILTERS

FILE = """
_format_version: "3.0"
services:
- name: api
  url: http://up.example/base
  filter_chains: [{filters: [{name: headers, config: from-rust}]}]
  routes:
  - {name: calls, paths: [/calls], plugins: [{name: calls, config: {url: 'http://idp.example:81', host: idp.example, port: 1, file: none}}]}
"""


@pytest.fixture
def kong(tmp_path):
    (tmp_path / "headers.wasm").write_bytes((FILTERS / "rust/headers.wasm").read_bytes())
    (tmp_path / "kong.yaml").write_text(FILE)
    environment = {"KONG_WASM_FILTERS_PATH": str(tmp_path), "KONG_LUA_PACKAGE_PATH": f"{PLUGINS}/lua/?.lua"}
    return lambda harness: gateway(harness, tmp_path / "kong.yaml", environment=environment)


def test_plugins_are_answered_as_filters_are(engine, kong):
    with Harness(engine, profile="wasmx") as harness:
        under_test = kong(harness)
        harness.http["idp.example:81"] = lambda callout: Response(203 if callout.request.headers["x-asks"] == "lua" else 500)
        under_test.upstream = lambda request: Response(201, {"x-up": request.headers["x-http"]})
        outcome = under_test.get("http://example.com/calls/x")
    assert (outcome.upstream.path, outcome.upstream.headers["x-by-hand"]) == ("/base/x", "connection refused")
    assert (outcome.status, outcome.response.headers["x-up"], outcome.response.headers["x-wasm"]) == (201, "203", "from-rust")
    assert [(callout.plugin, callout.cluster, callout.request.path) for callout in harness.callouts] == [("kong", "idp.example:81", "/asked"), ("kong", "idp.example:81", "/told")]


def test_an_answer_that_does_not_come_runs_into_the_plugins_time_out(kong):
    with Harness("wasmtime", profile="wasmx") as harness:
        under_test = kong(harness)
        harness.http["idp.example"] = NEVER
        outcome = under_test.get("/calls")
    assert outcome.upstream.headers["x-http"] == "timeout"


def test_a_gateway_has_a_profile(kong):
    with Harness("wasmtime") as harness, pytest.raises(ValueError, match="a gateway of Kong has the profile wasmx"):
        kong(harness)
