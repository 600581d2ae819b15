"""Metrics of several processes: each counts separately, and a thread adds its counts to a common store.

A hostcall costs as little as in `InMemoryMetrics`. A process gets the counts of others after `MetricStore.EACH`
seconds. If it is killed, its counts since the last merge are lost. While the store does not answer, each process
continues to count, and adds its counts later. A gauge has the value that was set last.
"""

from __future__ import annotations

import atexit
import contextlib
import logging
import threading
from bisect import bisect_left
from sys import getsizeof
from typing import Any, Protocol
from weakref import WeakSet

from proxywasm_host.forks import fork_lock, renew_in_children
from proxywasm_host.services.metrics import BUCKETS, HISTOGRAM, METRIC, Histogram, by_kind
from proxywasm_host.services.quota import MIB, Quota, QuotaExceeded
from proxywasm_host.services.unavailable import ServiceUnavailable

__all__ = ["Changes", "MetricStore", "SharedMetrics", "Totals"]

SUM = len(BUCKETS) + 1
"""Place of a histogram's sum, after its buckets."""
Changes = dict[str, tuple[bool, int]]
"""By field: whether the stored number is kept, and the amount that is added to it or else to 0."""
Totals = dict[str, int]
logger = logging.getLogger("proxywasm_host.services")


class MetricStore(Protocol):
    """A store that adds up the numbers of all processes."""

    EACH: float
    """Seconds between merges."""

    def merge(self, number: int, changes: Changes) -> Totals:
        """Make all changes or none, and return the totals of all processes. Raises: ServiceUnavailable, QuotaExceeded.

        A merge that raised is repeated with the same `number`. It may have succeeded, and then must have no effect.
        """
        ...


def _field(kind: int, name: str, place: int = 0) -> str:
    """The field of one number of a metric. A histogram has a number for each bucket, and the sum."""
    return f"{kind}:{place}:{name}"


class SharedMetrics:
    """Metrics of all processes with the same store. The names in this process take at most `max_bytes`."""

    def __init__(self, store: MetricStore, max_bytes: int | None = 64 * MIB) -> None:
        self._store = store
        self._quota = Quota("the metrics", max_bytes)
        self._values: dict[tuple[int, str], int] = {}
        self._histograms: dict[str, Histogram] = {}
        self._changes: Changes = {}
        self._sent: Changes = {}
        """Changes that the store has not confirmed."""
        self._number = 0
        self._lock = fork_lock()
        self._begin()
        _all.add(self)
        renew_in_children(self)

    def _begin(self) -> None:
        self._exchanging = threading.Lock()
        self._over = threading.Event()
        self._thread: threading.Thread | None = None

    def _forked(self) -> None:
        """Drop the pending counts in the child, because the parent adds them."""
        self._changes, self._sent, self._number = {}, {}, 0
        self._begin()

    def define(self, kind: int, name: str) -> None:
        """Define the metric, with the value 0. Raises: QuotaExceeded, if it is new and the quota is used up."""
        with self._lock:
            if name in self._histograms if kind == HISTOGRAM else (kind, name) in self._values:
                return
            self._quota.reserve(METRIC + getsizeof(name))
            self._make(kind, name)
            self._change(kind, name, 0)

    def _make(self, kind: int, name: str) -> None:
        if kind == HISTOGRAM:
            self._histograms[name] = Histogram()
        else:
            self._values[kind, name] = 0

    def _change(self, kind: int, name: str, amount: int, place: int = 0, *, kept: bool = True) -> None:
        if self._thread is None:  # the first change in this process, which may be a fork
            self._thread = threading.Thread(target=self._run, name="proxywasm-metrics", daemon=True)
            self._thread.start()
        field = _field(kind, name, place)
        if kept and field in self._changes:
            kept, before = self._changes[field]
            amount += before
        self._changes[field] = kept, amount

    def add(self, kind: int, name: str, amount: int) -> None:
        """Add to a counter or a gauge."""
        with self._lock:
            self._values[kind, name] = self._values.get((kind, name), 0) + amount
            self._change(kind, name, amount)

    def record(self, kind: int, name: str, value: int) -> None:
        """Set a gauge, or count a value in a histogram."""
        with self._lock:
            if kind == HISTOGRAM:
                self._histograms.setdefault(name, Histogram()).note(value)
                self._change(kind, name, 1, bisect_left(BUCKETS, value))
                self._change(kind, name, value, SUM)
            else:
                self._values[kind, name] = value
                self._change(kind, name, value, kept=False)

    def get(self, kind: int, name: str) -> int:
        """The value of a counter or a gauge, with the counts of others at the last merge; 0 if it is unknown."""
        return self._values.get((kind, name), 0)

    def snapshot(self) -> dict[str, dict[str, Any]]:
        """The present metrics of all processes, as `by_kind` returns them."""
        with contextlib.suppress(ServiceUnavailable, QuotaExceeded):
            self.merge()
        with self._lock:
            return by_kind(self._values, self._histograms)

    def merge(self) -> None:
        """Add the counts of this process, and get the totals. Raises: ServiceUnavailable, QuotaExceeded."""
        with self._exchanging:
            with self._lock:
                if not self._sent:
                    self._number += 1
                    self._sent, self._changes = self._changes, {}
            totals = self._store.merge(self._number, self._sent)
            with self._lock:
                self._sent = {}
                self._learn(totals)

    def _learn(self, totals: Totals) -> None:
        for field, (kept, amount) in self._changes.items():  # counted during the merge
            totals[field] = (totals.get(field, 0) if kept else 0) + amount
        for field, total in totals.items():
            kind, place, name = field.split(":", 2)
            if kind != str(HISTOGRAM):
                self._values[int(kind), name] = total
            else:
                histogram = self._histograms.setdefault(name, Histogram())
                if int(place) == SUM:
                    histogram.sum = total
                else:
                    histogram.counts[int(place)] = total

    def _run(self) -> None:
        over, told = self._over, False
        while not over.is_set():
            try:
                self.merge()  # at once, so that this process shares the store from the start
                told = False
            except (ServiceUnavailable, QuotaExceeded) as error:
                if not told:
                    told = True
                    logger.warning("metrics are not shared for now: %s", error)
            over.wait(self._store.EACH)

    def close(self) -> None:
        """Add the last counts, and stop the thread."""
        self._over.set()
        with contextlib.suppress(ServiceUnavailable, QuotaExceeded):
            for _ in range(2):  # a merge that failed, and then what was counted since; others may go on counting
                if self._sent or self._changes:
                    self.merge()
        if self._thread is not None:
            self._thread.join(1.0)
            self._thread = None
            self._over = threading.Event()

    def __repr__(self) -> str:
        count = len(self._values) + len(self._histograms)
        return f"<SharedMetrics with {count} {'metric' if count == 1 else 'metrics'}>"


_all: WeakSet[SharedMetrics] = WeakSet()


@atexit.register
def _close_all() -> None:
    for each in list(_all):
        each.close()
