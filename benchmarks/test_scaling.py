"""Chains, threads, processes, memory and starts, each measured once on each engine."""

from __future__ import annotations

import pytest

from benchmarks.footprint import measured
from benchmarks.ladder import ENGINES
from benchmarks.scaling import CONTROL, LINES, PARALLEL, opened


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("what", [what for what in LINES if what not in PARALLEL])
def test_more_of_it(what: str, engine: str) -> None:
    numbers, _ = LINES[what]
    with opened(what, engine, numbers[-1]) as timed:
        assert timed.seconds(1) > 0


@pytest.mark.parametrize("engine", [*ENGINES, CONTROL])
@pytest.mark.parametrize("what", PARALLEL)
def test_two_at_once(what: str, engine: str) -> None:
    with opened(what, engine, 2) as together:
        assert together.result() == 2
        assert together.seconds(2) > 0


@pytest.mark.parametrize("engine", ENGINES)
def test_memory(engine: str) -> None:
    assert 0 < measured("memory", engine, "header_filter") < 100e6


@pytest.mark.parametrize("engine", ENGINES)
def test_a_start(engine: str) -> None:
    stages = measured("start", engine, "rust/headers")
    assert list(stages) == ["interpreter", "import", "engine", "plugin", "request"]
    assert sorted(stages.values()) == list(stages.values())
