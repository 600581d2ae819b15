"""Counters, gauges and histograms that guests define."""

from __future__ import annotations

from sys import getsizeof
from threading import Lock
from typing import Protocol

from proxywasm_host.services.quota import MIB, Quota

__all__ = ["COUNTER", "GAUGE", "HISTOGRAM", "InMemoryMetrics", "Metrics"]

COUNTER, GAUGE, HISTOGRAM = range(3)
METRIC, SAMPLE = 256, 40
"""Bytes that a metric costs beside its name, and a sample of a histogram."""


class Metrics(Protocol):
    """Where metrics are kept, by kind (`COUNTER`, `GAUGE`, `HISTOGRAM`) and name. Safe to use from several threads.

    The rules of the ABI (a counter only grows, a histogram cannot be read) are kept by the hostcalls.
    """

    def define(self, kind: int, name: str) -> None:
        """Make the metric known, with the value 0. Raises: QuotaExceeded, if it is new and too much is kept."""
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
    """Metrics of this process: `values` of counters and gauges, `samples` of histograms (the last 4096 of each).

    All together have at most `max_bytes`: beyond that a new metric is refused, and a histogram that has samples keeps
    the last ones of them.
    """

    SAMPLES = 4096

    def __init__(self, max_bytes: int | None = 64 * MIB) -> None:
        self.values: dict[tuple[int, str], int] = {}
        self.samples: dict[str, list[int]] = {}
        self._quota = Quota("the metrics", max_bytes)
        self._lock = Lock()

    def define(self, kind: int, name: str) -> None:
        """Make the metric known, with the value 0. Raises: QuotaExceeded, if it is new and there is no room."""
        with self._lock:
            if name in self.samples if kind == HISTOGRAM else (kind, name) in self.values:
                return
            self._quota.reserve(METRIC + getsizeof(name))
            if kind == HISTOGRAM:
                self.samples[name] = []
            else:
                self.values[kind, name] = 0

    def add(self, kind: int, name: str, amount: int) -> None:
        """Add to a counter or a gauge."""
        with self._lock:
            self.values[kind, name] = self.values.get((kind, name), 0) + amount

    def record(self, kind: int, name: str, value: int) -> None:
        """Set a gauge, or note a sample of a histogram."""
        with self._lock:
            if kind == HISTOGRAM:
                samples = self.samples.setdefault(name, [])
                samples.append(value)
                if len(samples) > self.SAMPLES or not self._quota.has(SAMPLE):
                    del samples[0]
                else:
                    self._quota.reserve(SAMPLE)
            else:
                self.values[kind, name] = value

    def get(self, kind: int, name: str) -> int:
        """Value of a counter or a gauge; 0 if it was never defined."""
        return self.values.get((kind, name), 0)

    def __repr__(self) -> str:
        count = len(self.values) + len(self.samples)
        return f"<InMemoryMetrics with {count} {'metric' if count == 1 else 'metrics'}>"
