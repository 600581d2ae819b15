"""Counters, gauges and histograms that guests define."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping
from sys import getsizeof
from typing import Any, Protocol

from proxywasm_host.forks import fork_lock
from proxywasm_host.services.quota import MIB, Quota

__all__ = ["BUCKETS", "COUNTER", "GAUGE", "HISTOGRAM", "Histogram", "InMemoryMetrics", "Metrics", "by_kind"]

COUNTER, GAUGE, HISTOGRAM = range(3)
METRIC, SAMPLE = 256, 40
"""Bytes of a metric without its name, and of a sample of a histogram."""
BUCKETS = (0.5, 1, 5, 10, 25, 50, 100, 250, 500, 1e3, 2.5e3, 5e3, 1e4, 3e4, 6e4, 3e5, 6e5, 1.8e6, 3.6e6)
"""Upper bounds of the buckets of histograms, as in Envoy."""


class Histogram:
    """The count of each bucket; the last bucket is for values above all bounds."""

    def __init__(self, bounds: tuple[float, ...] = BUCKETS) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.sum: float = 0

    def note(self, value: float) -> None:
        """Count a value."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.sum += value

    def snapshot(self) -> dict[str, Any]:
        """The counts as a JSON object."""
        return {"bounds": self.bounds, "counts": list(self.counts), "sum": self.sum}


class Metrics(Protocol):
    """A store of metrics, by kind (`COUNTER`, `GAUGE`, `HISTOGRAM`) and name. It must be safe to use from several
    threads. Hostcalls enforce the rules of the ABI: a counter only grows, and a histogram cannot be read.
    """

    def define(self, kind: int, name: str) -> None:
        """Define the metric, with the value 0. Raises: QuotaExceeded, if it is new and the quota is used up."""
        ...

    def add(self, kind: int, name: str, amount: int) -> None:
        """Add to a counter or a gauge."""
        ...

    def record(self, kind: int, name: str, value: int) -> None:
        """Set a gauge, or add a value to a histogram."""
        ...

    def get(self, kind: int, name: str) -> int:
        """The value of a counter or a gauge."""
        ...


def by_kind(values: Mapping[tuple[int, str], int], histograms: Mapping[str, Histogram]) -> dict[str, dict[str, Any]]:
    """Metrics as a JSON object: ``counters``, ``gauges`` and ``histograms``, each by name."""
    return {
        "counters": {name: value for (kind, name), value in values.items() if kind == COUNTER},
        "gauges": {name: value for (kind, name), value in values.items() if kind == GAUGE},
        "histograms": {name: histogram.snapshot() for name, histogram in histograms.items()},
    }


class InMemoryMetrics:
    """Metrics of this process: `values` has counters and gauges, `histograms` the buckets, and `samples` the last 4096
    values of each histogram.

    All together take at most `max_bytes`. Beyond that, a new metric is refused, and a new sample replaces the oldest
    one of its histogram.
    """

    SAMPLES = 4096

    def __init__(self, max_bytes: int | None = 64 * MIB) -> None:
        self.values: dict[tuple[int, str], int] = {}
        self.samples: dict[str, list[int]] = {}
        self.histograms: dict[str, Histogram] = {}
        self._quota = Quota("the metrics", max_bytes)
        self._lock = fork_lock()

    def define(self, kind: int, name: str) -> None:
        """Define the metric, with the value 0. Raises: QuotaExceeded, if it is new and the quota is used up."""
        with self._lock:
            if name in self.samples if kind == HISTOGRAM else (kind, name) in self.values:
                return
            self._quota.reserve(METRIC + getsizeof(name))
            if kind == HISTOGRAM:
                self.samples[name] = []
                self.histograms[name] = Histogram()
            else:
                self.values[kind, name] = 0

    def add(self, kind: int, name: str, amount: int) -> None:
        """Add to a counter or a gauge."""
        with self._lock:
            self.values[kind, name] = self.values.get((kind, name), 0) + amount

    def record(self, kind: int, name: str, value: int) -> None:
        """Set a gauge, or add a sample to a histogram."""
        with self._lock:
            if kind == HISTOGRAM:
                samples = self.samples.setdefault(name, [])
                self.histograms.setdefault(name, Histogram()).note(value)
                samples.append(value)
                if len(samples) > self.SAMPLES or not self._quota.has(SAMPLE):
                    del samples[0]
                else:
                    self._quota.reserve(SAMPLE)
            else:
                self.values[kind, name] = value

    def get(self, kind: int, name: str) -> int:
        """The value of a counter or a gauge; 0 if it was never defined."""
        return self.values.get((kind, name), 0)

    def snapshot(self) -> dict[str, dict[str, Any]]:
        """All metrics, as `by_kind` returns them."""
        with self._lock:
            return by_kind(self.values, self.histograms)

    def __repr__(self) -> str:
        count = len(self.values) + len(self.samples)
        return f"<InMemoryMetrics with {count} {'metric' if count == 1 else 'metrics'}>"
