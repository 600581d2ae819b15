"""Plugin servers, started once: those of Kong's PDKs for Python and JavaScript, with plugins of ours."""

from __future__ import annotations

import json
import os
import socket
import sys
import threading
from contextlib import contextmanager, suppress
from pathlib import Path
from shutil import which

import pytest

from benchmarks.contenders.plugin_server import pdk
from proxywasm_host.kong.environment import Environment
from proxywasm_host.kong.setup import query

PLUGINS = Path(__file__).parent / "plugins"
PYTHON = "import sys; from kong_pdk.cli import start_server; start_server()"


def python_server(prefix: Path, how: str = "--gevent") -> dict[str, str]:
    command = f'{sys.executable} -c "{PYTHON}" {how} --no-lua-style -d {PLUGINS}/python -p {prefix} --socket-name python.sock'
    return {
        "KONG_PLUGINSERVER_NAMES": "python",
        "KONG_PLUGINSERVER_PYTHON_SOCKET": f"{prefix}/python.sock",
        "KONG_PLUGINSERVER_PYTHON_START_CMD": command,
        "KONG_PLUGINSERVER_PYTHON_QUERY_CMD": f"{command} --dump-all-plugins",
    }


def javascript_server(prefix: Path) -> dict[str, str]:
    command = f"node {pdk()}/bin/kong-js-pluginserver -d {PLUGINS}/javascript -p {prefix} --sock-name js.sock"
    return {
        "KONG_PLUGINSERVER_NAMES": "js",
        "KONG_PLUGINSERVER_JS_SOCKET": f"{prefix}/js.sock",
        "KONG_PLUGINSERVER_JS_START_CMD": command,
        "KONG_PLUGINSERVER_JS_QUERY_CMD": f"{command} --dump-all-plugins",
    }


@pytest.fixture(scope="session")
def variables(tmp_path_factory) -> dict[str, str]:
    """The environment of a gateway with both servers."""
    prefix = tmp_path_factory.mktemp("kong")
    found = python_server(prefix)
    if which("node") and which("npm"):
        found |= {**javascript_server(prefix), "KONG_PLUGINSERVER_NAMES": "python,js"}
    return {"KONG_PREFIX": str(prefix), **found}


@pytest.fixture(scope="session")
def running_servers(variables, servers, tmp_path_factory) -> dict[str, str]:
    """The environment of a gateway that is to use the servers that run."""
    folder = tmp_path_factory.mktemp("queries")
    found = {**variables}
    for server in servers:
        (folder / server.name).write_text(json.dumps(server.plugins))
        found[f"KONG_PLUGINSERVER_{server.name.upper()}_QUERY_CMD"] = f"cat {folder / server.name}"
        del found[f"KONG_PLUGINSERVER_{server.name.upper()}_START_CMD"]
    return found


@pytest.fixture(scope="session")
def servers(variables):
    """Both servers, running."""
    found = query(Environment.read(variables))
    for server in found:
        server.start()
    yield found
    for server in found:
        server.stop()


@contextmanager
def datagrams_answered():
    """The port of somebody who sends one datagram back, in reverse."""
    with socket.socket(type=socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 0))

        def answer():
            data, whom = server.recvfrom(100)
            server.sendto(data[::-1], whom)

        thread = threading.Thread(target=answer)
        thread.start()
        yield server.getsockname()[1]
        thread.join()


def processes_that_name(folder) -> list[bytes]:
    """Command lines of others that run and name a folder."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            command = (process / "cmdline").read_bytes()
            if f"{folder}".encode() in command and int(process.name) != os.getpid():
                found.append(command)
    return found
