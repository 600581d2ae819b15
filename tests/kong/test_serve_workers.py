"""Several processes of ``serve`` with a configuration of Kong: they share limits and one plugin server, which is killed,
as they are; the configuration changes meanwhile, and VMs are replaced."""

from __future__ import annotations

import os
import shutil
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from threading import Event

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
  url: {origin}
  routes:
  - {{name: python, paths: [/python], plugins: [{{name: hello}}, {{name: py_hello, config: {{message: {message}}}}}]}}
  - {{name: limited, paths: [/limited], filter_chains: [{{filters: [{{name: rate-limiting, config: {{day: 3}}}}]}}]}}
"""
OWN = """
kong: kong.yaml
listen: 127.0.0.1:0
admin: 127.0.0.1:0
workers: 2
watch: true
access_log: {format: "off"}
recycle: {requests: 50}
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("gateway")


@pytest.fixture(scope="module")
def write(folder):
    """Write ``kong.yaml``, as a whole."""
    with running() as origin:

        def write(message):
            (folder / "new").write_text(FILE.format(origin=origin.url, message=message))
            (folder / "new").rename(folder / "kong.yaml")

        yield write


@pytest.fixture(scope="module")
def gateway(folder, write):
    write("salut")
    (folder / "serve.yaml").write_text(OWN)
    (folder / "filters").mkdir()
    for file in ("wasm", "meta.json"):
        shutil.copy(FILTERS / f"go/rate_limiting.{file}", folder / f"filters/rate-limiting.{file}")
    environment = {**os.environ, **python_server(folder, ""), "KONG_WASM_FILTERS_PATH": f"{folder}/filters", "KONG_LUA_PACKAGE_PATH": f"{PLUGINS}/lua/?.lua", "KONG_NGINX_WASM_MAIN_SHM_KV": "64k"}
    served = Served(folder, ["--config", str(folder / "serve.yaml")], environment)
    yield served
    served.stop(signal.SIGTERM)
    assert servers_of(folder) == {}


def servers_of(folder) -> dict[int, int]:
    """Processes of the plugin server, with their parents."""
    found = {}
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if f"{folder}/python.sock".encode() in (process / "environ").read_bytes() and b"--socket-name" in (process / "cmdline").read_bytes():
                found[int(process.name)] = int((process / "stat").read_text().rpartition(")")[2].split()[1])
    return found


def eventually(look, seconds=60):
    until = time.monotonic() + seconds
    while not (found := look()):
        assert time.monotonic() < until
        time.sleep(0.05)
    return found


def at_origin(answer):
    return {name.lower(): value for name, value in answer.json()["headers"]}


def test_processes_share_a_limit(gateway):
    answers = [gateway.get("/limited").status_code for _ in range(30)]
    assert (answers.count(200), answers.count(429)) == (3, 27)


def test_processes_share_a_plugin_server(gateway, folder):
    assert {at_origin(gateway.get("/python"))["x-python"].split()[0] for _ in range(20)} == {"salut"}
    assert len(servers_of(folder)) == 1


def test_what_runs_meanwhile_loses_no_request(gateway, folder, write):
    """The configuration changes, and VMs are replaced, again and again."""
    over, seen = Event(), set()

    def ask():
        with httpx2.Client(timeout=60) as client:
            while not over.is_set():
                answer = client.get(gateway.url + "/python")
                seen.add((answer.status_code, at_origin(answer)["x-python"].split()[0]))
                seen.add((client.get(gateway.url + "/limited").status_code, ""))

    with ThreadPoolExecutor(2) as pool:
        asking = [pool.submit(ask) for _ in range(2)]
        try:
            eventually(lambda: (200, "salut") in seen)
            write("bonjour")
            eventually(lambda: (200, "bonjour") in seen)
            gateway.wait_for("the VM of rate-limiting .*: filters have new VMs")
        finally:
            over.set()
        for each in asking:
            each.result()
    assert seen == {(200, "salut"), (200, "bonjour"), (429, "")}


def test_a_server_that_is_killed_is_started_again(gateway, folder):
    [server] = servers_of(folder)
    os.kill(server, signal.SIGKILL)
    [another] = eventually(lambda: servers_of(folder).keys() - {server})
    eventually(lambda: gateway.get("/python").status_code == 200)
    assert another != server


def test_a_process_that_is_killed_leaves_no_second_server(gateway, folder):
    [(server, owner)] = servers_of(folder).items()
    os.kill(owner, signal.SIGKILL)
    eventually(lambda: len(found := servers_of(folder)) == 1 and server not in found)
    eventually(lambda: gateway.get("/python").status_code == 200)
