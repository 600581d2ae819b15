"""Servers that are killed, slow and started again, and routes that are exchanged, while requests come in: what is lost.

Each server is a process of its own, so that a killed one leaves its connections as the system does.
"""

from __future__ import annotations

import json
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.serve.conftest import HEADERS
from tests.serve.ports import closed_port

SERVER = """
import asyncio, sys
from tests.serve.origin import Origin

async def main():
    origin, delay = Origin(), float(sys.argv[2])
    async def answer(request, reader, writer):
        await request.read(reader)
        await asyncio.sleep(delay)
        writer.write(b"HTTP/1.1 200 OK\\r\\ncontent-length: 2\\r\\n\\r\\nok")
        return True
    origin.answers["/"] = answer
    async with await asyncio.start_server(origin.serve, "127.0.0.1", int(sys.argv[1])) as server:
        await server.serve_forever()

asyncio.run(main())
"""


class Server:
    def __init__(self, port: int = 0, delay: float = 0) -> None:
        self.port = port or closed_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._process = subprocess.Popen([sys.executable, "-c", SERVER, str(self.port), str(delay)])
        until = time.monotonic() + 20
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port), 1).close()
            except OSError:
                assert time.monotonic() < until, "it never listened"
                time.sleep(0.02)
            else:
                return

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()


@pytest.fixture
def start() -> Iterator[Callable[..., Server]]:
    """Start a server: ``start(delay=0.1)``, ``start(port)``."""
    started: list[Server] = []

    def start(port: int = 0, delay: float = 0) -> Server:
        started.append(Server(port, delay))
        return started[-1]

    yield start
    for server in started:
        server.kill()


class Load:
    """Requests over 8 connections, so many in all; `codes` are those of the responses."""

    def __init__(self, url: str, requests: int) -> None:
        command = ["h2load", "--h1", "-n", str(requests), "-c", "8", url]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)

    def result(self) -> tuple[int, dict[str, int]]:
        """Requests without a response, and responses by kind of status."""
        told, _ = self._process.communicate(timeout=100)
        failed = re.search(r"(\d+) failed, (\d+) errored, (\d+) timeout", told)
        codes = re.search(r"status codes: (\d+) 2xx, (\d+) 3xx, (\d+) 4xx, (\d+) 5xx", told)
        assert failed is not None and codes is not None, told
        return sum(map(int, failed.groups()[1:])), dict(
            zip(("2xx", "3xx", "4xx", "5xx"), map(int, codes.groups()), strict=True)
        )


def requests_to(served, server: Server) -> float:
    return served.metrics().get(
        f'proxywasm_upstream_requests_total{{server="127.0.0.1:{server.port}",upstream="all"}}', 0
    )


def grows(served, server: Server, by: int) -> None:
    """Wait until a server has got so many requests more."""
    before, until = requests_to(served, server), time.monotonic() + 60
    while requests_to(served, server) < before + by:
        assert time.monotonic() < until
        time.sleep(0.02)


def test_a_server_is_killed_and_comes_back_under_load(serve, start):
    """Beside one that is slow. Nothing is lost: what was under way is sent to another, and then none comes there."""
    steady, victim, slow = start(delay=0.005), start(delay=0.005), start(delay=0.04)
    upstream = {
        "servers": [steady.url, victim.url, slow.url],
        "balance": "least_requests",
        "retry": {"retry_on": ["connect-failure", "reset"], "num_retries": 3, "base_interval": 0.001},
        "outlier_detection": {"consecutive_5xx": 3, "base_ejection_time": 0.3},
    }
    settings = {"upstreams": {"all": upstream}, "routes": [{"upstream": "all"}], "filters": [HEADERS]}
    served = serve(settings=settings, upstream=None, access_log="off", log_level="error")
    load = Load(served.url, 5000)
    grows(served, victim, 100)
    victim.kill()
    ejections = f'proxywasm_upstream_ejections_total{{server="127.0.0.1:{victim.port}",upstream="all"}}'
    until = time.monotonic() + 60
    while not served.metrics()[ejections]:
        assert time.monotonic() < until
        time.sleep(0.02)
    again = start(victim.port, delay=0.005)
    grows(served, again, 100)
    assert load.result() == (0, {"2xx": 5000, "3xx": 0, "4xx": 0, "5xx": 0})
    assert requests_to(served, slow) < requests_to(served, steady)
    assert served.metrics()['proxywasm_upstream_retries_total{upstream="all"}'] > 0


def test_without_retries_what_was_there_is_lost_and_no_more(serve, start):
    steady, victim = start(delay=0.005), start(delay=0.005)
    outliers = {"consecutive_5xx": 1, "base_ejection_time": 100}
    upstream = {"servers": [steady.url, victim.url], "outlier_detection": outliers}
    settings = {"upstreams": {"all": upstream}, "routes": [{"upstream": "all"}]}
    served = serve(settings=settings, upstream=None, access_log="off", log_level="error")
    load = Load(served.url, 2000)
    grows(served, victim, 100)
    victim.kill()
    unanswered, codes = load.result()
    assert unanswered == 0
    assert codes["2xx"] + codes["5xx"] == 2000
    assert codes["5xx"] <= 8, "those of eight connections that were under way"


def test_routes_and_upstreams_are_exchanged_under_load(serve, start):
    old, new = start(delay=0.005), start(delay=0.005)
    slow = start(delay=1.5)

    def settings(to: Server, **routes: object) -> dict[str, object]:
        upstreams = {"all": {"servers": [to.url]}, "slow": slow.url}
        return {
            "upstreams": upstreams,
            "routes": [
                {"path": "/", "headers": {"x-slow": "1"}, "upstream": "slow"},
                *routes.get("more", []),
                {"upstream": "all"},
            ],
        }

    served = serve(settings=settings(old), upstream=None, watch=True, access_log="off")
    file = Path(served.errors).parent / "serve.yaml"
    with ThreadPoolExecutor(1) as pool:
        under_way = pool.submit(served.get, "/", headers={"x-slow": "1"})
        load = Load(served.url, 3000)
        grows(served, old, 100)
        file.write_text(
            json.dumps(settings(new, more=[{"name": "added", "path": "/gone", "cluster_header": "x-none"}]))
        )
        grows(served, new, 100)
        assert served.get("/gone").status_code == 503
        were = requests_to(served, old)
        assert load.result() == (0, {"2xx": 3000, "3xx": 0, "4xx": 0, "5xx": 0})
        assert under_way.result().text == "ok"
    assert requests_to(served, old) - were <= 8, "those that had begun"
    assert served.stop(signal.SIGTERM) == 0
