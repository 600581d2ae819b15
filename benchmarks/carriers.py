"""What a filter adds in each carrier of the Python world: processor time of one request, with and without it.

    python -m benchmarks.carriers             docs/benchmarks-carriers.md, in a minute
    python -m benchmarks.carriers --quick     the same on the screen, to see that it works

The work is that of `benchmarks.headers`. What is timed is the thread in which the filter runs: of a client in an event
loop and of aiohttp's server that is the one in which both are, of requests and urllib3 that of the client alone. The
client and the server are the same with the filter and without; the two are timed in turn, round by round.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
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
}
Once = Callable[[], Awaitable[None]]


def filters() -> list[Filter]:
    """A chain of one."""
    return [Filter(header_filter(), "headers")]


async def served(stack: AsyncExitStack, *middlewares: Any) -> str:
    """The URL of a server of aiohttp's."""

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
    """A function that makes one request; a filter is in the server or in the client."""
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
    """Whether the filter was there."""
    if (headers["server"] == "hello") is not filtered:
        raise RuntimeError(f"server: {headers['server']}")


async def in_event_loop(kind: str, rounds: int, times: int) -> list[tuple[float, float]]:
    """Seconds of one request without and with the filter, in each round."""
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


def in_threads(kind: str, rounds: int, times: int) -> list[tuple[float, float]]:
    """The same of a library for threads; the server is in another."""
    loop = asyncio.new_event_loop()
    stack = AsyncExitStack()
    url = loop.run_until_complete(served(stack))
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        sides = [in_thread(kind, filtered, url) for filtered in (False, True)]

        def seconds(once: Callable[[], None]) -> float:
            start = time.thread_time()
            for _ in range(times):
                once()
            return (time.thread_time() - start) / times

        for each in sides:
            seconds(each)
        return [(seconds(sides[0]), seconds(sides[1])) for _ in range(rounds)]
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.run_until_complete(stack.aclose())
        loop.close()


def measure(rounds: int, times: int) -> dict[str, list[tuple[float, float]]]:
    """Of each carrier: seconds of one request without and with the filter, in each round."""
    return {
        kind: in_threads(kind, rounds, times)
        if kind in ("requests", "urllib3")
        else asyncio.run(in_event_loop(kind, rounds, times))
        for kind in KINDS
    }


def document(samples: Mapping[str, list[tuple[float, float]]], machine: Mapping[str, Any]) -> str:
    """The report."""
    lines = [
        "# What a filter adds in each carrier\n",
        "Written by `python -m benchmarks.carriers`, which says how it measures. The filter is",
        "`benchmarks/header_filter.wat`: four hostcalls on the headers of the request, three on those of the response.",
        "[benchmarks-servers.md](benchmarks-servers.md) has the ASGI middleware and `serve` beside Envoy.\n",
        "| processor time of one request | without | with the filter | it adds |",
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
    parser.add_argument("--quick", action="store_true", help="seconds instead of minutes, and on the screen")
    quick = parser.parse_args(arguments).quick
    text = document(measure(3, 50) if quick else measure(21, 200), description())
    if quick:
        sys.stdout.write(text)
    else:
        (ROOT / "docs/benchmarks-carriers.md").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
