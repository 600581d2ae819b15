"""Metrics in memory."""

from __future__ import annotations

from threading import Thread

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
