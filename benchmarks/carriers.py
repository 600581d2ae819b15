"""The cost of a filter in each carrier of the Python world: the processor time of one request with and without it.

    python -m benchmarks.carriers             writes docs/benchmarks-carriers.md, in a minute
    python -m benchmarks.carriers --quick     prints the same, as a check that it works

The work is that of `benchmarks.headers`. The timed thread is the one in which the filter runs. For aiohttp's server and
for clients in an event loop, it runs both client and server; for requests and urllib3, the client alone. Client and
server are the same with and without the filter; the two are timed in turn, round by round. mitmproxy is a separate
process, whose processor time is measured.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import AsyncExitStack, ExitStack, contextmanager
from pathlib import Path
from typing import Any

import aiohttp
import httpx2
import requests
import urllib3
from aiohttp import web

from benchmarks.headers import header_filter
from benchmarks.interpreters import ROOT
from benchmarks.machine import description
from proxywasm_host.integrations.aiohttp import Filter, ProxyWasmMiddleware
from proxywasm_host.integrations.aiohttp.client import ProxyWasmClientMiddleware
from proxywasm_host.integrations.httpx2 import AsyncProxyWasmTransport
from proxywasm_host.integrations.requests import ProxyWasmAdapter
from proxywasm_host.integrations.urllib3 import ProxyWasmPoolManager

KINDS = {
    "aiohttp": "aiohttp's server",
    "aiohttp client": "aiohttp's client",
    "httpx2": "httpx2, in an event loop",
    "requests": "requests",
    "urllib3": "urllib3",
    "mitmproxy": "mitmproxy, all of mitmdump",
}
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
MITMDUMP = CACHE / "proxywasm-host/mitmproxy-newest/bin/mitmdump"
"""`make` installs it in a separate environment."""
PATIENCE = 60.0
Once = Callable[[], Awaitable[None]]


def filters() -> list[Filter]:
    """A chain of one filter."""
    return [Filter(header_filter(), "headers")]


async def served(stack: AsyncExitStack, *middlewares: Any) -> str:
    """Start a server with aiohttp, and return its URL."""

    async def answer(request: web.Request) -> web.Response:
        return web.Response(text="Hello.", headers={"server": "x"})

    app = web.Application(middlewares=middlewares)
    app.router.add_get("/", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    stack.push_async_callback(runner.cleanup)
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    return f"http://127.0.0.1:{runner.addresses[0][1]}/"


async def client_of(kind: str, filtered: bool, stack: AsyncExitStack) -> Once:
    """A function that makes one request, with the filter, if any, in the server or the client."""
    if kind == "aiohttp" and filtered:
        middleware = ProxyWasmMiddleware(filters())
        stack.push_async_callback(middleware._stop)
        url = await served(stack, middleware)
    else:
        url = await served(stack)
    if kind.startswith("aiohttp"):
        in_client = [ProxyWasmClientMiddleware(filters())] if filtered and kind == "aiohttp client" else []
        for each in in_client:
            stack.push_async_callback(each.aclose)
        session = await stack.enter_async_context(aiohttp.ClientSession(middlewares=in_client))

        async def by_aiohttp() -> None:
            async with session.get(url) as response:
                await response.read()
                check(response.headers, filtered)

        return by_aiohttp
    plain = httpx2.AsyncHTTPTransport()
    transport = AsyncProxyWasmTransport(plain, filters()) if filtered else plain
    client = await stack.enter_async_context(httpx2.AsyncClient(transport=transport))

    async def by_httpx2() -> None:
        check((await client.get(url)).headers, filtered)

    return by_httpx2


def in_thread(kind: str, filtered: bool, url: str) -> Callable[[], None]:
    """A function that makes one request in this thread."""
    if kind == "urllib3":
        manager: Any = ProxyWasmPoolManager(urllib3.PoolManager(), filters()) if filtered else urllib3.PoolManager()
        return lambda: check(manager.request("GET", url).headers, filtered)
    session = requests.Session()
    if filtered:
        session.mount("http://", ProxyWasmAdapter(requests.adapters.HTTPAdapter(), filters()))
    return lambda: check(session.get(url).headers, filtered)


def check(headers: Any, filtered: bool) -> None:
    """Check that the filter ran, or did not. Raises: RuntimeError."""
    if (headers["server"] == "hello") is not filtered:
        raise RuntimeError(f"server: {headers['server']}")


async def in_event_loop(kind: str, rounds: int, times: int) -> list[tuple[float, float]]:
    """Seconds for one request without and with the filter, in each round."""
    async with AsyncExitStack() as stack:
        sides = [await client_of(kind, filtered, stack) for filtered in (False, True)]

        async def seconds(once: Once) -> float:
            start = time.thread_time()
            for _ in range(times):
                await once()
            return (time.thread_time() - start) / times

        for once in sides:
            await seconds(once)  # filters load, connections are made
        return [(await seconds(sides[0]), await seconds(sides[1])) for _ in range(rounds)]


@contextmanager
def elsewhere() -> Iterator[str]:
    """Start a server in another thread, and yield its URL."""
    loop = asyncio.new_event_loop()
    stack = AsyncExitStack()
    url = loop.run_until_complete(served(stack))
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        yield url
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.run_until_complete(stack.aclose())
        loop.close()


def in_threads(kind: str, rounds: int, times: int) -> list[tuple[float, float]]:
    """As `in_event_loop`, for a library without an event loop."""
    with elsewhere() as url:
        sides = [in_thread(kind, filtered, url) for filtered in (False, True)]

        def seconds(once: Callable[[], None]) -> float:
            start = time.thread_time()
            for _ in range(times):
                once()
            return (time.thread_time() - start) / times

        for each in sides:
            seconds(each)
        return [(seconds(sides[0]), seconds(sides[1])) for _ in range(rounds)]


@contextmanager
def mitmdump(url: str, filtered: bool, folder: Path) -> Iterator[Callable[[int], float]]:
    """Start mitmdump in front of a server; the function sends so many requests, and returns its seconds for one."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    options = ["--mode", f"reverse:{url}", "-p", str(port), "-q", "--set", f"confdir={folder}"]
    if filtered:
        script = ROOT / "proxywasm_host/integrations/mitmproxy/script.py"
        module = folder / "headers.wasm"
        module.write_bytes(header_filter())
        options += ["-s", str(script), "--set", f"proxywasm_filters={module}"]
    environment = os.environ | {"PYTHONPATH": f"{ROOT}:{ROOT / 'engines/wasmtime'}"}
    process = subprocess.Popen([MITMDUMP, "--listen-host", "127.0.0.1", *options], env=environment)
    stat, ticks = Path(f"/proc/{process.pid}/stat"), os.sysconf("SC_CLK_TCK")

    def spent() -> float:
        fields = stat.read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / ticks  # utime and stime

    try:
        until = time.monotonic() + PATIENCE
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                break
            if process.poll() is not None or time.monotonic() > until:
                raise RuntimeError("mitmdump does not start")
            time.sleep(0.05)
        with urllib3.PoolManager() as manager:

            def seconds(times: int) -> float:
                start = spent()
                for _ in range(times):
                    check(manager.request("GET", f"http://127.0.0.1:{port}/").headers, filtered)
                return (spent() - start) / times

            yield seconds
    finally:
        process.terminate()
        process.wait(PATIENCE)


def in_mitmproxy(rounds: int, times: int) -> list[tuple[float, float]]:
    """As `in_event_loop`, for mitmdump."""
    with elsewhere() as url, tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        sides = [stack.enter_context(mitmdump(url, filtered, Path(folder))) for filtered in (False, True)]
        for each in sides:
            each(times)
        return [(sides[0](times), sides[1](times)) for _ in range(rounds)]


def measure(rounds: int, times: int) -> dict[str, list[tuple[float, float]]]:
    """For each carrier, seconds for one request without and with the filter, in each round."""

    def of(kind: str) -> list[tuple[float, float]]:
        if kind == "mitmproxy":
            return in_mitmproxy(rounds, times)
        if kind in ("requests", "urllib3"):
            return in_threads(kind, rounds, times)
        return asyncio.run(in_event_loop(kind, rounds, times))

    return {kind: of(kind) for kind in KINDS}


def document(samples: Mapping[str, list[tuple[float, float]]], machine: Mapping[str, Any]) -> str:
    """The page, as Markdown."""
    lines = [
        "# The cost of a filter in each carrier\n",
        "Written by `python -m benchmarks.carriers`, which describes how it measures. The filter is",
        "`benchmarks/header_filter.wat`: four hostcalls on the headers of the request, three on those of the response.",
        "[benchmarks-servers.md](benchmarks-servers.md) compares the ASGI middleware and `serve` with Envoy.\n",
        "| processor time of one request | without | with the filter | difference |",
        "|---|---:|---:|---:|",
    ]
    for kind, rounds in samples.items():
        without, with_it = (statistics.median(round[side] for round in rounds) for side in (0, 1))
        adds = statistics.median(with_it - without for without, with_it in rounds)
        lines.append(f"| {KINDS[kind]} | {without * 1e6:.0f} µs | {with_it * 1e6:.0f} µs | {adds * 1e6:.0f} µs |")
    where = (
        f"{machine['interpreter']}; {machine['processors']} processors ({machine['processor']}), {machine['kernel']}; "
        f"load {', '.join(map(str, machine['load']))}."
    )
    return "\n".join([*lines, "", where, ""])


def main(arguments: list[str] | None = None) -> None:
    """Measure, and write the report."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true", help="measure for seconds, and print the page")
    quick = parser.parse_args(arguments).quick
    text = document(measure(3, 50) if quick else measure(21, 200), description())
    if quick:
        sys.stdout.write(text)
    else:
        (ROOT / "docs/benchmarks-carriers.md").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
