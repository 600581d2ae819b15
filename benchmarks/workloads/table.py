"""All workloads: the tasks of hosts that are timed on each engine."""

from __future__ import annotations

from benchmarks.workloads import crossings, filters, hostcalls, lifecycle, messages
from benchmarks.workloads.workload import Workload

WORKLOADS: tuple[Workload, ...] = (
    *crossings.WORKLOADS,
    *hostcalls.WORKLOADS,
    *messages.WORKLOADS,
    *filters.WORKLOADS,
    *lifecycle.WORKLOADS,
)
