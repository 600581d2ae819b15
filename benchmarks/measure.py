"""Measures everything in this interpreter, and writes the results as JSON.

    python -m benchmarks.measure OUTPUT.json [--quick | --ladder]

A series has the sides that were timed in turn, each with a sample for each round, in the unit of the series.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import footprint, ladder, scaling, ten_tests
from benchmarks.ladder import ENGINES
from benchmarks.machine import description
from benchmarks.timing import Effort, InProcess, Timed, interleaved
from benchmarks.workloads.messages import BODIES
from benchmarks.workloads.table import WORKLOADS

FULL = Effort(rounds=15, seconds=0.03, warm_up=0.3)
QUICK = Effort(rounds=5, seconds=0.01, least=1, warm_up=0.02)
HEADLINE = Effort(rounds=31, seconds=0.03, warm_up=0.3)  # for the figures of targets
BESIDE = ("rust", *ENGINES, "python", "lupa-lua", "lupa-python")  # the ways shown for each interpreter

MEMORY = ("header_filter", "rust/headers", "go/headers")
STARTS = 5


@dataclass(frozen=True)
class Series:
    """Sides that were timed in turn, and their samples."""

    name: str
    sides: dict[str, list[float]]
    unit: str = "s"


def everything(quick: bool) -> Iterator[Series]:
    effort = QUICK if quick else FULL
    yield Series("ladder", ladder.measure(QUICK if quick else HEADLINE))
    for workload in WORKLOADS:
        with ExitStack() as stack:
            sides: dict[str, Timed] = {name: stack.enter_context(workload.open(name)) for name in ENGINES}
            if workload.name in MEMCPY:
                sides["two memcpy"] = memcpy(MEMCPY[workload.name])
            yield Series(f"{workload.group}/{workload.name}", interleaved(sides, effort))
    for what in scaling.LINES:
        # The speed of threads and processes depends on the moment, so those of all engines take turns.
        together = [(*ENGINES, scaling.CONTROL)] if what in scaling.PARALLEL else [(engine,) for engine in ENGINES]
        for names in together:
            yield from grows(what, names, effort)
    for filter in MEMORY:
        bytes = {engine: [footprint.measured("memory", engine, filter)] for engine in ENGINES}
        yield Series(f"memory/{filter}", bytes, "B")
    for engine in ENGINES:
        footprint.measured("start", engine, "rust/headers")  # compiles, so that the others use the cache
        starts = [footprint.measured("start", engine, "rust/headers") for _ in range(1 if quick else STARTS)]
        yield Series(f"start/{engine}", {stage: [start[stage] for start in starts] for stage in starts[0]})
    for engine in ENGINES:
        runs = [ten_tests.measure("--proxywasm-engine", engine) for _ in range(1 + (1 if quick else STARTS))][1:]
        yield Series(f"testing/{engine}", {"in all": [run[0] for run in runs], "alone": [run[2] for run in runs]})


def grows(what: str, names: Sequence[str], effort: Effort) -> Iterator[Series]:
    """Measure how cost grows with `what`, on these engines in turn."""
    numbers, _ = scaling.LINES[what]
    with ExitStack() as stack:
        sides = {
            f"{name}/{number}": stack.enter_context(scaling.opened(what, name, number))
            for name in names
            for number in numbers
        }
        samples = interleaved(sides, effort)
    for name in names:
        yield Series(f"scaling/{what}/{name}", {str(number): samples[f"{name}/{number}"] for number in numbers})


MEMCPY = {f"body of {name}": size for name, size in BODIES.items()}


def memcpy(size: int) -> InProcess:
    """Copy `size` bytes twice, the least work to read and replace a body."""
    source, target = ctypes.create_string_buffer(size), ctypes.create_string_buffer(size)

    def twice() -> None:
        ctypes.memmove(target, source, size)
        ctypes.memmove(source, target, size)

    return InProcess(twice)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output", type=Path)
    parser.add_argument("--quick", action="store_true", help="measure few rounds, as a check that everything works")
    parser.add_argument("--ladder", action="store_true", help="measure only the ways shown for each interpreter")
    options = parser.parse_args()
    began = time.monotonic()
    before = description()
    if options.ladder:
        series = iter([Series("ladder", ladder.measure(QUICK if options.quick else FULL, BESIDE))])
    else:
        series = everything(options.quick)
    measured: dict[str, Any] = {}
    for one in series:
        print(f"{time.monotonic() - began:6.1f} s  {one.name}", file=sys.stderr, flush=True)
        measured[one.name] = {"unit": one.unit, "sides": one.sides}
    run = {"machine": before, "seconds": time.monotonic() - began, "quick": options.quick, "series": measured}
    options.output.write_text(json.dumps(run), encoding="utf-8")


if __name__ == "__main__":
    main()
