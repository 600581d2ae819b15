"""The services that processes share, as one object."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from proxywasm_host.services.metrics import InMemoryMetrics
from proxywasm_host.services.shared.metrics import SharedMetrics
from proxywasm_host.services.shared_data import SharedData
from proxywasm_host.services.shared_queue import SharedQueues

__all__ = ["Shared"]


def _nothing() -> None:
    """Close nothing."""


@dataclass(frozen=True)
class Shared:
    """Services that processes share. `close` adds the last counts to `metrics` and ends their use in this process."""

    data: SharedData
    queues: SharedQueues
    metrics: InMemoryMetrics | SharedMetrics
    close: Callable[[], None] = _nothing
