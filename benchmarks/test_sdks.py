"""The cost of filters with SDKs: each is measured, and the report shows which targets are met."""

from __future__ import annotations

import pytest

from benchmarks.footprint import measured
from benchmarks.ladder import ENGINES
from benchmarks.machine import description
from benchmarks.sdks import CONTENDERS, PYTHON_RULES, Cost, document, growth, in_envoy
from benchmarks.timing import Effort


@pytest.mark.parametrize("engine", ENGINES)
def test_memory_is_flat(engine):
    before, after = growth(engine, 5_000)
    assert before == after


@pytest.mark.parametrize("engine", ENGINES)
def test_a_further_vm(engine):
    assert 0 < measured("further", engine, PYTHON_RULES.filter) < 1
    assert 0 < measured("memory", engine, PYTHON_RULES.filter) < 100e6


def test_each_filter_runs_in_envoy():
    assert set(in_envoy(Effort(1, 0.001))) == {one.name for one in CONTENDERS}


def test_the_report_says_what_is_met():
    every = dict.fromkeys(ENGINES, 1e6)
    cost = Cost(300_000, every, dict.fromkeys(ENGINES, 2e-3), dict.fromkeys([*ENGINES, "envoy"], 12e-6))
    text = document({one.name: cost for one in CONTENDERS}, {"wasmtime": (1, 1)}, description())
    assert "| header filter on Wasmtime | ≤ 10 µs | 12 µs | **missed** |" in text
    assert "| header rules on Wasmtime | ≤ 25 µs | 12 µs | met |" in text
    assert "| Rust: headers and log | 12.0 |" in text
    assert "as much as after the first thousand." in text
    assert "**more**" in document({one.name: cost for one in CONTENDERS}, {"wasmtime": (1, 2)}, description())
