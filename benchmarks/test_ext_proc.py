"""ext_proc and Envoy's Wasm each do the work, and the report can be written from the results."""

from __future__ import annotations

from benchmarks.ext_proc import KINDS, Sample, document, measure
from benchmarks.machine import description


def test_each_does_the_work():
    samples = measure(rounds=1, seconds=1)
    assert list(samples) == list(KINDS)
    assert all(one.latency > 0 and one.envoy > 0 for rounds in samples.values() for one in rounds)
    assert {kind for kind, (one,) in samples.items() if one.asked} == {"native", "ours"}


def test_the_report_tells_what_each_adds():
    costs = {"none": 0.0, "wasm": 10e-6, "native": 200e-6, "ours": 300e-6}
    samples = {
        kind: [Sample(50e-6 + cost, 40e-6 + cost / 10, cost if kind in ("native", "ours") else 0.0)] * 3
        for kind, cost in costs.items()
    }
    text = document(samples, description())
    assert "| Envoy without a filter | 50 µs |  | 40 µs |  |  |" in text
    assert "| the filter in Envoy's own Wasm | 60 µs | 10 µs | 41 µs |  | 1 µs |" in text
    assert "| ext_proc, and the filter in `proxywasm ext-proc` | 350 µs | 300 µs | 70 µs | 300 µs | 330 µs |" in text
    assert "1.40 times the latency of a request, and 1.50 times the processor time" in text
