"""Compares filters in Python with those of the SDKs for Rust, Go and AssemblyScript: module, VM and request.

    python -m benchmarks.sdks             writes docs/benchmarks-sdks.md, in two minutes
    python -m benchmarks.sdks --quick     prints the same, in half a minute, as a check that it works

Requests are timed in turn, round by round, in processor time of the thread that does the work; in Envoy, in that of the
whole process, less that of a listener without filters. A further VM is one of sixteen that start after another of the
same module; its memory is private memory of the process.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import footprint
from benchmarks.contenders.envoy import Listener
from benchmarks.contenders.proxywasm import one_request
from benchmarks.headers import EXAMPLES, HERE, RULES
from benchmarks.interpreters import ROOT
from benchmarks.ladder import ENGINES
from benchmarks.machine import description
from benchmarks.servers import ANSWER, envoy
from benchmarks.timing import Effort, InProcess, Timed, interleaved, spread
from benchmarks.workloads.workload import Silent
from proxywasm_host import Host, Services
from tests.envoy.rig import Filter, _listener, _wasm

REQUESTS = 100_000
KIB, MIB = 1024, 1 << 20


@dataclass(frozen=True)
class Contender:
    """A filter: its name in the report, its name for `footprint.sample`, and its configuration."""

    name: str
    filter: str
    configuration: str = ""


PYTHON = Contender("Python: header filter", str(HERE / "header_filter.py"))
PYTHON_RULES = Contender("Python: header rules", str(EXAMPLES / "header_rules.py"), json.dumps(RULES))
CONTENDERS = (
    Contender("Rust: headers and log", "rust/headers"),
    Contender("Go: headers and log", "go/headers"),
    Contender("AssemblyScript: headers and log", "assemblyscript/headers_0_2_1"),
    Contender("Python: headers and log", str(EXAMPLES / "headers.py")),
    PYTHON,
    PYTHON_RULES,
)


@dataclass(frozen=True)
class Cost:
    """The costs of a contender, in bytes and seconds."""

    module: int
    memory: dict[str, float]
    further: dict[str, float]
    request: dict[str, float]


def measure(effort: Effort) -> dict[str, Cost]:
    """The costs of each contender, by name; requests are measured on each engine and in Envoy."""
    costs = {}
    inside = in_envoy(effort)
    for one in CONTENDERS:
        with ExitStack() as stack:
            sides: dict[str, Timed] = {engine: opened(stack, engine, one) for engine in ENGINES}
            samples = interleaved(sides, effort)
        costs[one.name] = Cost(
            len(footprint.sample(one.filter)),
            {engine: footprint.measured("memory", engine, one.filter) for engine in ENGINES},
            {engine: footprint.measured("further", engine, one.filter) for engine in ENGINES},
            {**{engine: spread(samples[engine]).median for engine in ENGINES}, "envoy": inside[one.name]},
        )
    return costs


def opened(stack: ExitStack, engine: str, one: Contender) -> InProcess:
    host = stack.enter_context(Host(engine, services=Services(log=Silent())))
    plugins = [host.load_plugin(footprint.sample(one.filter), name="filter", configuration=one.configuration)]
    return InProcess(lambda: one_request(host, plugins))


def in_envoy(effort: Effort) -> dict[str, float]:
    """Seconds that each filter adds to a request in Envoy, by name."""
    with tempfile.TemporaryDirectory(prefix="proxywasm-") as name, ExitStack() as stack:
        folder = Path(name)
        listeners = {"none": _listener("none", [], ANSWER, None)}
        for number, one in enumerate(CONTENDERS):
            module = folder / f"{number}.wasm"
            module.write_bytes(footprint.sample(one.filter))
            wasm = _wasm(number, Filter(module, one.configuration), f"vm{number}")
            listeners[one.name] = _listener(one.name, [wasm], ANSWER, None)
        process, ports = stack.enter_context(envoy(folder / "envoy", listeners, []))
        sides: dict[str, Timed] = {
            name: stack.enter_context(closing(Listener(process, port))) for name, port in ports.items()
        }
        samples = interleaved(sides, effort)
    rounds = {one.name: zip(samples[one.name], samples["none"], strict=True) for one in CONTENDERS}
    return {name: statistics.median(with_it - without for with_it, without in pairs) for name, pairs in rounds.items()}


def growth(engine: str, requests: int = REQUESTS) -> tuple[int, int]:
    """Bytes of memory of a VM with the rules in Python, after a hundredth of the requests and after all."""
    with ExitStack() as stack:
        host = stack.enter_context(Host(engine, services=Services(log=Silent())))
        rules = footprint.sample(PYTHON_RULES.filter)
        plugins = [host.load_plugin(rules, name="rules", configuration=PYTHON_RULES.configuration)]
        sizes = []
        for count in (requests // 100, requests - requests // 100):
            for _ in range(count):
                one_request(host, plugins)
            memory: Any = plugins[0]._vm.instance.memory
            memory.refresh()
            sizes.append(len(memory.view))
    return sizes[0], sizes[1]


ABOUT = """
# The cost of filters in Python

Written by `python -m benchmarks.sdks`, which describes how it measures. "Headers and log" is the same work with each
SDK: `tests/filters/*/headers` and `sdk/examples/headers.py`, which log three lines for a request. "Header filter" is
the work of all other benchmarks (`benchmarks/header_filter.py`: four hostcalls on the request, three on the response).
"Header rules" is `sdk/examples/header_rules.py` with three denied paths, three headers to set and two to remove.
""".strip()


@dataclass(frozen=True)
class Target:
    """A measured value and its upper bound."""

    name: str
    bound: float
    unit: str
    measured: float

    def row(self) -> str:
        verdict = "met" if self.measured <= self.bound else "**missed**"
        return f"| {self.name} | ≤ {self.bound:g} {self.unit} | {self.measured:.3g} {self.unit} | {verdict} |"


def targets(costs: Mapping[str, Cost]) -> list[Target]:
    header, rules = costs[PYTHON.name], costs[PYTHON_RULES.name]
    return [
        Target("header filter on Wasmtime", 10, "µs", header.request["wasmtime"] * 1e6),
        Target("header rules on Wasmtime", 25, "µs", rules.request["wasmtime"] * 1e6),
        Target("module", 400, "KiB", max(header.module, rules.module) / KIB),
        Target("memory of a further VM on Wasmtime", 2, "MiB", rules.memory["wasmtime"] / MIB),
        Target("a further VM on Wasmtime", 3, "ms", rules.further["wasmtime"] * 1e3),
    ]


Grown = Mapping[str, tuple[int, int]]


def document(costs: Mapping[str, Cost], grown: Grown, machine: Mapping[str, Any]) -> str:
    return "\n".join(_lines(costs, grown, machine)) + "\n"


def _lines(costs: Mapping[str, Cost], grown: Grown, machine: Mapping[str, Any]) -> Iterator[str]:
    yield ABOUT
    yield ""
    yield "| target | bound | measured | |"
    yield "|---|---:|---:|---|"
    yield from (target.row() for target in targets(costs))
    titles = [engine.title() for engine in ENGINES]
    yield ""
    yield f"| a request, µs | {' | '.join(titles)} | Envoy (V8) |"
    yield f"|---|{'---:|' * (len(ENGINES) + 1)}"
    for name, cost in costs.items():
        yield f"| {name} | {' | '.join(f'{cost.request[side] * 1e6:.1f}' for side in (*ENGINES, 'envoy'))} |"
    yield ""
    yield f"| | module, KiB |{''.join(f' a further VM, {title}: ms | KiB |' for title in titles)}"
    yield f"|---|---:|{'---:|---:|' * len(ENGINES)}"
    for name, cost in costs.items():
        vms = "".join(f" {cost.further[e] * 1e3:.2f} | {cost.memory[e] / KIB:.0f} |" for e in ENGINES)
        yield f"| {name} | {cost.module / KIB:.0f} |{vms}"
    yield ""
    sizes = ", ".join(f"{after / KIB:.0f} KiB on {engine.title()}" for engine, (_, after) in grown.items())
    flat = all(before == after for before, after in grown.values())
    yield f"After {REQUESTS:,} requests the memory of a VM with the rules in Python is {sizes}:"
    yield "as much as after the first thousand." if flat else f"**more** than after the first thousand: {dict(grown)}."
    yield ""
    yield f"{machine['interpreter']}; C extension: {machine['extension']}."
    load = ", ".join(map(str, machine["load"]))
    yield f"{machine['processors']} processors ({machine['processor']}), {machine['kernel']}; load {load}."


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="print the results of a few rounds")
    quick = parser.parse_args().quick
    machine = description()
    costs = measure(Effort(3, 0.02, warm_up=0.05) if quick else Effort(15, 0.1, warm_up=0.5))
    grown = {engine: growth(engine) for engine in ENGINES}
    text = document(costs, grown, machine)
    print(text)
    if not quick:
        (ROOT / "docs/benchmarks-sdks.md").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
