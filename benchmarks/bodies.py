"""Bodies like those of language models: long prompts, and answers streamed as thousands of events.

    python -m benchmarks.bodies             writes docs/benchmarks-bodies.md, in some minutes
    python -m benchmarks.bodies --quick     prints the same after one round

The servers are `proxywasm serve` and the ASGI middleware, each without a filter, with one that reads no body
(``rust/headers``), and with one that reads all bodies (``rust/body``: it buffers a whole prompt and replaces it, and
inspects each event). They take turns, round by round.

* Throughput is that of a whole prompt, until its answer arrives, and of all events of an answer.
* The first event is timed from the request until the whole event has arrived.
* Memory is the peak of the process during a request (``VmHWM``, reset by ``clear_refs``), less its memory before and
  the growth of its guests. A guest that reads a whole prompt has it once or more in its own memory, which
  `Limits.memory` limits.
"""

from __future__ import annotations

import argparse
import json
import re
import socket
import statistics
import sys
import tempfile
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.contenders.envoy import PATIENCE
from benchmarks.interpreters import ROOT
from benchmarks.language_model import EVENT
from benchmarks.machine import description
from benchmarks.servers import address_of, started
from tests.support import FILTERS

MIB = 1 << 20
PROMPTS = (1 * MIB, 10 * MIB, 50 * MIB)
EVENT_COUNT = 10_000
LIMIT = 64 * MIB
"""Bytes of a body that filters may hold."""
ROOM = 20 * MIB
"""Bytes of memory that a process may need in addition to the bodies that filters hold."""
START = 120.0
"""Seconds for a server to start, on a busy machine."""
LATER = 0.005
"""Seconds by which a filter may delay the first event."""
KINDS = ("serve", "middleware")
WHICH = {"none": "none", "headers": "reads none", "body": "reads all"}


@dataclass(frozen=True)
class Server:
    """A running server with its kind and filter. `guests` is the URL that reports the memory of its guests."""

    kind: str
    filter: str
    process: int
    url: str
    guests: str

    def guest_bytes(self) -> int:
        """Bytes of memory of its guests."""
        if self.filter == "none":
            return 0
        with urllib.request.urlopen(self.guests, timeout=PATIENCE) as answer:
            told = answer.read().decode()
        if self.kind == "middleware":
            return int(told)
        return sum(int(float(number)) for number in re.findall(r"(?m)^proxywasm_vm_memory_bytes\{.*\} (\S+)$", told))


@dataclass(frozen=True)
class Sample:
    """A round of a server: seconds for prompts by size, the first event and all events; bytes of memory by body."""

    prompts: dict[int, float]
    first: float
    events: float
    memory: dict[str, int]


@contextmanager
def servers() -> Iterator[list[Server]]:
    """Start each kind of server with each filter."""
    with tempfile.TemporaryDirectory(prefix="proxywasm-") as name, ExitStack() as stack:
        folder = Path(name)
        (folder / "none.json").write_text("[]", encoding="utf-8")
        application = [sys.executable, "-m", "benchmarks.language_model"]
        origin = stack.enter_context(started([*application, folder / "none.json"], folder / "origin.log"))
        upstream = address_of(origin, folder / "origin.log", START)
        running = []
        for which in WHICH:
            module = str(FILTERS / f"rust/{which}.wasm")
            filters = [] if which == "none" else [{"module": module, "buffer_limit": LIMIT}]
            (folder / f"{which}.json").write_text(json.dumps(filters), encoding="utf-8")
            log = folder / f"middleware-{which}.log"
            program = stack.enter_context(started([*application, folder / f"{which}.json"], log))
            url = address_of(program, log, START)
            running.append(Server("middleware", which, program.pid, url, f"{url}/guests"))
            settings = {
                "upstream": {"url": upstream},
                "listen": "127.0.0.1:0",
                "admin": "127.0.0.1:0",
                "log_level": "warn",
                "filters": [] if which == "none" else [{"file": module}],
                "buffer_limit": LIMIT,
                "access_log": {"format": "off"},
            }
            (folder / f"serve-{which}.json").write_text(json.dumps(settings), encoding="utf-8")
            log = folder / f"serve-{which}.log"
            command = [sys.executable, "-m", "proxywasm_host.cli", "serve", "--config", folder / f"serve-{which}.json"]
            program = stack.enter_context(started(command, log))
            url = address_of(program, log, START)
            admin = re.search(r"admin (http://[\d.]+:\d+)", log.read_text(encoding="utf-8"))
            assert admin is not None
            running.append(Server("serve", which, program.pid, url, f"{admin[1]}/metrics"))
        yield running


# -- Measuring ---------------------------------------------------------------------------------------------------------


def ask(server: Server, request: bytes, body: bytes = b"") -> tuple[bytes, float, float]:
    """The answer, and the seconds until its first event, and all of it, had arrived."""
    where = urllib.parse.urlsplit(server.url)
    with socket.create_connection((where.hostname or "", where.port or 80), PATIENCE) as client:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        began = time.perf_counter()
        client.sendall(request)
        client.sendall(body)
        answer, first = bytearray(), 0.0
        while part := client.recv(1 << 18):
            answer += part
            if not first and b"\n\n" in answer:
                first = time.perf_counter() - began
        return bytes(answer), first, time.perf_counter() - began


def prompt(server: Server, size: int) -> float:
    """Seconds for a prompt of `size` bytes. Raises: RuntimeError, if it did not reach the model."""
    head = f"POST /prompt HTTP/1.1\r\nHost: a\r\nContent-Length: {size}\r\nConnection: close\r\n\r\n".encode()
    answer, _, seconds = ask(server, head, b"tell me more " * (size // 13) + b"." * (size % 13))
    if not answer.startswith(b"HTTP/1.1 200") or str(size).encode() not in answer.partition(b"\r\n\r\n")[2]:
        raise RuntimeError(f"{server} answered {answer[:500]!r}")
    return seconds


def events(server: Server, count: int) -> tuple[float, float]:
    """Seconds until the first event and until the last. Raises: RuntimeError, if one is missing."""
    answer, first, whole = ask(
        server, f"GET /events?count={count} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n".encode()
    )
    found = unchunked(answer).count(EVENT)
    if found != count or (server.filter == "body") is not (b"x-body: rewritten" in answer):
        raise RuntimeError(f"{server} answered {found} events of {count}: {answer[:500]!r}")
    return first, whole


def unchunked(answer: bytes) -> bytes:
    """The body of a chunked answer."""
    body, rest = bytearray(), answer.partition(b"\r\n\r\n")[2]
    at = 0
    while (end := rest.find(b"\r\n", at)) >= 0 and (size := int(rest[at:end], 16)):
        body += rest[end + 2 : end + 2 + size]
        at = end + 4 + size
    return bytes(body)


def held(server: Server, do: Any) -> int:
    """Bytes by which a process grew at its peak during `do`, without the growth of its guests."""
    guests = server.guest_bytes()
    Path(f"/proc/{server.process}/clear_refs").write_text("5", encoding="ascii")
    before = _status(server.process, "VmRSS")
    do()
    grown = _status(server.process, "VmHWM") - before
    return max(grown - (server.guest_bytes() - guests), 0)


def _status(process: int, name: str) -> int:
    status = Path(f"/proc/{process}/status").read_text(encoding="ascii")
    found = re.search(rf"{name}:\s+(\d+)", status)
    assert found is not None
    return int(found[1]) << 10


def sample(server: Server, prompts: Sequence[int], count: int, firsts: int) -> Sample:
    """Measure one round of a server."""
    memory = {
        **{f"{size >> 20} MiB": held(server, lambda size=size: prompt(server, size)) for size in prompts},
        "events": held(server, lambda: events(server, count)),
    }
    return Sample(
        {size: prompt(server, size) for size in prompts},
        statistics.median(events(server, 10)[0] for _ in range(firsts)),
        events(server, count)[1],
        memory,
    )


Samples = dict[tuple[str, str], list[Sample]]


def measure(rounds: int, prompts: Sequence[int] = PROMPTS, count: int = EVENT_COUNT, firsts: int = 50) -> Samples:
    """Measure all servers, round by round. The memory of guests grows in the first round, then stays."""
    with servers() as running:
        samples: Samples = {(server.kind, server.filter): [] for server in running}
        for _ in range(rounds):
            for server in running:
                samples[server.kind, server.filter].append(sample(server, prompts, count, firsts))
    return samples


def beyond(samples: Samples) -> list[str]:
    """A sentence for each case that exceeds the limit of memory."""
    return [
        f"{kind} with a filter that {WHICH[which]} needs {most / 1e6:.0f} MB for {body}"
        for (kind, which), rounds in samples.items()
        for body in rounds[0].memory
        if (most := max(one.memory[body] for one in rounds)) > LIMIT + ROOM
    ]


def later(samples: Samples, kind: str, which: str) -> float:
    """Seconds by which the filter delays the first event: the median over the rounds."""
    pairs = zip(samples[kind, which], samples[kind, "none"], strict=True)
    return statistics.median(one.first - other.first for one, other in pairs)


# -- The report --------------------------------------------------------------------------------------------------------


def document(samples: Samples, machine: dict[str, Any]) -> str:
    """The page, as Markdown."""
    sizes = list(next(iter(samples.values()))[0].prompts)
    heads = [*(f"prompt of {size >> 20} MiB" for size in sizes), "first event", "delay", "events/s"]
    bodies = list(next(iter(samples.values()))[0].memory)
    lines = [
        "# The cost of filters for large bodies and long streams",
        "",
        "Written by `python -m benchmarks.bodies`, which describes how it measures. Prompts are in MB/s, the first",
        f"event of an answer in milliseconds, both medians of {len(next(iter(samples.values())))} rounds.",
        "",
        f"| | filter | {' | '.join(heads)} |",
        f"|---|---|{'---:|' * len(heads)}",
    ]
    for kind in KINDS:
        for which, words in WHICH.items():
            rounds = samples[kind, which]
            speeds = [size / statistics.median(one.prompts[size] for one in rounds) / 1e6 for size in sizes]
            first = statistics.median(one.first for one in rounds) * 1e3
            more = "" if which == "none" else f"{later(samples, kind, which) * 1e3:.2f} ms"
            rate = EVENT_COUNT / statistics.median(one.events for one in rounds)
            cells = [*(f"{speed:.0f}" for speed in speeds), f"{first:.2f} ms", more, f"{rate:,.0f}"]
            lines.append(f"| {kind if which == 'none' else ''} | {words} | {' | '.join(cells)} |")
    lines += [
        "",
        f"Peak memory of the process in MB, without its guests, where filters may hold {LIMIT >> 20} MiB:",
        "",
        f"| | filter | {' | '.join(bodies)} |",
        f"|---|---|{'---:|' * len(bodies)}",
    ]
    for kind in KINDS:
        for which, words in WHICH.items():
            most = [max(one.memory[body] for one in samples[kind, which]) / 1e6 for body in bodies]
            cells = " | ".join(f"{one:.0f}" for one in most)
            lines.append(f"| {kind if which == 'none' else ''} | {words} | {cells} |")
    late = [(kind, which) for kind in KINDS for which in ("headers", "body") if later(samples, kind, which) > LATER]
    said = [
        f"{kind} with a filter that {WHICH[which]} delays the first event by more than 5 ms" for kind, which in late
    ]
    bounds = "; ".join([*beyond(samples), *said])
    lines += [
        "",
        f"Limits: a filter delays the first event by at most {LATER * 1e3:.0f} ms; memory is at most what filters may",
        f"hold and {ROOM >> 20} MiB. {f'Exceeded: {bounds}' if bounds else 'All are met'}.",
        "",
        "A body that a server passes on as one part is in memory once more, in the server, until the call ends.",
        "Without the C extension, a body that filters rewrite is in memory twice.",
        "",
        f"{machine['processor']}, {machine['processors']} processors, load {machine['load'][0]};",
        f"{machine['interpreter']}.",
        "",
    ]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true")
    quick = parser.parse_args().quick
    text = document(measure(1 if quick else 5), description())
    if quick:
        sys.stdout.write(text)
    else:
        (ROOT / "docs/benchmarks-bodies.md").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
