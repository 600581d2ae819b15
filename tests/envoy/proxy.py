"""A real Envoy in front of a server that tells what it got, with HTTP filters between; and a server of ours beside."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from tests.envoy.rig import API, HTTP_MANAGER, _grpc_cluster, find_envoy

PATIENCE = 60.0


def wait_for(what: Callable[[], Any], seconds: float = PATIENCE) -> Any:
    until = time.monotonic() + seconds
    while not (found := what()):
        assert time.monotonic() < until, "it did not come"
        time.sleep(0.02)
    return found


# Upstream -------------------------------------------------------------------------------------------------------------


class Echo(BaseHTTPRequestHandler):
    """Answers with JSON of what came: ``{"path": …, "headers": …, "body": …}``."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        length = self.headers.get("content-length")
        body = (
            self.rfile.read(int(length)) if length else self._chunks() if "transfer-encoding" in self.headers else b""
        )
        got = {"path": self.path, "headers": dict(self.headers), "body": body.decode("latin-1")}
        answer = json.dumps(got).encode()
        self.send_response(200)
        self.send_header("content-length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    do_POST = do_GET

    def _chunks(self) -> bytes:
        body = b""
        while size := int(self.rfile.readline(), 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return body

    def log_message(self, *_: object) -> None:
        pass


@contextlib.contextmanager
def upstream() -> Iterator[int]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Echo)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


# Envoy ----------------------------------------------------------------------------------------------------------------


@dataclass
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def echo(self) -> dict[str, Any]:
        """What upstream got."""
        return json.loads(self.body)


@dataclass
class Proxy:
    port: int
    admin: int
    process: subprocess.Popen[bytes]
    access_log: Path
    log: Path

    def request(
        self, method: str = "GET", path: str = "/", body: Any = None, headers: Mapping[str, str] | None = None
    ) -> Answer:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)
        try:
            connection.request(method, path, body, dict(headers or {}), encode_chunked=True)
            response = connection.getresponse()
            return Answer(response.status, {k.lower(): v for k, v in response.getheaders()}, response.read())
        finally:
            connection.close()

    def stats(self, pattern: str) -> dict[str, int]:
        connection = http.client.HTTPConnection("127.0.0.1", self.admin, timeout=PATIENCE)
        connection.request("GET", "/stats")
        lines = connection.getresponse().read().decode().splitlines()
        connection.close()
        return {
            name: int(value) for name, _, value in (line.partition(": ") for line in lines) if re.search(pattern, name)
        }


@contextlib.contextmanager
def envoy(
    folder: Path,
    filters: list[dict[str, Any]],
    upstream_port: int,
    grpc: Mapping[str, int] | None = None,
    clusters: list[dict[str, Any]] | None = None,
    log_format: str = "%RESPONSE_CODE% %RESPONSE_CODE_DETAILS%\n",
) -> Iterator[Proxy]:
    """`grpc` are ports of clusters of gRPC servers."""
    folder.mkdir(exist_ok=True)
    file = {"@type": API + "extensions.access_loggers.file.v3.FileAccessLog", "path": str(folder / "access.log")}
    manager = {
        "@type": HTTP_MANAGER,
        "stat_prefix": "ingress",
        "access_log": [
            {
                "name": "file",
                "typed_config": {**file, "log_format": {"text_format_source": {"inline_string": log_format}}},
            }
        ],
        "http_filters": [
            *filters,
            {"name": "router", "typed_config": {"@type": API + "extensions.filters.http.router.v3.Router"}},
        ],
        "route_config": {
            "name": "routes",
            "virtual_hosts": [
                {
                    "name": "all",
                    "domains": ["*"],
                    "routes": [{"match": {"prefix": "/"}, "route": {"cluster": "upstream"}}],
                }
            ],
        },
    }
    address = {"socket_address": {"address": "127.0.0.1", "port_value": upstream_port}}
    config = {
        "admin": {"address": {"socket_address": {"address": "127.0.0.1", "port_value": 0}}},
        "static_resources": {
            "listeners": [
                {
                    "name": "main",
                    "address": {"socket_address": {"address": "127.0.0.1", "port_value": 0}},
                    "filter_chains": [{"filters": [{"name": "http", "typed_config": manager}]}],
                }
            ],
            "clusters": [
                {
                    "name": "upstream",
                    "load_assignment": {
                        "cluster_name": "upstream",
                        "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address}}]}],
                    },
                },
                *(_grpc_cluster(name, port) for name, port in (grpc or {}).items()),
                *(clusters or ()),
            ],
        },
    }
    (folder / "envoy.json").write_text(json.dumps(config))
    with running(folder, folder / "envoy.json") as proxy:
        yield proxy


@contextlib.contextmanager
def running(folder: Path, configuration: Path, levels: str = "wasm:warning") -> Iterator[Proxy]:
    """An Envoy with this configuration, whose ports are 0: the system chooses them.

    `levels` say what is logged.
    """
    command = [str(find_envoy()), "-c", str(configuration), "--admin-address-path", str(folder / "admin")]
    command += ["--concurrency", "1", "--disable-hot-restart", "-l", "warning", "--component-log-level", levels, "--file-flush-interval-msec", "5"]
    with (folder / "envoy.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    try:

        def started() -> Any:
            assert process.poll() is None, (folder / "envoy.log").read_text()
            with contextlib.suppress(OSError, ValueError, KeyError, IndexError):
                admin = int((folder / "admin").read_text().rpartition(":")[2])
                with contextlib.closing(http.client.HTTPConnection("127.0.0.1", admin, timeout=5)) as connection:
                    connection.request("GET", "/listeners?format=json")
                    said = json.loads(connection.getresponse().read())
                return admin, said["listener_statuses"][0]["local_address"]["socket_address"]["port_value"]
            return None

        admin, port = wait_for(started)
        yield Proxy(port, admin, process, folder / "access.log", folder / "envoy.log")
    finally:
        process.terminate()
        process.wait(20)


# proxywasm ext-proc, ext-authz ----------------------------------------------------------------------------------------


@dataclass
class Served:
    process: subprocess.Popen[str]
    lines: list[str] = field(default_factory=list)

    def line(self, pattern: str) -> re.Match[str]:
        """The first line that has it, now or later."""

        def found() -> Any:
            return next((match for line in list(self.lines) if (match := re.search(pattern, line))), None)

        def looked() -> Any:
            match = found()
            assert match or self.process.poll() is None, "".join(self.lines)
            return match

        return wait_for(looked)

    @property
    def port(self) -> int:
        return int(self.line(r"serving grpcs?://[\d.]+:(\d+)")[1])

    @property
    def admin(self) -> int:
        return int(self.line(r"admin http://[\d.]+:(\d+)")[1])

    def get(self, path: str) -> tuple[int, str]:
        connection = http.client.HTTPConnection("127.0.0.1", self.admin, timeout=PATIENCE)
        try:
            connection.request("GET", path)
            response = connection.getresponse()
            return response.status, response.read().decode()
        finally:
            connection.close()

    @property
    def log(self) -> str:
        return "".join(self.lines)


@contextlib.contextmanager
def served(*arguments: object) -> Iterator[Served]:
    """``proxywasm ARGUMENTS``, until the context ends."""
    command = [sys.executable, "-m", "proxywasm_host.cli", *map(str, arguments)]
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env=environment)
    served = Served(process)

    def follow() -> None:
        assert process.stderr is not None
        for line in process.stderr:
            served.lines.append(line)

    thread = threading.Thread(target=follow)
    thread.start()
    try:
        yield served
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        thread.join()
        assert process.stderr is not None
        process.stderr.close()
