from __future__ import annotations

from prometheus_client.parser import text_string_to_metric_families

from proxywasm_host.serve.metrics import GuestMetrics, Histogram, Tally, added, rendered
from proxywasm_host.services.metrics import COUNTER, GAUGE, HISTOGRAM


def samples(ours, guests) -> dict:
    page, kind = rendered(ours, guests, "text/plain")
    assert kind.startswith("text/plain; version=")
    families = text_string_to_metric_families(page.decode())
    return {
        (sample.name, *(sample.labels[key] for key in sorted(sample.labels))): sample.value
        for family in families
        for sample in family.samples
    }


def process(requests: int) -> tuple[dict, dict]:
    tally, metrics = Tally(), GuestMetrics()
    for _ in range(requests):
        tally.finished(200, 0.003)
    tally.callbacks["auth", "on_log"] += 64
    tally.failures["auth", "trap"] += 1
    tally.in_filter("auth", 20e-6)
    metrics.define(COUNTER, "auth.allowed")
    metrics.add(COUNTER, "auth.allowed", requests)
    metrics.record(GAUGE, "auth.level", -2)
    metrics.record(HISTOGRAM, "auth.size", 7)
    return {**tally.snapshot(), "resident_bytes": 1000, "memory": {"auth": 65536}}, metrics.snapshot()


def test_processes_add_up():
    ours, guests = zip(process(2), process(3), strict=True)
    told = samples(added(ours), added(guests))
    assert told["proxywasm_requests_total", "200"] == 5
    assert told["proxywasm_request_duration_seconds_count",] == 5
    assert told["proxywasm_request_duration_seconds_bucket", "0.0025"] == 0
    assert told["proxywasm_request_duration_seconds_bucket", "0.005"] == 5
    assert told["proxywasm_callbacks_total", "on_log", "auth"] == 128
    assert told["proxywasm_failures_total", "trap", "auth"] == 2
    assert told["proxywasm_filter_duration_seconds_count", "auth"] == 2
    assert told["proxywasm_vm_memory_bytes", "auth"] == 131072
    assert told["wasmcustom_auth_allowed_total", "auth.allowed"] == 5
    assert told["wasmcustom_auth_level", "auth.level"] == -4
    assert told["wasmcustom_auth_size_bucket", "10.0", "auth.size"] == 2
    assert told["wasmcustom_auth_size_sum", "auth.size"] == 14


def test_whatever_a_guest_calls_its_metrics():
    metrics = GuestMetrics()
    names = ["", "a b", "a.b", "a_b_total", 'x"y\n\\', "🙂", "proxywasm_requests"]
    for kind in (COUNTER, GAUGE, HISTOGRAM):
        for name in names:
            metrics.define(kind, name)
    told = samples(process(0)[0], metrics.snapshot())
    for name in names:
        assert sum(1 for sample in told if sample[0].startswith("wasmcustom_") and sample[-1] == name) >= 3


def test_a_histogram_counts_each_value_once():
    histogram = Histogram((1.0, 2.0))
    for value in (0.5, 1.0, 1.5, 99.0):
        histogram.note(value)
    assert (histogram.counts, histogram.sum) == ([2, 1, 1], 102.0)
