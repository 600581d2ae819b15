"""The services that processes share, as one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from proxywasm_host.services.metrics import InMemoryMetrics
from proxywasm_host.services.shared.metrics import SharedMetrics
from proxywasm_host.services.shared_data import SharedData
from proxywasm_host.services.shared_queue import SharedQueues

__all__ = ["Shared"]


def _nothing() -> None:
    """There is nothing to be closed."""


@dataclass(frozen=True)
class Shared:
    """Services between processes. `close` gives them up in this process; `metrics` are told what is counted before."""

    data: SharedData
    queues: SharedQueues
    metrics: InMemoryMetrics | SharedMetrics
    close: Callable[[], None] = _nothing
