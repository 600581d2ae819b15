"""TCP streams through chains."""

from __future__ import annotations

import sys

import pytest

from proxywasm_host import PeerType
from proxywasm_host.runtime.effects import CloseConnection, DownstreamData, UpstreamData
from tests.support import code


def two(probe, one: str, two: str):
    return [probe(one, name="one", vm_id="1"), probe(two, name="two", vm_id="2")]


def test_data_passes_both_ways_in_order(host, probe, trace):
    stream = host.tcp_stream(two(probe, "", ""))
    trace.take()
    stream.new_connection()
    assert stream.downstream_data(b"in") == [DownstreamData(b"in", False, stream)]
    assert stream.upstream_data(b"out", True) == [UpstreamData(b"out", True, stream)]
    stream.close(PeerType.LOCAL)
    assert [event for event in trace.take() if "create" not in event] == [
        "one: proxy_on_new_connection()",
        "two: proxy_on_new_connection()",
        "one: proxy_on_downstream_data(2, 0)",
        "two: proxy_on_downstream_data(2, 0)",
        "two: proxy_on_upstream_data(3, 1)",
        "one: proxy_on_upstream_data(3, 1)",
        "one: proxy_on_upstream_connection_close(0,)",
        "two: proxy_on_upstream_connection_close(0,)",
        *(
            f"{name}: proxy_on_{what}"
            for name in ("one", "two")
            for what in ("downstream_connection_close(1,)", "done()", "log()", "delete()")
        ),
    ]


def test_held_data_is_shown_again_with_what_comes_next(host, probe, trace):
    stream = host.tcp_stream(
        [probe("@on_downstream_data/1\nreturn 1\n@on_downstream_data/2\nset_buffer_bytes 2 0 1 X")]
    )
    stream.new_connection()
    assert stream.downstream_data(b"abc") == []
    assert stream.downstream_data(b"def", True) == [DownstreamData(b"Xbcdef", True, stream)]


def test_data_without_a_limit(host, probe):
    host.listen(None)  # so that it is for the C extension
    stream = host.tcp_stream([probe("@on_downstream_data\nset_buffer_bytes 2 0 1 X")], buffer_limit=sys.maxsize)
    stream.new_connection()
    assert stream.downstream_data(b"abc") == [DownstreamData(b"Xbc", False, stream)]


def test_a_paused_connection_is_continued(host, probe, trace):
    script = "@on_configure\nset_tick_period_milliseconds 5\n@on_tick\nset_effective_context $stream\ncontinue_stream 2\ncontinue_stream 3\n@on_new_connection\nreturn 1"
    first, second = two(probe, script, "")
    stream = host.tcp_stream([first, second])
    trace.take()
    stream.new_connection()
    assert stream.downstream_data(b"early") == []
    assert not any(event.startswith("two") for event in trace.take())
    assert first.tick() == [DownstreamData(b"early", False, stream)]
    assert [event for event in trace.take() if event.startswith("two") and "create" not in event] == [
        "two: proxy_on_new_connection()",
        "two: proxy_on_downstream_data(5, 0)",
    ]


def test_upstream_is_wanted_when_the_last_filter_lets_the_connection_go_on(host, probe):
    script = "@on_configure\nset_tick_period_milliseconds 5\n@on_tick\nset_effective_context $stream\ncontinue_stream 2\n@on_new_connection\nreturn 1"
    first, second = two(probe, "", script)
    stream = host.tcp_stream([first, second])
    assert not stream.established
    stream.new_connection()
    assert not stream.established
    assert second.tick() == [DownstreamData(b"", False, stream)]  # nothing came: the effect tells of it
    assert stream.established
    assert second.tick() == []
    plain = host.tcp_stream([first])
    plain.new_connection()
    assert plain.established


def test_upstream_is_wanted_though_the_filter_holds_the_data_again(host, probe):
    plugin = probe(
        "@on_configure\nset_tick_period_milliseconds 5\n@on_tick\nset_effective_context $stream\ncontinue_stream 2\n"
        "@on_new_connection\nreturn 1\n@on_downstream_data\nreturn 1"
    )
    stream = host.tcp_stream([plugin])
    stream.new_connection()
    assert stream.downstream_data(b"early") == []
    assert plugin.tick() == [DownstreamData(b"", False, stream)]
    assert stream.established


def test_data_continued_by_a_callout_or_tick(host, probe):
    script = "@on_configure\nset_tick_period_milliseconds 5\n@on_tick\nset_effective_context $stream\ncontinue_stream 2\n@on_downstream_data\nreturn 1"
    plugin = probe(script)
    stream = host.tcp_stream([plugin])
    stream.new_connection()
    assert stream.downstream_data(b"held") == []
    assert plugin.tick() == [DownstreamData(b"held", False, stream)]


def test_a_filter_closes(host, probe):
    stream = host.tcp_stream([probe("@on_downstream_data\nclose_stream 2\nclose_stream 3\nreturn 1")])
    stream.new_connection()
    assert stream.downstream_data(b"x") == [CloseConnection("wasm_downstream_close", stream)]
    assert stream.downstream_data(b"y") == []


def test_a_trap_closes_the_connection(host, probe):
    plugin = probe("@on_upstream_data\ntrap")
    stream = host.tcp_stream([plugin])
    stream.new_connection()
    assert stream.upstream_data(b"x") == [CloseConnection("wasm_fail_stream", stream)]
    assert stream.failure is plugin.failure
    stream.close()


def test_a_trap_is_spared_under_spec_and_fail_open(host, probe):
    stream = host.tcp_stream([probe("@on_downstream_data\ntrap", profile="spec", failure_policy="fail_open")])
    stream.new_connection()
    assert stream.downstream_data(b"x") == [DownstreamData(b"x", False, stream)]


def test_properties(host, probe, log):
    script = "@on_new_connection\nget_property source%00address\nset_property mine 1\nget_property mine\nget_property nope\nget_property plugin_name"
    stream = host.tcp_stream([probe(script)], properties={"source.address": "192.0.2.1:5"})
    stream.new_connection()
    assert [line.partition(" = ")[2] for line in log.messages] == ['0 "192.0.2.1:5"', "0", '0 "1"', "1", '0 "probe"']


def test_data_before_the_connection_is_an_error_of_the_embedder(host, probe):
    with pytest.raises(RuntimeError, match="new_connection"):
        host.tcp_stream([probe()]).downstream_data(b"x")


def test_upstream_ends_after_the_connection_was_closed(host):
    plugin = host.load_plugin(code("rust/tcp"))
    stream = host.tcp_stream([plugin])
    stream.new_connection()
    stream.close()
    stream.upstream_data(b"", True)
    assert plugin.failure is None
