"""What a filter can make the host keep is bounded: what is beyond is refused in words, and what was there stays."""

from __future__ import annotations

import string
from dataclasses import replace

import pytest

from proxywasm_host import Host, Limits
from proxywasm_host.runtime.effects import RequestBody
from proxywasm_host.services import InMemoryMetrics, InMemorySharedData, InMemorySharedQueues
from tests.support import REQUEST

INTERNAL_FAILURE = 10


def statuses(log) -> list[int]:
    """Of the hostcalls since it was last asked."""
    return [int(line.rpartition(") = ")[2].split(" ")[0]) for line in log.take() if ") = " in line]


@pytest.fixture
def services(services):
    """Room for little."""
    return replace(
        services,
        shared_data=InMemorySharedData(5000),
        shared_queues=InMemorySharedQueues(5000),
        metrics=InMemoryMetrics(5000),
    )


SERVICES = {
    # a hostcall that is repeated, one that needs what the first has kept, one that gives room, and the one that was refused
    "shared data": ("set_shared_data {n} fill:x:500 0", "get_shared_data A", 'set_shared_data A "" 0', "the shared data of vm_id 'vm'"),
    "messages": ("enqueue_shared_queue 1 fill:x:500", "resolve_shared_queue vm q", "dequeue_shared_queue 1", "the shared queues of vm_id 'vm'"),
    "queues": ("register_shared_queue {n}", "resolve_shared_queue vm q", None, "the shared queues of vm_id 'vm'"),
    "metrics": ("define_metric 0 {n}xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx", "increment_metric 4 1", None, "the metrics"),
}


@pytest.mark.parametrize(("more", "still", "room", "what"), SERVICES.values(), ids=SERVICES)
def test_services(host: Host, probe, log, trace, more, still, room, what):
    calls = [more.format(n=letter) for letter in string.ascii_uppercase]
    script = "\n".join([*calls, still, *([room, calls[-1]] if room else [])])
    plugin = probe(f"@on_configure\nregister_shared_queue q\n@on_foreign_function\n{script}", vm_id="vm")
    log.take()
    trace.hostcalls.clear()
    plugin.foreign_function(0, b"")
    answers = statuses(log)
    kept = answers[:26].count(0)
    assert 0 < kept < 20
    assert answers[:26] == [0] * kept + [INTERNAL_FAILURE] * (26 - kept)
    assert answers[26:] == ([0, 0, 0] if room else [0])
    refused = next(call for call in trace.hostcalls if "INTERNAL_FAILURE" in call)
    assert f"{what} have " in refused
    assert refused.endswith("more would be beyond the limit of 5000")
    assert plugin.failure is None


STREAMS = {
    # a section, its hostcalls, and their answers
    "headers": (
        "on_request_headers",
        "repeat 1100\nadd_header_map_value 0 x v\nremove_header_map_value 0 x\nadd_header_map_value 0 x v",
        [0] * 1019 + [10] * 81 + [0, 0],
    ),
    "bytes of headers": (
        "on_request_headers",
        "repeat 12\nadd_header_map_value 0 x fill:v:100000\nreplace_header_map_value 0 x fill:v:100000\nadd_header_map_value 0 x fill:v:100000",
        [0] * 10 + [10] * 2 + [0, 0],
    ),
    "a header that others are joined to": (
        "on_request_headers",
        "repeat 120\nadd_header_map_value 0 accept fill:v:10000\nremove_header_map_value 0 accept\nadd_header_map_value 0 accept v",
        [0] * 104 + [10] * 16 + [0, 0],
    ),
    "trailers": ("on_request_body", "repeat 1030\nadd_header_map_value 1 x v", [0] * 1024 + [10] * 6),
    "a body": (
        "on_request_body",
        "repeat 18\nset_buffer_bytes 0 0xffffffff 0 fill:x:1000000\nset_buffer_bytes 0 0 16000000 short\nset_buffer_bytes 0 0 0 more",
        [0] * 16 + [10] * 2 + [0, 0],
    ),
    "properties": (
        "on_request_headers",
        "set_property a fill:v:600000\nset_property b fill:v:600000\nget_property a\nget_property b\nset_property a v\nset_property b fill:v:600000",
        [0, 10, 0, 1, 0, 0],
    ),
}


@pytest.mark.parametrize("version", ["0_1_0", "0_2_1", "0_2_100"])
@pytest.mark.parametrize(("section", "script", "answers"), STREAMS.values(), ids=STREAMS)
def test_streams(host, probe, log, version, section, script, answers):
    plugin = probe(f"@{section}\n{script}", version=version)
    with host.http_stream([plugin]) as stream:
        stream.request_headers(REQUEST)
        stream.request_body(b"a body", end_stream=True)
        assert statuses(log) == answers
    assert (plugin.failure, stream.reset_details) == (None, None)


def test_a_body_of_the_client_may_be_larger_than_what_a_filter_can_add(host, probe, log):
    plugin = probe("@on_request_body\nset_buffer_bytes 0 0 0 before\nrepeat 17\nset_buffer_bytes 0 0xffffffff 0 fill:x:1000000")
    body = b"b" * 20_000_000
    with host.http_stream([plugin]) as stream:
        stream.request_headers(REQUEST)
        (sent,) = [effect for effect in stream.request_body(body, end_stream=True) if isinstance(effect, RequestBody)]
    assert statuses(log) == [0] * 17 + [INTERNAL_FAILURE]
    assert sent.data == b"before" + body + b"x" * 16_000_000


@pytest.mark.parametrize(
    ("script", "answers"),
    [
        ("repeat 18\nset_buffer_bytes 2 0xffffffff 0 fill:x:1000000\nset_buffer_bytes 2 0 4 B", [0] * 16 + [10] * 2 + [0]),
        ("set_property a fill:v:600000\nset_property b fill:v:600000\nset_property a v\nset_property b fill:v:600000", [0, 10, 0, 0]),
    ],
    ids=["data", "properties"],
)
def test_tcp(host, probe, log, script, answers):
    connection = host.tcp_stream([probe(f"@on_downstream_data\n{script}")])
    connection.new_connection()
    connection.downstream_data(b"data")
    assert statuses(log) == answers
    connection.close()


def test_a_guest_cannot_have_more_held_back_than_its_own_memory(host, probe, log):
    script = "@on_request_headers\nset_property set_decoder_buffer_limit {}"
    limits = Limits(memory=64 << 20)
    for asked, got in ((4 << 20, 4 << 20), (1 << 30, 64 << 20)):
        with host.http_stream([probe(script.format(asked), version="0_2_100", limits=limits)]) as stream:
            stream.request_headers(REQUEST)
            assert stream.buffer_limit == got
    assert statuses(log) == [0, 0]
