"""Plugins of plugin servers in one request: `exchange`, ``proxywasm run`` and ``bench``, and tests with the harness."""

from __future__ import annotations

import json
from shutil import which

import pytest

from proxywasm_host import Host
from proxywasm_host.kong.environment import Environment
from proxywasm_host.kong.exchange import through
from proxywasm_host.kong.setup import Setup, query
from proxywasm_host.kong.testing import gateway
from proxywasm_host.testing import Harness, Message
from tests.cli.conftest import command, proxywasm  # noqa: F401 - fixtures
from tests.kong.conftest import processes_that_name, python_server
from tests.support import FILTERS

FILE = """
_format_version: "3.0"
services:
- name: api
  url: http://up.example/base
  plugins: [{name: py_hello, config: {message: salut}}%s]
  filter_chains: [{filters: [{name: headers, config: from-rust}]}]
  routes: [{name: api, paths: [/api]}]
"""


@pytest.fixture
def file(tmp_path):
    (tmp_path / "headers.wasm").write_bytes((FILTERS / "rust/headers.wasm").read_bytes())
    (tmp_path / "kong.yaml").write_text(FILE % (", {name: js_hello}" if which("npm") else ""))
    return tmp_path / "kong.yaml"


@pytest.fixture
def environment(running_servers, tmp_path):
    """Servers that run."""
    return {**running_servers, "KONG_WASM_FILTERS_PATH": str(tmp_path)}


def check(path, upstream, client):
    assert (path, upstream["x-python"], upstream["x-wasm"]) == ("/base", "salut a.example", "from-rust")
    assert upstream.get("x-javascript") == ("bonjour a.example salut" if which("npm") else None)
    assert (client["x-python-status"], client["x-wasm"]) == ("200", "from-rust")


def test_an_exchange(engine, file, environment):
    read = Environment.read(environment)
    setup = Setup(file, read, query(read))
    with Host(engine, profile="wasmx") as host, setup.running():
        kong = setup.gateway(host, [host.load_plugin(filter) for filter in setup.filters])
        kong.start()
        for _ in range(3):
            result = through(kong, Message.request("GET", "http://a.example/api"), Message.response(200))
            upstream, client = (
                {name.decode(): value.decode() for name, value in message.headers}
                for message in (result.upstream_request, result.client_response)
            )
            check(upstream[":path"], upstream, client)


def test_a_test(engine, file, environment):
    with Harness(engine, profile="wasmx") as harness:
        outcome = gateway(harness, file, environment=environment).get("http://a.example/api")
        check(outcome.upstream.path, outcome.upstream.headers, outcome.response.headers)
        assert gateway(harness, file, environment=environment).get("/api", headers={"x-deny": "python"}).status == 403


def test_a_command_starts_and_ends_a_server(command, file, tmp_path, monkeypatch):  # noqa: F811
    file.write_text(FILE % "")
    for name, value in {**python_server(tmp_path), "KONG_WASM_FILTERS_PATH": str(tmp_path)}.items():
        monkeypatch.setenv(name, value)
    done = command("run", file, "http://a.example/api", "--json")
    assert done.code == 0, done
    said = json.loads(done.out)
    assert dict(said["upstream_request"]["headers"])["x-python"] == "salut a.example"
    assert dict(said["client_response"]["headers"])["x-python-status"] == "200"
    assert processes_that_name(tmp_path) == []


def test_how_long_a_request_takes(command, file, environment, monkeypatch):  # noqa: F811
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    done = command("bench", file, "http://a.example/api", "--requests", "25", "--json")
    assert done.code == 0, done
    assert json.loads(done.out)["request_us"]["median"] > 0
