"""``proxywasm run`` and ``bench`` with a configuration of Kong."""

from __future__ import annotations

import json

import pytest

from tests.cli.conftest import command, proxywasm  # noqa: F401 - fixtures
from tests.kong.conftest import PLUGINS
from tests.support import FILTERS

FILE = """
_format_version: "3.0"
services:
- name: api
  url: http://up.example/base
  filter_chains: [{filters: [{name: headers, config: from-rust}]}]
  routes:
  - {name: calls, paths: [/calls], plugins: [{name: calls, config: {url: 'http://idp.example', host: idp.example, port: 1, file: none}}]}
  - {name: hello, paths: [/hello], plugins: [{name: hello}]}
"""


@pytest.fixture
def file(tmp_path, monkeypatch):
    (tmp_path / "headers.wasm").write_bytes((FILTERS / "rust/headers.wasm").read_bytes())
    (tmp_path / "kong.yaml").write_text(FILE)
    monkeypatch.setenv("KONG_WASM_FILTERS_PATH", str(tmp_path))
    monkeypatch.setenv("KONG_LUA_PACKAGE_PATH", f"{PLUGINS}/lua/?.lua")
    return str(tmp_path / "kong.yaml")


def test_one_request_through_plugins_and_filters(proxywasm, file):  # noqa: F811
    done = proxywasm("run", file, "http://example.com/calls/x", "--callout", "idp.example=202:yes", "--json")
    assert done.code == 0, done
    came = dict(json.loads(done.out)["upstream_request"]["headers"])
    assert (came[":path"], came["x-http"], came["x-by-hand"], came["x-slept"]) == ("/base/x", "202", "connection refused", "false")
    answered = dict(json.loads(done.out)["client_response"]["headers"])
    assert answered["x-wasm"] == "from-rust"


def test_what_a_plugin_answers(proxywasm, file):  # noqa: F811
    done = proxywasm("run", file, "/hello", "-H", "x-deny: lua")
    assert (done.code, "402" in done.out, "denied by lua" in done.out) == (0, True, True)


def test_what_is_wrong_with_a_configuration(command, file, monkeypatch):  # noqa: F811
    monkeypatch.delenv("KONG_LUA_PACKAGE_PATH")
    done = command("run", file, "/hello")
    assert done.code == 2
    assert "kong.yaml:8: services[0].routes[0].plugins[0]: no plugin is called 'calls'" in done.complaint


def test_how_long_a_request_takes(command, file):  # noqa: F811
    done = command("bench", file, "/hello", "--requests", "25", "--json")
    assert done.code == 0, done
    assert json.loads(done.out)["request_us"]["median"] > 0
