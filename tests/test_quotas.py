"""What a filter can make the host keep is bounded: what is beyond is refused in words, and what was there stays."""

from __future__ import annotations

import string
from contextlib import nullcontext
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxywasm_host import Host, Limits, Services
from proxywasm_host.runtime.effects import (
    Callout,
    CalloutFailed,
    CloseConnection,
    GrpcCallReply,
    GrpcClosed,
    HttpCallReply,
    RedisCallReply,
    RequestBody,
    ResponseBody,
)
from proxywasm_host.runtime.root import size_of
from proxywasm_host.services import InMemoryMetrics, InMemorySharedData, InMemorySharedQueues, QuotaExceeded
from tests.support import REQUEST, RESPONSE, Lines, code

BAD_ARGUMENT, INTERNAL_FAILURE = 2, 10


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
    "shared data": (
        "set_shared_data {n} fill:x:500 0",
        "get_shared_data A",
        'set_shared_data A "" 0',
        "the shared data of vm_id 'vm'",
    ),
    "messages": (
        "enqueue_shared_queue 1 fill:x:500",
        "resolve_shared_queue vm q",
        "dequeue_shared_queue 1",
        "the shared queues of vm_id 'vm'",
    ),
    "queues": ("register_shared_queue {n}", "resolve_shared_queue vm q", None, "the shared queues of vm_id 'vm'"),
    "metrics": (
        "define_metric 0 {n}xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx",
        "increment_metric 4 1",
        None,
        "the metrics",
    ),
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


def test_expressions(host: Host, probe, log, trace):
    create = f"call_foreign_function expr_create fill:{'1&&'}:4000"
    plugin = probe(f"@on_foreign_function\nrepeat 6\n{create}\ncall_foreign_function expr_delete %00%00%00%00\n{create}\n")
    log.take()
    trace.hostcalls.clear()
    plugin.foreign_function(0, b"")
    assert statuses(log) == [0] * 5 + [INTERNAL_FAILURE, 0, 0]
    refused = next(call for call in trace.hostcalls if "INTERNAL_FAILURE" in call)
    assert "the expressions of this plugin have " in refused


STREAMS = {
    # a section, its hostcalls, and their answers
    "headers": (
        "on_request_headers",
        "repeat 1100\nadd_header_map_value 0 x v\nremove_header_map_value 0 x\nadd_header_map_value 0 x v",
        [0] * 1024 + [10] * 76 + [0, 0],
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
    plugin = probe(
        "@on_request_body\nset_buffer_bytes 0 0 0 before\nrepeat 17\nset_buffer_bytes 0 0xffffffff 0 fill:x:1000000"
    )
    body = b"b" * 20_000_000
    with host.http_stream([plugin]) as stream:
        stream.request_headers(REQUEST)
        (sent,) = [effect for effect in stream.request_body(body, end_stream=True) if isinstance(effect, RequestBody)]
    assert statuses(log) == [0] * 17 + [INTERNAL_FAILURE]
    assert sent.data == b"before" + body + b"x" * 16_000_000


def test_a_filter_may_write_a_body_of_64_mib(host, probe, log):
    size = 64 << 20
    plugin = probe(
        "@on_configure\ngrow 1100\n@on_request_body\n"
        f"set_buffer_bytes 0 0 1000 at:100000:{size + 1}\nset_buffer_bytes 0 0 1000 at:100000:{size}"
    )
    with host.http_stream([plugin], buffer_limit=4 << 20) as stream:
        stream.request_headers(REQUEST)
        log.take()
        (sent,) = [effect for effect in stream.request_body(b"body", end_stream=True) if isinstance(effect, RequestBody)]
    assert statuses(log) == [BAD_ARGUMENT, 0]
    assert len(sent.data) == size


@pytest.mark.parametrize(
    ("script", "answers"),
    [
        (
            "repeat 18\nset_buffer_bytes 2 0xffffffff 0 fill:x:1000000\nset_buffer_bytes 2 0 4 B",
            [0] * 16 + [10] * 2 + [0],
        ),
        (
            "set_property a fill:v:600000\nset_property b fill:v:600000\nset_property a v\nset_property b fill:v:600000",
            [0, 10, 0, 0],
        ),
    ],
    ids=["data", "properties"],
)
def test_tcp(host, probe, log, script, answers):
    connection = host.tcp_stream([probe(f"@on_downstream_data\n{script}")])
    connection.new_connection()
    connection.downstream_data(b"data")
    assert statuses(log) == answers
    connection.close()


@pytest.mark.parametrize("pauses", ["on_new_connection", "on_downstream_data"])
def test_tcp_data_that_a_filter_holds_for_ever(host, probe, pauses):
    plugin = probe(f"@{pauses}\nreturn 1")
    connection = host.tcp_stream([plugin], buffer_limit=1000)
    connection.new_connection()
    full = []
    while connection.close_details is None:
        effects = connection.downstream_data(b"x" * 500)
        full.append(connection.downstream_full)
    assert full == [False] * 2 + [True] * 31
    assert (connection.close_details, connection.upstream_full) == ("wasm_buffer_overflow", False)
    assert [effect for effect in effects if isinstance(effect, CloseConnection)]
    assert connection.downstream_data(b"more") == []
    connection.close()


def test_a_guest_cannot_have_more_held_back_than_its_own_memory(host, probe, log):
    script = "@on_request_headers\nset_property set_decoder_buffer_limit {}"
    limits = Limits(memory=64 << 20)
    for asked, got in ((4 << 20, 4 << 20), (1 << 30, 64 << 20)):
        with host.http_stream([probe(script.format(asked), version="0_2_100", limits=limits)]) as stream:
            stream.request_headers(REQUEST)
            assert stream.buffer_limit == got
    assert statuses(log) == [0, 0]


CALL = ":method=GET&:path=/&:authority=x"
HTTP = f'http_call upstream {CALL} fill:x:100000 "" 0'
MEMORY = 2 << 20
"""Of the guest, and as much for what it makes the host keep."""
EVENTS = {
    # version, calls, about how many of them there is room for in one event, and whether that is so in the next one
    "HTTP callouts": ("0_2_1", f'http_call upstream {CALL} fill:x:100000 "" 0', 18, False),
    "small HTTP callouts": ("0_2_1", f'http_call upstream {CALL} "" "" 0', 120, False),
    "gRPC calls": ("0_2_1", 'grpc_call upstream s m "" fill:x:100000 0', 18, False),
    "gRPC streams": ("0_2_1", 'grpc_stream upstream s m ""', 123, False),
    "messages": ("0_2_1", "grpc_send 6 fill:x:100000 0", 20, True),
    "gRPC calls that are cancelled": ("0_2_1", 'grpc_call upstream s m "" "" 0\ngrpc_cancel $token', 120, True),
    "Redis commands": ("0_2_100", "redis_call upstream fill:x:100000", 18, False),
    "local responses": ("0_2_1", 'send_local_response 200 "" fill:x:100000 "" 0', 20, True),
    "headers of local responses": (
        "0_2_1",
        'send_local_response 200 "" "" a=b&c=d&e=f&g=h&i=j&k=l&m=n&o=p 0',
        1340,
        True,
    ),
    "to continue": ("0_2_1", "continue_stream 0", 4096, True),
    "to continue, in an old version": ("0_1_0", "continue_request", 4096, True),
    "to close": ("0_2_1", "close_stream 0", 4096, True),
    "to choose the route again": ("0_1_0", "clear_route_cache", 4096, True),
    "to choose it again, in a new version": ("0_2_1", 'call_foreign_function clear_route_cache ""', 4096, True),
    "hosts": ("0_2_100", "set_upstream_override_host fill:x:10000", 199, True),
    "ticks": ("0_2_1", "set_tick_period_milliseconds 1\nset_tick_period_milliseconds 2", 2048, True),
}


@pytest.mark.parametrize(("version", "calls", "about", "taken"), EVENTS.values(), ids=EVENTS)
def test_what_one_event_can_bring_about(host, probe, log, trace, version, calls, about, taken):
    times = about * 11 // 10
    repeated = f"repeat {times}\n{calls}" if "\n" not in calls else f"{calls}\n" * times
    plugin = probe(f"{STARTS[version]}\n@on_request_headers\n{repeated}", version=version, limits=Limits(memory=MEMORY))
    host.drain()
    log.take()
    for number in range(2):
        trace.hostcalls.clear()
        with host.http_stream([plugin]) as stream:
            stream.request_headers(REQUEST)
            answers = statuses(log)
        assert len(answers) == times * len(calls.splitlines())
        done = [*answers, INTERNAL_FAILURE].index(INTERNAL_FAILURE) // len(calls.splitlines())
        assert about * 9 // 10 < done < times if taken or not number else done == 0
        refused = next(call for call in trace.hostcalls if "INTERNAL_FAILURE" in call)
        assert "effects of this VM that have not been taken" in refused or (
            not taken and "unfinished callouts and streams" in refused
        )
        assert refused.endswith(f"more would be beyond the limit of {MEMORY}")
    assert plugin.failure is None


STARTS = {
    "0_1_0": "",
    "0_2_1": '@on_configure\ngrpc_stream upstream s m ""',
    "0_2_100": '@on_configure\nredis_init upstream "" "" 0',
}


@pytest.mark.parametrize(
    ("version", "call", "reply"),
    [
        ("0_2_1", f'http_call upstream {CALL} fill:x:1000000 "" 0', HttpCallReply([])),
        ("0_2_1", 'grpc_call upstream s m "" fill:x:1000000 0', GrpcCallReply(b"")),
        ("0_2_1", "grpc_stream upstream fill:s:65000 fill:m:65000 \"\"", CalloutFailed("reset")),
        ("0_2_100", "redis_call upstream fill:x:1000000", RedisCallReply(b"")),
    ],
    ids=["http", "grpc", "grpc stream", "redis"],
)
def test_what_a_callout_took_is_there_again_when_it_has_ended(host, probe, log, version, call, reply):
    start = STARTS[version] if "redis" in call else ""
    plugin = probe(f"{start}\n@on_tick\n{call}", version=version, limits=Limits(memory=MEMORY << 1))
    room = 4 if "1000000" in call else 28
    callouts = []
    host.drain()
    log.take()
    plugin._root.tick_period = 1
    for _ in range(room + 2):
        callouts += [effect for effect in plugin.tick() if isinstance(effect, Callout)]
    assert statuses(log) == [0] * room + [10, 10]
    for callout in callouts[0], callouts[2]:
        host.deliver(callout, reply)
    with nullcontext() if "grpc_stream" in call else pytest.raises(RuntimeError, match="a callout is answered once"):
        host.deliver(callouts[0], reply)  # a second reply gives nothing
    for _ in range(4):
        plugin.tick()
    assert statuses(log) == [0, 0, 10, 10]
    plugin.close()
    assert plugin._vm.unfinished_quota.used == 0


class Few(dict):
    """Clusters as `driver.clusters` has them, which say how many callouts there may be."""

    class Cluster:
        max_callouts = 3


@pytest.mark.parametrize(
    ("version", "start", "call", "reply"),
    [
        ("0_2_1", "", f'http_call {{}} {CALL} "" "" 0', HttpCallReply([])),
        ("0_2_1", "", 'grpc_call {} s m "" "" 0', GrpcCallReply(b"")),
        ("0_2_1", "", 'grpc_stream {} s m ""', CalloutFailed("reset")),
        ("0_2_100", 'redis_init a "" "" 0\nredis_init b "" "" 0\n', "redis_call {} q", RedisCallReply(b"")),
    ],
    ids=["http", "grpc", "grpc stream", "redis"],
)
def test_callouts_to_one_cluster(engine, log, version, start, call, reply):
    """As many of a plugin as the cluster says may be under way; those to others are not counted, nor what has ended."""
    clusters = Few(a=Few.Cluster(), b=Few.Cluster())
    with Host(engine, services=Services(log=log, clusters=clusters)) as host:
        script = f"{start}@on_tick\nrepeat 5\n{call.format('a')}\nrepeat 2\n{call.format('b')}"
        plugin = host.load_plugin(code(f"c/probe_{version}"), configuration="@on_configure\n" + script)
        host.drain()
        log.take()
        plugin._root.tick_period = 1
        callouts = [effect for effect in plugin.tick() if isinstance(effect, Callout)]
        assert statuses(log) == [0, 0, 0, 10, 10, 0, 0]
        host.deliver(callouts[1], reply)
        log.take()
        plugin.tick()
        assert statuses(log) == [0, 10, 10, 10, 10, 0, 10]
        plugin.close()


def test_callouts_where_the_cluster_does_not_say(host, probe, log):
    plugin = probe(f'@on_tick\nrepeat 300\nhttp_call upstream {CALL} "" "" 0')
    plugin._root.tick_period = 1
    log.take()
    plugin.tick()
    assert statuses(log) == [0] * 256 + [10] * 44


def test_injected_data(host, probe, log):
    script = "@on_response_headers\nrepeat 30\ninject_encoded_data_to_filter_chain fill:x:100000 0"
    with host.http_stream([probe(script, version="0_2_100", limits=Limits(memory=MEMORY))]) as stream:
        stream.request_headers(REQUEST, True)
        effects = stream.response_headers(RESPONSE)
    assert statuses(log) == [0] * 20 + [10] * 10
    assert [len(effect.data) for effect in effects if isinstance(effect, ResponseBody)] == [100_000] * 20


def test_what_one_vm_has_others_have_too(host, probe, log):
    greedy = probe("@on_request_headers\nrepeat 5000\ncontinue_stream 0", limits=Limits(memory=MEMORY), vm_id="greedy")
    modest = probe(
        f'@on_request_headers\nhttp_call upstream {CALL} "" "" 0', limits=Limits(memory=MEMORY), vm_id="modest"
    )
    with host.http_stream([greedy, modest]) as stream:
        stream.request_headers(REQUEST)
    answers = statuses(log)
    assert (answers[4999], answers[5000:]) == (10, [0])


def test_streams_that_are_never_done_are_not_all_waited_for(host, probe, trace):
    plugin = probe(
        "@on_done\nreturn 0\n@on_tick\nset_effective_context 2\ndone", profile="spec", limits=Limits(memory=MEMORY)
    )
    plugin._root.tick_period = 1
    streams = []

    def one_more() -> int:
        """How many wait then."""
        streams.append(host.http_stream([plugin]))
        streams[-1].request_headers([*REQUEST, (b"x", b"v" * 30_000)], True)
        streams[-1].close()
        return len(plugin._vm.contexts) - 2

    waiting = [one_more() for _ in range(100)]
    most = waiting[-1]
    assert 30 < most < 60
    assert waiting == [*range(1, most), *[most] * (101 - most)]
    assert sum("on_delete" in event for event in trace.events) == 100 - most
    plugin.tick()
    assert len(plugin._vm.contexts) - 2 == most - 1
    assert (one_more(), one_more()) == (most, most)


ACTIONS = st.lists(
    st.sampled_from(
        [
            "http",
            "http",
            "grpc",
            "stream",
            "stream",
            "redis",
            "send",
            "close",
            "cancel",
            "reply",
            "end",
            "take",
            "client",
        ]
    )
    | st.integers(0, 5),
    max_size=60,
)


@given(ACTIONS)
def test_what_is_taken_is_given_back(actions):
    """Any order of callouts, replies and cancellations: what is noted is what the callouts under way cost."""
    with Host(services=Services(log=Lines(), clusters={"upstream"}), limits=Limits(memory=MEMORY)) as host:
        root = host.load_plugin(code("c/probe_0_2_1"))._root
        room, chosen = root.vm.unfinished_quota, 0
        for action in actions:
            if isinstance(action, int):
                chosen = action
                continue
            under_way = list(root._callouts.values())
            callout = under_way[chosen % len(under_way)][0] if under_way else None
            before, data = room.used, bytes(chosen * 100_000)
            calls = {
                "http": lambda data=data: root.http_call("upstream", [], data, [], 0),
                "grpc": lambda data=data: root.grpc_call(b"upstream", b"s", b"m", [], data, 0),
                "stream": lambda data=data: root.grpc_stream(b"upstream", data, b"m", []),
                "redis": lambda data=data: root.redis_call("upstream", data),
                "client": lambda data=data: root.redis_init("upstream", data, b"", 0, {}),
                "send": lambda data=data, callout=callout: callout and root.grpc_send(callout.token, data, False),
                "close": lambda callout=callout: callout and root.grpc_close(callout.token),
                "cancel": lambda callout=callout: callout and root.grpc_cancel(callout.token),
                "reply": lambda callout=callout: callout and host.deliver(callout, REPLIES[type(callout).__name__]),
                "end": lambda callout=callout: callout and host.deliver(callout, CalloutFailed("reset")),
                "take": host.drain,
            }
            try:
                calls[action]()
            except QuotaExceeded:
                assert room.used == before
                assert action not in ("reply", "end", "take")
            clients = sum(map(size_of, root._redis.values()))
            assert room.used == clients + sum(cost for _, cost in root._callouts.values()) <= MEMORY
        root.drop()
        assert room.used == 0


REPLIES = {
    "HttpCall": HttpCallReply([]),
    "GrpcCall": GrpcCallReply(b""),
    "GrpcStream": GrpcClosed(0, ""),
    "RedisCall": RedisCallReply(b""),
}
