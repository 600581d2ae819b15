"""Metrics in memory."""

from __future__ import annotations

import threading
from threading import Thread

import pytest

from proxywasm_host.services import QuotaExceeded
from proxywasm_host.services.metrics import COUNTER, GAUGE, HISTOGRAM, InMemoryMetrics


def test_what_is_defined_is_zero():
    metrics = InMemoryMetrics()
    metrics.define(COUNTER, "m")
    metrics.define(GAUGE, "m")
    metrics.define(HISTOGRAM, "m")
    assert metrics.values == {(COUNTER, "m"): 0, (GAUGE, "m"): 0}
    assert metrics.samples == {"m": []}


def test_to_define_again_changes_nothing():
    metrics = InMemoryMetrics()
    metrics.add(COUNTER, "m", 3)
    metrics.record(HISTOGRAM, "m", 3)
    metrics.define(COUNTER, "m")
    metrics.define(HISTOGRAM, "m")
    assert metrics.get(COUNTER, "m") == 3
    assert metrics.samples == {"m": [3]}


def test_what_is_not_defined_is_zero_too():
    assert InMemoryMetrics().get(GAUGE, "m") == 0


def test_values():
    metrics = InMemoryMetrics()
    metrics.add(COUNTER, "m", 3)
    metrics.add(COUNTER, "m", 4)
    metrics.record(GAUGE, "m", 9)
    metrics.record(GAUGE, "m", 5)
    metrics.add(GAUGE, "m", -6)
    assert (metrics.get(COUNTER, "m"), metrics.get(GAUGE, "m")) == (7, -1)


def test_a_histogram_keeps_the_last_samples():
    metrics = InMemoryMetrics()
    for value in range(metrics.SAMPLES + 10):
        metrics.record(HISTOGRAM, "m", value)
    assert metrics.samples["m"] == list(range(10, metrics.SAMPLES + 10))


def test_threads_lose_nothing():
    metrics = InMemoryMetrics()

    def count():
        for _ in range(2000):
            metrics.add(COUNTER, "m", 1)

    threads = [Thread(target=count) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert metrics.get(COUNTER, "m") == 16000


def test_new_metrics_are_refused_when_there_is_no_room_and_old_ones_go_on():
    metrics = InMemoryMetrics(max_bytes=100_000)
    names = [f"{number:04}" for number in range(1000)]
    defined = []
    for name in names:
        try:
            metrics.define(COUNTER, name)
        except QuotaExceeded:
            break
        defined.append(name)
    assert 200 < len(defined) < 400
    with pytest.raises(
        QuotaExceeded, match=r"^the metrics have \d+ bytes, \d+ more would be beyond the limit of 100000$"
    ):
        metrics.define(HISTOGRAM, "h")
    assert (sorted(name for _, name in metrics.values), metrics.samples) == (defined, {})
    metrics.define(COUNTER, names[0])
    metrics.add(COUNTER, names[0], 3)
    assert metrics.get(COUNTER, names[0]) == 3


def test_histograms_share_the_room_that_is_left():
    metrics = InMemoryMetrics(max_bytes=2000)
    for value in range(1000):
        metrics.record(HISTOGRAM, "a", value)
    metrics.record(HISTOGRAM, "b", 1)
    assert metrics.samples == {"a": list(range(950, 1000)), "b": []}


def test_closing_shared_metrics_does_not_wait_for_those_who_go_on_counting():
    from proxywasm_host.services.shared.metrics import SharedMetrics

    class Store:
        EACH = 60.0
        merged = 0

        def merge(self, number, changes):
            self.merged += 1
            assert self.merged < 10
            metrics._changes["0:0:c"] = (True, 1)  # as another thread would count meanwhile
            return {}

    store = Store()
    metrics = SharedMetrics(store)
    metrics._thread = threading.Thread()  # none of its own
    metrics._thread.start()
    metrics.add(0, "c", 1)
    metrics.close()
    assert store.merged == 2
