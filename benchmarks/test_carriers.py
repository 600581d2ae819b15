"""Each carrier does the work, and the report can be written from the results."""

from __future__ import annotations

from benchmarks.carriers import KINDS, document, measure
from benchmarks.machine import description


def test_each_does_the_work():
    samples = measure(rounds=1, times=2)
    assert list(samples) == list(KINDS)
    for kind, rounds in samples.items():
        # The processor time of another process has a resolution of 10 ms, so a few requests may take 0 there.
        assert all(seconds > 0 or kind == "mitmproxy" for pair in rounds for seconds in pair), kind


def test_the_report_tells_what_the_filter_adds():
    text = document({"requests": [(100e-6, 140e-6), (200e-6, 250e-6), (300e-6, 330e-6)]}, description())
    assert "| requests | 200 µs | 250 µs | 40 µs |" in text
