"""``proxywasm serve`` with plugins in Lua alone: what they wait for, over real sockets; and files that change meanwhile."""

from __future__ import annotations

import os
import shutil
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from threading import Event

import httpx2
import pytest

from tests.kong.conftest import PLUGINS
from tests.serve.conftest import Served
from tests.serve.origin import running

FILE = """
_format_version: "3.0"
services:
- name: api
  url: {origin}
  routes:
  - {{name: hello, paths: [/hello], plugins: [{{name: hello, config: {{word: {word}}}}}]}}
  - {{name: calls, paths: [/calls], plugins: [{{name: calls, config: {{url: '{origin}', host: 127.0.0.1, port: {port}, file: {file}}}}}]}}
  - {{name: secure, paths: [/secure], protocols: [https], https_redirect_status_code: 302}}
"""


@pytest.fixture(scope="module")
def origin():
    with running() as origin:
        yield origin


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("gateway")


@pytest.fixture(scope="module")
def write(folder, origin):
    """Write ``kong.yaml``, as a whole."""

    def write(word):
        text = FILE.format(origin=origin.url, port=origin.port, word=word, file=folder / "writable/requests.log")
        (folder / "new").write_text(text)
        (folder / "new").rename(folder / "kong.yaml")

    return write


@pytest.fixture(scope="module")
def gateway(folder, write):
    """A gateway of two threads that watches its files."""
    shutil.copytree(PLUGINS / "lua", folder / "plugins")
    (folder / "writable").mkdir()
    write("moin")
    environment = {**os.environ, "KONG_LUA_PACKAGE_PATH": f"{folder}/plugins/?.lua", "KONG_LUA_WRITABLE": str(folder / "writable")}
    served = Served(folder, ["--config", str(folder / "kong.yaml"), "--listen", "127.0.0.1:0", "--threads", "2", "--watch"], environment)
    yield served
    served.stop(signal.SIGTERM)


def at_origin(answer):
    return {name.lower(): value for name, value in answer.json()["headers"]}


def test_what_a_plugin_waits_for(gateway, origin):
    came = at_origin(gateway.get("/calls"))
    assert came["x-slept"] == "true"
    assert came["x-http"] == "200"
    assert came["x-by-hand"] == "HTTP/1.1 200 OK"
    assert came["x-refused"] == "connection refused"
    [asked] = [request for request in origin.requests if request.target == "/asked"]
    assert (asked.method, asked["x-asks"], asked.body) == ("POST", "lua", b"from lua")
    assert [request.method for request in origin.requests if request.target == "/by/hand"] == ["GET"]


def test_a_timer_runs_when_its_request_has_ended_and_a_file_is_added_to(gateway, origin, folder):
    gateway.get("/calls")
    until = time.monotonic() + 60
    while not any(request.target == "/told" for request in origin.requests):
        assert time.monotonic() < until
        time.sleep(0.02)
    assert (folder / "writable/requests.log").read_text().startswith("GET\n")


def test_a_redirect_to_https(gateway):
    answer = gateway.get("/secure/x?q=1", headers={"host": "example.com"})
    assert (answer.status_code, answer.headers["location"]) == (302, "https://example.com/secure/x?q=1")


def test_changes_of_the_file_and_of_a_plugin_lose_no_request(gateway, folder, write):
    over, seen = Event(), set()

    def ask():
        with httpx2.Client(timeout=60) as client:
            while not over.is_set():
                answer = client.get(gateway.url + "/hello")
                seen.add((answer.status_code, at_origin(answer)["x-lua"]))

    def wait_for(word):
        until = time.monotonic() + 60
        while (200, word) not in seen:
            assert time.monotonic() < until, (seen, gateway.log)
            time.sleep(0.02)

    with ThreadPoolExecutor(2) as pool:
        asking = [pool.submit(ask) for _ in range(2)]
        try:
            wait_for("moin hello")
            write("hallo")
            wait_for("hallo hello")
            handler = folder / "plugins/hello/handler.lua"
            handler.write_text(handler.read_text().replace('conf.word .. " "', 'conf.word .. "!"'))
            wait_for("hallo!hello")
            handler.write_text("this is no Lua")
            gateway.wait_for("'hello' cannot be loaded")
            seen.clear()
            wait_for("hallo!hello")
        finally:
            over.set()
        for each in asking:
            each.result()
    assert {status for status, _ in seen} == {200}
