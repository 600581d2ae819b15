"""Envoy doing the work with the same filter, its Lua filter, or its header mutation, in processor time.

One process with one worker has a listener for each of these, and answers itself. The cost of a filter is the time of
requests to its listener, less that of as many requests to the one without filters.
"""

from __future__ import annotations

import json
import socket
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any

from benchmarks.headers import CHANGED_RESPONSE, HERE, REQUEST, RESPONSE, HeaderList, header_filter, packed
from benchmarks.processor import processor_seconds
from tests.envoy.rig import API, Filter, _listener, _wasm, find_envoy

FURTHER = 4  # filters after the first, for the cost of a further one
PATIENCE = 20.0  # seconds for Envoy to listen, or to answer
SEEN = b"x-seen"  # response header with the request's x-wasm after the filters

LUA = """
function envoy_on_request(handle)
  local headers = handle:headers()
  headers:get(":path")
  headers:get("user-agent")
  headers:add("x-wasm", "hello")
  headers:remove("x-remove-me")
end

function envoy_on_response(handle)
  local headers = handle:headers()
  headers:get("server")
  headers:add("x-wasm", "hello")
  headers:replace("server", "hello")
end
"""


class Listener:
    """A listener of a running Envoy, and a connection to it."""

    def __init__(self, process: int, port: int) -> None:
        self.process = process
        self.connection = socket.create_connection(("127.0.0.1", port), PATIENCE)
        fields = [field for field in REQUEST if not field[0].startswith(b":")]
        lines = [b"GET / HTTP/1.1", b"host: localhost", *(b": ".join(field) for field in fields), b"", b""]
        self.request = b"\r\n".join(lines)
        self.connection.sendall(self.request)
        self.response = self.connection.recv(1 << 16)  # each has this size

    def close(self) -> None:
        self.connection.close()

    def _exchange(self) -> None:
        self.connection.sendall(self.request)
        missing = len(self.response)
        while missing:
            data = self.connection.recv(missing)
            if not data:
                raise RuntimeError("Envoy has closed the connection")
            missing -= len(data)

    def seconds(self, times: int) -> float:
        """Seconds of Envoy's processor time for `times` requests in sequence."""
        before = processor_seconds(self.process)
        for _ in range(times):
            self._exchange()
        return processor_seconds(self.process) - before

    def result(self) -> tuple[HeaderList, HeaderList]:
        """The headers of the request that the response reports, and those of the response without Envoy's own."""
        self._exchange()
        status, *lines = self.response.partition(b"\r\n\r\n")[0].split(b"\r\n")
        headers = [(name, value) for name, _, value in (line.partition(b": ") for line in lines)]
        request = [*REQUEST, *((b"x-wasm", value) for name, value in headers if name == SEEN)]
        known = {name for name, _ in CHANGED_RESPONSE}
        return request, [(b":status", status.split()[1]), *(field for field in headers if field[0] in known)]


@contextmanager
def envoy() -> Iterator[dict[str, Listener]]:
    """Start Envoy; its listeners by filter: ``none``, ``wasm``, ``chain``, ``python``, ``lua``, ``native``."""
    with tempfile.TemporaryDirectory(prefix="proxywasm-") as name:
        folder = Path(name)
        config, admin = folder / "envoy.json", folder / "admin"
        module = folder / "header_filter.wasm"
        module.write_bytes(header_filter())
        in_python = folder / "in_python.wasm"
        in_python.write_bytes(packed(HERE / "header_filter.py"))
        chains = _chains(module, in_python)
        config.write_text(json.dumps(_bootstrap(chains)), encoding="utf-8")
        options = ["--concurrency", "1", "--disable-hot-restart", "--log-level", "error", "--admin-address-path", admin]
        with open(folder / "log", "wb") as log:
            process = subprocess.Popen(
                [find_envoy(), "-c", config, *options], stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        try:
            ports = _ports(process, admin, len(chains), folder / "log")
            with ExitStack() as stack:
                yield {
                    chain: stack.enter_context(closing(Listener(process.pid, port))) for chain, port in ports.items()
                }
        finally:
            process.terminate()
            process.wait(10)


def _chains(module: Path, in_python: Path) -> dict[str, list[dict[str, Any]]]:
    wasm = [_wasm(number, Filter(module), f"vm{number}") for number in range(FURTHER + 1)]
    lua = {"@type": API + "extensions.filters.http.lua.v3.Lua", "default_source_code": {"inline_string": LUA}}
    add = {"append": {"header": {"key": "x-wasm", "value": "hello"}, "append_action": "APPEND_IF_EXISTS_OR_ADD"}}
    put = {"append": {"header": {"key": "server", "value": "hello"}, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"}}
    mutations = {"request_mutations": [add, {"remove": "x-remove-me"}], "response_mutations": [add, put]}
    native = {"@type": API + "extensions.filters.http.header_mutation.v3.HeaderMutation", "mutations": mutations}
    return {
        "none": [],
        "wasm": wasm[:1],
        "chain": wasm,
        "python": [_wasm(0, Filter(in_python), "python")],
        "lua": [{"name": "lua", "typed_config": lua}],
        "native": [{"name": "native", "typed_config": native}],
    }


def _bootstrap(chains: Mapping[str, Sequence[dict[str, Any]]]) -> dict[str, Any]:
    """A configuration with a listener for each chain, which answers with the headers of `RESPONSE`."""
    response = {name.decode(): value.decode() for name, value in RESPONSE if not name.startswith(b":")}
    response[SEEN.decode()] = "%REQ(x-wasm)%"
    route = {
        "direct_response": {"status": 200, "body": {"inline_string": "."}},
        "response_headers_to_add": [
            {"header": {"key": key, "value": value}, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"}
            for key, value in response.items()
        ],
    }
    listeners = [_listener(name, filters, route, None) for name, filters in chains.items()]
    for listener in listeners:
        del listener["@type"]
    return {
        "admin": {"address": {"socket_address": {"address": "127.0.0.1", "port_value": 0}}},
        "static_resources": {"listeners": listeners},
    }


def _ports(process: subprocess.Popen[bytes], admin: Path, listeners: int, log: Path) -> dict[str, int]:
    """The ports that the system chose for the listeners, once all listen. Raises: RuntimeError, if they do not."""
    until = time.monotonic() + PATIENCE
    while process.poll() is None and time.monotonic() < until:
        if admin.exists() and (address := admin.read_text(encoding="ascii")):
            with urllib.request.urlopen(f"http://{address}/listeners?format=json") as answer:
                found = json.load(answer).get("listener_statuses", [])
            if len(found) == listeners:
                return {one["name"]: one["local_address"]["socket_address"]["port_value"] for one in found}
        time.sleep(0.02)
    raise RuntimeError(f"Envoy does not start: {log.read_text(encoding='utf-8', errors='replace')[-2000:]}")
