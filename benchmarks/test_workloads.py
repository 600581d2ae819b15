"""Opens each workload on each engine, which checks its result. ``--benchmark-enable`` measures its cost."""

from __future__ import annotations

import pytest

from benchmarks.ladder import ENGINES
from benchmarks.workloads.table import WORKLOADS, Workload


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("workload", WORKLOADS, ids=[workload.name for workload in WORKLOADS])
def test_workload(workload: Workload, engine: str, request: pytest.FixtureRequest) -> None:
    with workload.open(engine) as timed:
        if not request.config.getoption("benchmark_disable"):
            request.getfixturevalue("benchmark")(timed.call)
