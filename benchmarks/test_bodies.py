"""Large bodies and long streams pass filters in bounded memory, and the report can be written from the results."""

from __future__ import annotations

from benchmarks.bodies import EVENT_COUNT, KINDS, LIMIT, MIB, PROMPTS, ROOM, WHICH, Sample, beyond, document, measure
from benchmarks.machine import description


def test_every_server_passes_prompts_and_events_in_bounded_memory():
    samples = measure(rounds=1, count=1000, firsts=1)
    assert set(samples) == {(kind, which) for kind in KINDS for which in WHICH}
    assert beyond(samples) == []


def test_the_report_tells_what_is_beyond_its_bounds():
    sample = Sample(dict.fromkeys(PROMPTS, 1.0), 0.002, EVENT_COUNT / 5000, {"1 MiB": 2 * MIB, "events": MIB})
    samples = {(kind, which): [sample] * 3 for kind in KINDS for which in WHICH}
    assert "All are met." in document(samples, description())
    assert "| serve | none | 1 | 10 | 52 | 2.00 ms |  | 5,000 |" in document(samples, description())
    late = Sample(sample.prompts, 0.02, 1.0, {"1 MiB": LIMIT + ROOM + 1, "events": MIB})
    samples["serve", "body"] = [late] * 3
    assert "Exceeded: serve with a filter that reads all needs 88 MB for 1 MiB; serve with" in document(
        samples, description()
    )
