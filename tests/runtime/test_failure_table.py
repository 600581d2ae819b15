"""docs/failures.md says what streams get when a guest fails: the same on each engine."""

from __future__ import annotations

from tests.runtime.failure_table import table, written
from tests.support import REQUEST


def test_the_table_is_what_happens(engine):
    assert table(engine) == written(), "if this is meant, write it with: python -m tests.runtime.failure_table"


def test_usage_of_a_vm(host, probe, clock):
    script = "@on_request_headers\nget_header_map_value 0 x-fail\nif_status 0\ntrap\ngrow 3\n"
    plugin = probe(script, failure_policy="fail_reload", reload_interval=0)
    fresh = plugin.usage()
    assert (fresh.generation, fresh.streams, fresh.peak_memory) == (1, 0, fresh.memory)
    clock.advance(5)
    with host.http_stream([plugin]) as stream:
        stream.request_headers(REQUEST, True)
        grown = plugin.usage()
    assert (grown.memory, grown.streams, grown.age) == (fresh.memory + 3 * 65536, 1, 5)
    with host.http_stream([plugin]) as stream:
        stream.request_headers([*REQUEST, (b"x-fail", b"1")], True)
    failed = plugin.usage()
    assert (failed.memory, failed.peak_memory, failed.generation) == (0, grown.memory, 1)
    host.http_stream([plugin]).close()
    renewed = plugin.usage()
    assert (renewed.memory, renewed.peak_memory) == (fresh.memory, grown.memory)
    assert (renewed.generation, renewed.streams, renewed.age) == (2, 0, 0)
