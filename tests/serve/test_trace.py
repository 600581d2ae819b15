"""What is remembered of requests, and that a filter cannot make it much."""

from __future__ import annotations

import asyncio

import pytest

from proxywasm_host import Host
from proxywasm_host.recording.secrets import Secrets
from proxywasm_host.serve import trace
from proxywasm_host.serve.metrics import FilterCounts
from proxywasm_host.serve.trace import Tracer, differences
from tests.support import REQUEST, code


@pytest.fixture
def filter_counts() -> FilterCounts:
    return FilterCounts()


def never(seconds, function) -> None:
    """What is to be done later is not."""


def request(host: Host, tracer: Tracer, plugin) -> None:
    with host.http_stream([plugin]) as stream:
        looked_at = tracer.begin(stream, 1, b"GET", b"/")
        stream.request_headers(REQUEST, True)
    if looked_at:
        tracer.end(stream)


def test_what_a_filter_does_too_often_is_counted_and_not_kept(engine, filter_counts):
    script = "@on_request_headers\n" + "get_header_map_value 0 x\n" * 500
    tracer = Tracer(filter_counts, 1, never)
    with Host(engine) as host:
        plugin = host.load_plugin(code("c/probe_0_2_1"), name="probe", configuration=script)
        tracer.add(host)
        request(host, tracer, plugin)
    _, [record] = tracer.since(0)
    [step] = [step for step in record["steps"] if step["key"] == "on_request_headers"]
    assert len(step["calls"]) == trace.MAX_CALLS
    assert len(step["calls"]) + step["more"] == sum(filter_counts.hostcalls.values())
    assert filter_counts.hostcalls["probe", "proxy_get_header_map_value", "NOT_FOUND"] == 500


def test_only_so_many_requests_are_kept(filter_counts):
    tracer = Tracer(filter_counts, 1, never)
    with Host() as host:
        plugin = host.load_plugin(code("rust/headers"), name="headers")
        tracer.add(host)
        for _ in range(trace.KEPT + 10):
            request(host, tracer, plugin)
    changes, records = tracer.since(0)
    assert len(records) == trace.KEPT
    assert tracer.since(changes) == (changes, [])
    assert filter_counts.callbacks["headers", "on_request_headers"] == trace.KEPT + 10


def test_nobody_listens_between_samples(filter_counts, monkeypatch):
    monkeypatch.setattr(trace, "REST", 0)
    tracer = Tracer(filter_counts, 10, never)
    with Host() as host:
        plugin = host.load_plugin(code("rust/headers"), name="headers")
        tracer.add(host)
        for number in range(1, 31):
            request(host, tracer, plugin)
            assert host._listener is None
            assert filter_counts.callbacks["headers", "on_request_headers"] == number // 10 * 10


def test_all_are_looked_at_for_a_while_after_somebody_asked(filter_counts, monkeypatch):
    monkeypatch.setattr(trace, "LOOKED", 0.05)

    async def watched() -> None:
        tracer = Tracer(filter_counts, 1000, asyncio.get_running_loop().call_later)
        with Host() as host:
            plugin = host.load_plugin(code("rust/headers"), name="headers")
            tracer.add(host)
            tracer.watch()
            request(host, tracer, plugin)
            await asyncio.sleep(0.2)
            request(host, tracer, plugin)
            assert host._listener is None

    asyncio.run(watched())
    assert filter_counts.callbacks["headers", "on_request_headers"] == 1


def test_differences():
    before = [(b"a", b"1"), (b"b", b"2"), (b"b", b"2")]
    assert differences(before, list(before), Secrets()) == []
    assert differences(before, [(b"a", b"1"), (b"b", b"2"), (b"c", b"\xff")], Secrets()) == [
        ("-", "b: 2"),
        ("+", "c: \\xff"),
    ]
