"""The report: from results to Markdown and plots, and its statistics."""

from __future__ import annotations

import random
import time

import pytest

from benchmarks.compare import compare
from benchmarks.document import document
from benchmarks.draw import draw
from benchmarks.ladder import ENGINES, WHAT
from benchmarks.machine import description
from benchmarks.measure import MEMORY, STARTS, memcpy
from benchmarks.run import Run, digits
from benchmarks.scaling import CONTROL, LINES
from benchmarks.targets import TARGETS
from benchmarks.timing import Effort, InProcess, Spread, interleaved, ratio, spread
from benchmarks.workloads.table import WORKLOADS

STAGES = ("interpreter", "import", "engine", "plugin", "request")


def made_up(factor: float = 1.0, *, seed: int = 1) -> Run:
    """The results of a complete run, with invented times."""
    chance = random.Random(seed)

    def sides(names, cost: float = 1e-5) -> dict[str, object]:
        return {"unit": "s", "sides": {n: [factor * cost * chance.uniform(0.9, 1.1) for _ in range(5)] for n in names}}

    series = {"ladder": sides(WHAT)}
    for workload in WORKLOADS:
        memcpy = ["two memcpy"] * (workload.name.startswith("body of"))
        series[f"{workload.group}/{workload.name}"] = sides([*ENGINES, *memcpy])
    for what, (numbers, _) in LINES.items():
        costs = {str(n): [factor * (1e-5 + 1e-6 * n)] * 3 for n in numbers}
        for side in (*ENGINES, CONTROL):
            series[f"scaling/{what}/{side}"] = {"unit": "s", "sides": costs}
    for engine in ENGINES:
        series[f"start/{engine}"] = {
            "unit": "s",
            "sides": {stage: [0.1 * (place + 1)] * STARTS for place, stage in enumerate(STAGES)},
        }
        series[f"testing/{engine}"] = sides(["in all", "alone"], 0.1)
    for filter in MEMORY:
        series[f"memory/{filter}"] = {"unit": "B", "sides": {engine: [factor * 1e5] for engine in ENGINES}}
    return Run({"machine": description(), "seconds": 60.0, "quick": False, "series": series})


def test_the_report_has_everything(tmp_path):
    run = made_up()
    run.beside["3.99.0"] = made_up(seed=2)
    draw(run, tmp_path / "plots")
    text = document(run, "plots")
    for workload in WORKLOADS:
        assert f"| {workload.name} |" in text
    for way in WHAT.values():
        assert f"| {way} |" in text
    for target in TARGETS:
        assert f"| {target.name} |" in text
    assert "| the tests with their fixtures |" in text
    plots = {path.name for path in (tmp_path / "plots").iterdir()}
    assert plots == {name.partition(")")[0] for name in text.split("(plots/")[1:]}


def test_a_target_is_met_or_missed():
    run = made_up()
    filters = next(target for target in TARGETS if "with filters" in target.name)
    assert filters.measured(run).median == pytest.approx(1)
    assert filters.met(run)
    naive = next(target for target in TARGETS if "naive" in target.name)
    assert not naive.met(run)
    assert "**missed** by" in document(run, "plots")


def test_two_runs_are_compared():
    old, new = made_up(), made_up(0.5)
    lines = list(compare(old, new))
    assert len(lines) == sum(map(len, new.series.values()))
    assert all(line.startswith(("cheaper    0.50 ×", "same       1.00 ×")) for line in lines if "ladder" not in line)
    assert not [line for line in compare(old, old) if not line.startswith("same")]


def test_what_is_compared_is_timed_in_turn():
    order: list[str] = []

    def side(name: str) -> InProcess:
        def call() -> None:
            order.append(name)
            time.sleep(0.001)

        return InProcess(call, others=True)

    samples = interleaved({"a": side("a"), "b": side("b")}, Effort(rounds=3, seconds=0.001))
    assert {name: len(times) for name, times in samples.items()} == {"a": 3, "b": 3}
    assert order[-6:] == ["a", "b"] * 3


def test_a_repetition_that_takes_long_has_fewer_rounds():
    samples = interleaved(
        {"a": InProcess(lambda: time.sleep(0.02), others=True)}, Effort(rounds=10, seconds=0.001, least=2)
    )
    assert len(samples["a"]) == 2


def test_statistics():
    assert spread([1, 2, 3, 4, 5]) == Spread(3, 2, 4)
    assert spread([7]) == Spread(7, 7, 7)
    assert ratio([2, 6, 4], [1, 2, 4]) == Spread(2, 1.5, 2.5)
    assert made_up().line("filters", ENGINES[0]).slope == pytest.approx(1e-6)
    assert [digits(value) for value in (0.123, 1.25, 12.34, 1234.5)] == ["0.12", "1.25", "12.3", "1,234"]


def test_waiting_is_no_processor_time():
    assert (
        InProcess(lambda: time.sleep(0.02)).seconds(1)
        < 0.01
        < InProcess(lambda: time.sleep(0.02), others=True).seconds(1)
    )


def test_memcpy_copies():
    assert memcpy(1024).seconds(10) > 0
