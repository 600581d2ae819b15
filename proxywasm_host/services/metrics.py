"""Counters, gauges and histograms that guests define."""

from __future__ import annotations

from threading import Lock
from typing import Protocol

__all__ = ["COUNTER", "GAUGE", "HISTOGRAM", "InMemoryMetrics", "Metrics"]

COUNTER, GAUGE, HISTOGRAM = range(3)


class Metrics(Protocol):
    """Where metrics are kept, by kind (`COUNTER`, `GAUGE`, `HISTOGRAM`) and name. Safe to use from several threads.

    The rules of the ABI (a counter only grows, a histogram cannot be read) are kept by the hostcalls.
    """

    def define(self, kind: int, name: str) -> None:
        """Make the metric known, with the value 0."""
        ...

    def add(self, kind: int, name: str, amount: int) -> None:
        """Add to a counter or a gauge."""
        ...

    def record(self, kind: int, name: str, value: int) -> None:
        """Set a gauge, or note a value in a histogram."""
        ...

    def get(self, kind: int, name: str) -> int:
        """Value of a counter or a gauge."""
        ...


class InMemoryMetrics:
    """Metrics of this process: `values` of counters and gauges, `samples` of histograms (the last 4096 of each)."""

    SAMPLES = 4096

    def __init__(self) -> None:
        self.values: dict[tuple[int, str], int] = {}
        self.samples: dict[str, list[int]] = {}
        self._lock = Lock()

    def define(self, kind: int, name: str) -> None:
        with self._lock:
            if kind == HISTOGRAM:
                self.samples.setdefault(name, [])
            else:
                self.values.setdefault((kind, name), 0)

    def add(self, kind: int, name: str, amount: int) -> None:
        with self._lock:
            self.values[kind, name] = self.values.get((kind, name), 0) + amount

    def record(self, kind: int, name: str, value: int) -> None:
        with self._lock:
            if kind == HISTOGRAM:
                samples = self.samples.setdefault(name, [])
                samples.append(value)
                del samples[: -self.SAMPLES]
            else:
                self.values[kind, name] = value

    def get(self, kind: int, name: str) -> int:
        return self.values.get((kind, name), 0)
