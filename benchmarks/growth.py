"""How the cost of `proxywasm serve` grows with filters, headers, threads, and slow streams.

    python -m benchmarks.growth             writes a section of docs/benchmarks-servers.md, in two minutes
    python -m benchmarks.growth --quick     prints the same after one round of a second each

Slow streams are requests whose client sends one chunk of the body each second, which upstream echoes; all are open at
once. Their memory is the growth of the process while all are open.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import os
import resource
import statistics
import tempfile
import urllib.parse
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from benchmarks.contenders.envoy import PATIENCE
from benchmarks.headers import header_filter
from benchmarks.processor import processor_seconds
from benchmarks.servers import (
    CONNECTIONS,
    DOCUMENT,
    MANY,
    PROXIES,
    SERVERS,
    Server,
    answering,
    inserted,
    of_each_kind,
    rate,
    resident,
    used,
)

FILTERS = (1, 5, 10, 20)
HEADERS = (5, 25, 50, 95)
THREADS = (1, 2)
STREAMS = 2000
OPENED = 500
"""Streams to open in each second."""
CHUNKS = 4
CHUNK = b"400\r\n" + b"x" * 1024 + b"\r\n"
END = b"0\r\n\r\n"


@dataclass(frozen=True)
class Slow:
    """A server with slow streams: bytes of memory for each open stream, and seconds of processor time for each echoed
    chunk."""

    memory: float
    processor: float


@dataclass(frozen=True)
class Growth:
    """Seconds of processor time for a request in `serve`, by number of filters, and by number of headers; requests per
    second with processor time, by number of threads; slow streams, by server. The last three have one filter."""

    filters: Mapping[int, float]
    headers: Mapping[int, float]
    threads: Mapping[int, tuple[float, float]]
    slow: Mapping[str, Slow]


# -- Measuring ---------------------------------------------------------------------------------------------------------


def measure(rounds: int, seconds: int, streams: int = STREAMS) -> Growth:
    """Measure everything. Raises: RuntimeError, if an answer was wrong or a stream was reset."""
    with tempfile.TemporaryDirectory(prefix="proxywasm-") as name, ExitStack() as stack:
        folder = Path(name)
        module = folder / "header_filter.wasm"
        module.write_bytes(header_filter())
        upstream = stack.enter_context(answering(folder / "upstream"))
        serve = {
            count: of_each_kind(stack, folder / f"filters{count}", [module] * count, upstream, ["serve"])["serve"]
            for count in FILTERS
        }
        threads = {
            count: of_each_kind(stack, folder / f"threads{count}", [module], upstream, ["serve"], {"threads": count})[
                "serve"
            ]
            for count in THREADS
        }
        scripts = {count: _script(folder / f"headers{count}.lua", count) for count in HEADERS}
        filters: dict[int, list[float]] = {count: [] for count in FILTERS}
        headers: dict[int, list[float]] = {count: [] for count in HEADERS}
        several: dict[int, list[tuple[float, float]]] = {count: [] for count in THREADS}
        for number in range(rounds + 1):
            for count, server in serve.items():
                filters[count].append(used(server, seconds, CONNECTIONS)[1])
            for count, script in scripts.items():
                headers[count].append(used(serve[1], seconds, CONNECTIONS, script)[1])
            for count, server in threads.items():
                told, processor = used(server, seconds, MANY)
                several[count].append((rate(told), processor))
            if number == 0 and rounds > 1:  # to warm up
                for samples in (filters, headers, several):
                    for of_one in samples.values():
                        of_one.clear()
        slow = asyncio.run(_slow_of_each(stack, folder, module, streams))
    middle = statistics.median
    return Growth(
        {count: middle(all_) for count, all_ in filters.items()},
        {count: middle(all_) for count, all_ in headers.items()},
        {count: (middle(one for one, _ in all_), middle(one for _, one in all_)) for count, all_ in several.items()},
        slow,
    )


def _script(path: Path, headers: int) -> Path:
    """Write a script that makes wrk send so many headers, with Host among them."""
    lines = [f'wrk.headers["x-header-{number}"] = "value-{number}"' for number in range(headers - 1)]
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


async def _slow_of_each(stack: ExitStack, folder: Path, module: Path, streams: int) -> dict[str, Slow]:
    """Measure slow streams through Envoy, then through `serve`."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    try:
        echo = await asyncio.start_server(_echo, "127.0.0.1", 0, backlog=streams)
        async with echo:
            port = echo.sockets[0].getsockname()[1]
            limits = {"max_connections": 2 * streams, "max_requests": 2 * streams}
            servers = await asyncio.to_thread(of_each_kind, stack, folder / "slow", [module], port, PROXIES, {}, limits)
            return {kind: await _slow(server, streams) for kind, server in servers.items()}
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


async def _echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer as an upstream that echoes each chunk as it arrives."""
    try:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\nconnection: close\r\n\r\n")
        while (chunk := await reader.readuntil(b"\r\n")) != b"0\r\n":
            writer.write(chunk + await reader.readexactly(int(chunk, 16) + 2))
        writer.write(END)
        await writer.drain()
    finally:
        writer.close()


async def _slow(server: Server, streams: int) -> Slow:
    """Open all streams, send a chunk on each every second, and end them."""
    before, began = resident(server.process), processor_seconds(server.process)
    where = urllib.parse.urlsplit(server.url)

    async def begin(number: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        await asyncio.sleep(number / OPENED)
        reader, writer = await asyncio.open_connection(where.hostname, where.port)
        writer.write(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n" + CHUNK)
        head = await reader.readuntil(b"\r\n\r\n")
        if not head.startswith(b"HTTP/1.1 200"):
            raise RuntimeError(f"{server.url} did not answer: {head!r}")
        await _part(reader)
        return reader, writer

    open_ = await asyncio.wait_for(asyncio.gather(*map(begin, range(streams))), PATIENCE + streams / OPENED)
    for _ in range(1, CHUNKS):
        await asyncio.sleep(1)
        for _, writer in open_:
            writer.write(CHUNK)
        await asyncio.wait_for(asyncio.gather(*(_part(reader) for reader, _ in open_)), PATIENCE)
    memory = resident(server.process) - before
    for reader, writer in open_:
        writer.write(END)
        if await asyncio.wait_for(reader.readuntil(END), PATIENCE) != END:
            raise RuntimeError(f"{server.url} broke a stream off")
        writer.close()
    processor = await asyncio.to_thread(processor_seconds, server.process) - began
    return Slow(memory / streams, processor / streams / CHUNKS)


async def _part(reader: asyncio.StreamReader) -> None:
    """Read the bytes of one chunk of a response, which the proxy may split differently."""
    left = 1024
    while left > 0:
        size = int(await reader.readuntil(b"\r\n"), 16)
        if not size:
            raise RuntimeError("a stream has ended early")
        await reader.readexactly(size + 2)
        left -= size


# -- The report --------------------------------------------------------------------------------------------------------


def steps(times: Mapping[int, float]) -> list[float]:
    """The seconds that each further one adds, from each count to the next."""
    counts = sorted(times)
    return [(times[more] - times[less]) / (more - less) for less, more in itertools.pairwise(counts)]


def section(growth: Growth, load: float) -> Iterator[str]:
    """The results, as Markdown."""
    yield "## How `serve` grows"
    yield ""
    yield "Written by `python -m benchmarks.growth`, which describes how it measures."
    yield f"The machine had another load of {load:.1f}."
    yield ""
    yield f"Processor time of a request under load over {CONNECTIONS} connections, and the increase for each one more:"
    for what, times in (("filters", growth.filters), ("headers, with one filter", growth.headers)):
        yield ""
        yield f"| {what} | {' | '.join(map(str, times))} |"
        yield f"|---|{'---:|' * len(times)}"
        yield f"| processor time | {' | '.join(f'{one * 1e6:.1f} µs' for one in times.values())} |"
        yield f"| each further one | | {' | '.join(f'{one * 1e6:.2f} µs' for one in steps(times))} |"
    yield ""
    yield f"Threads of one process with one filter and {MANY} connections; wrk and upstream share its processors:"
    yield ""
    yield "| threads | requests/s | processor time of a request |"
    yield "|---:|---:|---:|"
    for count, (requests, processor) in growth.threads.items():
        yield f"| {count} | {requests:,.0f} | {processor * 1e6:.1f} µs |"
    yield ""
    told = (
        f"{SERVERS[kind]} {one.memory / 1e3:.1f} kB a stream, {one.processor * 1e6:.0f} µs a chunk"
        for kind, one in growth.slow.items()
    )
    what = "slow streams at once through one filter, each with an echoed chunk of 1 KiB a second"
    yield f"{STREAMS:,} {what}: {'; '.join(told)}."


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="print the results of one round of a second each")
    options = parser.parse_args()
    load = os.getloadavg()[1]
    lines = list(section(measure(1 if options.quick else 5, 1), load))
    print("\n".join(lines))
    if not options.quick:
        DOCUMENT.write_text(inserted(DOCUMENT.read_text(encoding="utf-8"), lines), encoding="utf-8")


if __name__ == "__main__":
    main()
