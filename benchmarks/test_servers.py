"""Servers with filters: each does the work, and the report can be made of what is measured."""

from __future__ import annotations

from benchmarks.machine import description
from benchmarks.servers import FILTERS, SERVERS, Sample, added, document, measure, ratio


def test_every_server_does_the_work_under_load():
    samples = measure(rounds=1, seconds=1, filters=[5])
    assert set(samples) == {(kind, 5) for kind in SERVERS}
    assert all(one.requests > 0 and one.processor > 0 for rounds in samples.values() for one in rounds)


def test_the_report_tells_what_filters_add():
    costs = {"envoy": 10e-6, "serve": 4e-6, "middleware": 5e-6}
    samples = {
        (kind, count): [Sample(1000 / number, 1e-3, 2e-3, 1e-4 + cost * count) for number in (1, 2, 3)]
        for kind, cost in costs.items()
        for count in FILTERS
    }
    assert [round(ratio(samples, "serve", *of), 3) for of in ((5,), (5, 1))] == [0.4, 0.4]
    assert [round(cost * 1e6, 3) for cost in added(samples, "middleware", 1)] == [5.0] * 3
    text = document(samples, description())
    assert "| Envoy | 0 | 500 | 1.00 ms | 2.0 ms | 100.0 µs |  |  |" in text
    assert "|  | 5 | 500 | 1.00 ms | 2.0 ms | 120.0 µs | 4.0 µs | 4.0 µs |" in text
    assert "the first one 0.40 in `serve` and 0.50 in the middleware" in text
