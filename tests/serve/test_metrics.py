from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.openmetrics.parser import text_string_to_metric_families as open_metrics
from prometheus_client.parser import text_string_to_metric_families

from proxywasm_host.serve.metrics import OURS, FilterCounts, added, rendered
from proxywasm_host.services.metrics import COUNTER, GAUGE, HISTOGRAM, Histogram, InMemoryMetrics


def samples(ours, guests) -> dict:
    page, kind = rendered(ours, guests, "text/plain")
    assert kind.startswith("text/plain; version=")
    families = text_string_to_metric_families(page.decode())
    return {
        (sample.name, *(sample.labels[key] for key in sorted(sample.labels))): sample.value
        for family in families
        for sample in family.samples
    }


USAGE = {"memory": 65536, "peak_memory": 131072, "generation": 3, "streams": 2, "contexts": 9, "age": 1.5, "isolated_memory": 0}


def process(requests: int) -> tuple[dict, dict]:
    filter_counts, metrics = FilterCounts(), InMemoryMetrics()
    filter_counts.callbacks["auth", "on_log"] += 64
    filter_counts.failures["auth", "trap"] += 1
    filter_counts.in_filter("auth", 20e-6)
    metrics.define(COUNTER, "auth.allowed")
    metrics.add(COUNTER, "auth.allowed", requests)
    metrics.record(GAUGE, "auth.level", -2)
    metrics.record(HISTOGRAM, "auth.size", 7)
    times = Histogram((0.0025, 0.005))
    for _ in range(requests):
        times.note(0.003)
    counts = {"in_progress": 0, "requests": {"200": requests}, "latency": times.snapshot(), "upstream_ejected": {}}
    counts |= {key: {} for key, _, _ in OURS if key.startswith("upstream_")}
    return {**counts, **filter_counts.snapshot(), "resident_bytes": 1000, "memory": {"auth": 65536}, "vms": {"auth\x1f7": USAGE}}, metrics.snapshot()


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
    assert told["proxywasm_vm_peak_memory_bytes", "auth", "7"] == 131072 * 2  # the same process, told of twice
    assert told["proxywasm_vm_age_seconds", "auth", "7"] == 3
    assert told["wasmcustom_auth_allowed_total", "auth.allowed"] == 5
    assert told["wasmcustom_auth_level", "auth.level"] == -4
    assert told["wasmcustom_auth_size_bucket", "10.0", "auth.size"] == 2
    assert told["wasmcustom_auth_size_sum", "auth.size"] == 14


def test_whatever_a_guest_calls_its_metrics():
    metrics = InMemoryMetrics()
    names = ["", "a b", "a.b", "a_b_total", 'x"y\n\\', "🙂", "proxywasm_requests"]
    for kind in (COUNTER, GAUGE, HISTOGRAM):
        for name in names:
            metrics.define(kind, name)
    told = samples(process(0)[0], metrics.snapshot())
    for name in names:
        assert sum(1 for sample in told if sample[0].startswith("wasmcustom_") and sample[-1] == name) >= 3


PARTS = st.sampled_from(
    [
        "a",
        ".",
        "_",
        "_total",
        "_created",
        "_bucket",
        "_sum",
        "_count",
        "_info",
        "_counter",
        "_gauge",
        "_histogram",
        "_2",
    ]
)
NAMES = st.lists(PARTS, max_size=4).map("".join)


@given(st.lists(st.tuples(st.sampled_from([COUNTER, GAUGE, HISTOGRAM]), NAMES), max_size=12))
def test_names_never_clash(defined):
    """Each metric comes out of a strict reader with the name that the guest gave it, as what it is."""
    metrics = InMemoryMetrics()
    for number, (kind, name) in enumerate(defined):
        metrics.define(kind, name)
        if kind == COUNTER:
            metrics.add(kind, name, number + 1)
        else:
            metrics.record(kind, name, number + 1)
    page, content_type = rendered(*process_with(metrics), "application/openmetrics-text; version=1.0.0")
    assert content_type.startswith("application/openmetrics-text")
    told = {
        (family.type, sample.labels["name"])
        for family in open_metrics(page.decode())
        for sample in family.samples
        if family.name.startswith("wasmcustom_")
    }
    words = {COUNTER: "counter", GAUGE: "gauge", HISTOGRAM: "histogram"}
    assert told == {(words[kind], name) for kind, name in defined}
    lines = [line.rpartition(" ")[0] for line in page.decode().splitlines() if not line.startswith("#")]
    assert len(lines) == len(set(lines))


def process_with(metrics: InMemoryMetrics) -> tuple[dict, dict]:
    return process(0)[0], metrics.snapshot()


def test_names_that_belong_to_another_metric():
    metrics = InMemoryMetrics()
    for kind, name in ((GAUGE, "hits_total"), (COUNTER, "hits"), (HISTOGRAM, "hits"), (GAUGE, "size_count")):
        metrics.define(kind, name)
    metrics.record(HISTOGRAM, "size", 1)
    page, _ = rendered(*process_with(metrics), "text/plain")
    assert [line for line in page.decode().splitlines() if line.startswith("# TYPE wasmcustom")] == [
        "# TYPE wasmcustom_hits_total counter",
        "# TYPE wasmcustom_hits_total_gauge gauge",
        "# TYPE wasmcustom_size_count gauge",
        "# TYPE wasmcustom_hits_histogram histogram",
        "# TYPE wasmcustom_size_histogram histogram",
    ]


def test_a_histogram_counts_each_value_once():
    histogram = Histogram((1.0, 2.0))
    for value in (0.5, 1.0, 1.5, 99.0):
        histogram.note(value)
    assert (histogram.counts, histogram.sum) == ([2, 1, 1], 102.0)
