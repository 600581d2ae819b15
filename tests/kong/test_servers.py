"""Plugin servers of Kong's own PDKs, in a gateway in front of an ASGI application."""

from __future__ import annotations

import json
import os
import signal
import time
from contextlib import asynccontextmanager
from shutil import which
from types import SimpleNamespace

import anyio
import httpx2
import pytest

from proxywasm_host.kong import gateways
from proxywasm_host.kong.asgi import KongMiddleware
from proxywasm_host.kong.servers import process
from proxywasm_host.kong.servers.process import PluginServer, servers_of

needs_node = pytest.mark.skipif(not which("npm"), reason="Kong's PDK for JavaScript is installed with npm")
FILE = """
_format_version: "3.0"
services:
- name: api
  url: http://up.example/base
  plugins: [{name: py_hello, config: %s}%s]
  routes: [{name: api, paths: [/api]}]
"""
pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend():
    return "asyncio"


async def application(scope, receive, send):
    """Answers with what it got."""
    body = b""
    while (message := await receive())["type"] == "http.request":
        body += message["body"]
        if not message.get("more_body"):
            break
    headers = {name.decode(): value.decode("latin-1") for name, value in scope["headers"]}
    said = json.dumps({"path": scope["path"], "headers": headers, "body": body.decode()}).encode()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(said))]})
    await send({"type": "http.response.body", "body": said})


@pytest.fixture
def gateway(tmp_path, variables, servers, monkeypatch):
    """Make a client of a gateway; the servers are those of the session."""

    @asynccontextmanager
    async def make(python="{}", more=""):
        file = tmp_path / "kong.yaml"
        file.write_text(FILE % (python, more))
        monkeypatch.setattr(gateways, "query", lambda _: servers)
        middleware = KongMiddleware(application, file, environment=variables)
        async with httpx2.AsyncClient(transport=httpx2.ASGITransport(middleware), base_url="http://example.com") as client:
            yield client
        await middleware._stop()

    return make


async def test_phases_of_a_plugin_in_python(gateway, caplog):
    caplog.set_level("INFO", "proxywasm_host")
    async with gateway("{message: bonjour}") as client:
        answer = await client.post("/api/x?q=1", content="a body")
        await anyio.sleep(0.1)
    said = answer.json()
    assert (answer.status_code, said["path"], said["body"]) == (200, "/base/x", "a body")
    assert (said["headers"]["x-python"], said["headers"]["x-body"]) == ("bonjour example.com", "a body")
    assert answer.headers["x-python-status"] == "200"
    assert "x-proxywasm-upstream" not in said["headers"]
    assert any("python logs 200" in message for message in caplog.messages)


async def test_an_exit_is_the_answer(gateway):
    async with gateway("{deny: true}") as client:
        for _ in range(3):
            answer = await client.get("/api")
            assert (answer.status_code, answer.text, answer.headers["x-by"]) == (403, "denied by python", "python")


@needs_node
async def test_javascript_runs_behind_python_and_sees_what_it_shares(gateway):
    async with gateway("{message: salut}", ", {name: js_hello}") as client:
        answer = await client.get("/api")
    assert answer.json()["headers"]["x-javascript"] == "bonjour example.com salut"


@needs_node
async def test_an_exit_of_javascript(gateway):
    async with gateway("{}", ", {name: js_hello, config: {deny: true}}") as client:
        answer = await client.get("/api")
        assert (answer.status_code, answer.text, answer.headers["x-by"]) == (401, "denied by javascript", "javascript")
        assert (await client.get("/api")).status_code == 401


async def test_many_first_requests_at_once_share_one_instance(gateway):
    async with gateway("{message: once}") as client:
        answers = []

        async def get(number):
            answer = await client.get(f"/api/{number}")
            assert answer.headers["x-python-instances"] == "1"
            answers.append((number, answer.json()["path"]))

        async with anyio.create_task_group() as group:
            for number in range(20):
                group.start_soon(get, number)
    assert sorted(answers) == [(number, f"/base/{number}") for number in range(20)]


async def test_a_server_that_is_killed_amid_an_event(gateway, servers, caplog):
    python: PluginServer = next(server for server in servers if server.name == "python")
    async with gateway("{stay: 30}") as client:
        async with anyio.create_task_group() as group:
            answers = []

            async def get():
                answers.append(await client.get("/api"))

            group.start_soon(get)
            with anyio.fail_after(20):
                while not any("about to stay" in message for message in caplog.messages):
                    caplog.set_level("INFO", "proxywasm_host")
                    await anyio.sleep(0.02)
                os.kill(python.pid, signal.SIGKILL)
        [answer] = answers
    assert (answer.status_code, answer.json()["message"]) == (500, "An unexpected error occurred")
    async with gateway() as client:
        assert (await client.get("/api")).status_code == 200


async def test_a_configuration_that_its_schema_refuses(gateway):
    with pytest.raises(Exception, match=r"kong.yaml:6: services\[0\].plugins\[0\].config: config.more: unknown field\n.*config.message: expected a string"):
        async with gateway("{message: [1], more: 2}"):
            pass


def test_a_server_that_ends_at_once_is_started_once_a_second(tmp_path, monkeypatch):
    query = {"KONG_PLUGINSERVER_NAMES": "p", "KONG_PLUGINSERVER_P_QUERY_CMD": "echo []", "KONG_PLUGINSERVER_P_START_CMD": "true"}
    [settings] = servers_of(query, str(tmp_path))
    server, waits = PluginServer(settings), []

    def wait(seconds):
        waits.append(seconds)
        if len(waits) == 3:
            server._stopping.set()

    monkeypatch.setattr(process, "time", SimpleNamespace(monotonic=lambda: 5.0))
    monkeypatch.setattr(server._stopping, "wait", wait)
    server._run()
    assert waits == [1.0, 1.0, 1.0]


def test_a_server_is_started_again_although_its_own_programs_go_on(tmp_path, monkeypatch, caplog):
    """They keep its output open."""
    caplog.set_level("INFO")
    monkeypatch.setattr(process, "REST", 0.02)
    monkeypatch.setattr(process, "RESTART", 0.02)
    start = "sh -c 'sleep 5 & echo started'"
    command = {"KONG_PLUGINSERVER_NAMES": "p", "KONG_PLUGINSERVER_P_QUERY_CMD": "echo []", "KONG_PLUGINSERVER_P_START_CMD": start}
    [settings] = servers_of(command, str(tmp_path))
    server = PluginServer(settings)
    server.start()
    until = time.monotonic() + 4
    while caplog.text.count("starting it again") < 2:
        assert time.monotonic() < until
        time.sleep(0.01)
    server.stop()
    assert "started" in caplog.text


def test_who_does_not_run_a_server_does_not_end_it(tmp_path):
    command = {"KONG_PLUGINSERVER_NAMES": "p", "KONG_PLUGINSERVER_P_QUERY_CMD": "echo []", "KONG_PLUGINSERVER_P_START_CMD": "sleep 60"}
    [settings] = servers_of(command, str(tmp_path))
    runs, waits = PluginServer(settings), PluginServer(settings)
    runs.start()
    while runs.pid is None:
        time.sleep(0.01)
    server = runs.pid
    waits.start()
    time.sleep(0.05)
    waits.stop()
    assert (runs.pid, waits.pid) == (server, None)
    runs.stop()
    assert runs.pid is None
