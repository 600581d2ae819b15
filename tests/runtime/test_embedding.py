"""What an embedder sees of filters in a stream without a listener, and what is refused with what to write instead."""

from __future__ import annotations

import pytest

from proxywasm_host import Host, Limits
from proxywasm_host.abi.types import Action, DataAction, HeadersAction
from proxywasm_host.runtime.effects import (
    CalloutFailed,
    GrpcCall,
    GrpcCallReply,
    GrpcClosed,
    GrpcMessage,
    GrpcStream,
    HttpCall,
    HttpCallReply,
    RedisCall,
    RedisCallReply,
    RequestHeaders,
    ResponseHeaders,
)
from tests.support import REQUEST, RESPONSE

# -- Filters of a stream ---------------------------------------------------------------------------------------------


def test_ids_and_plugins_in_the_order_of_the_request(host, probe, trace):
    one, two = probe("", name="one", vm_id="1"), probe("", name="two", vm_id="2")
    with host.http_stream([one, two]) as stream:
        seen = []
        trace.callback = lambda context, _, args: seen.append((context.name, args[0]))
        stream.request_headers(REQUEST, True)
        assert [filter.plugin for filter in stream.filters] == [one, two]
        assert {(filter.plugin.name, filter.context_id) for filter in stream.filters} == set(seen)


def test_a_filter_whose_local_response_took_the_place_of_the_response(host, probe):
    answers = probe('@on_response_headers\nsend_local_response 418 "" "" "" -1\nreturn 1')
    with host.http_stream([answers]) as stream:
        stream.request_headers(REQUEST, True)
        stream.response_headers(RESPONSE, True)
        assert stream.local.status == 418
        assert [filter.response.holds for filter in stream.filters] == [False]


@pytest.mark.parametrize("listens", [True, False])
def test_what_a_filter_returned_and_what_it_holds(host, probe, listens):
    holds = probe(
        "@on_request_headers\nadd_header_map_value 0 x-a 1\nreturn 1\n@on_response_headers\nreturn 1",
        name="holds", vm_id="1", allow_on_headers_stop_iteration=True,
    )  # fmt: skip
    behind = probe("", name="behind", vm_id="2")
    if not listens:
        host.listen(None)
    with host.http_stream([holds, behind]) as stream:
        before = stream.filters
        assert [filter.request.action for filter in before] == [None, None]
        assert [filter.request.holds for filter in before] == [False, False]
        stream.request_headers(REQUEST)
        first, second = stream.filters
        assert (first.request.action, first.request.holds) == (HeadersAction.STOP_ITERATION, True)
        assert first.request.headers == [*REQUEST, (b"x-a", b"1")]
        assert (second.request.action, second.request.holds, second.request.headers) == (None, False, None)
        assert (first.response.action, first.response.holds) == (None, False)
        stream.request_body(b"body", True)
        assert stream.filters[0].request.action is DataAction.CONTINUE
        assert [filter.request.holds for filter in stream.filters] == [False, False]
        assert stream.filters[1].request.action is DataAction.CONTINUE
        stream.response_headers(RESPONSE, True)
        first, second = stream.filters
        assert (second.response.action, second.response.holds) == (HeadersAction.CONTINUE, False)
        assert (first.response.action, first.response.holds, first.response.headers) == (
            HeadersAction.STOP_ITERATION,
            True,
            RESPONSE,
        )


def test_a_body_and_trailers_that_are_held(host, probe):
    with host.http_stream([probe("@on_request_body\nreturn 1\n@on_request_trailers\nreturn 1")]) as stream:
        stream.request_headers(REQUEST)
        stream.request_body(b"abc")
        [filter] = stream.filters
        assert (filter.request.action, filter.request.holds, filter.request.body) == (
            DataAction.STOP_ITERATION_AND_BUFFER,
            True,
            b"abc",
        )
        assert filter.request.headers is None  # they have gone on
        stream.request_trailers([(b"t", b"1")])
        [filter] = stream.filters
        assert (filter.request.action, filter.request.trailers) == (Action.PAUSE, [(b"t", b"1")])


def test_what_is_seen_is_a_copy(host, probe):
    with host.http_stream([probe("@on_request_headers\nreturn 4")]) as stream:
        stream.request_headers(REQUEST, True)
        stream.filters[0].request.headers.clear()
        assert stream.filters[0].request.headers == REQUEST


@pytest.mark.parametrize(
    ("script", "action"),
    [
        ("return 0", HeadersAction.CONTINUE),
        ("return 4", HeadersAction.STOP_ALL_ITERATION_AND_WATERMARK),
        ("return 77", 77),
        ('send_local_response 403 "" "" "" -1\nreturn 1', None),
        ("trap", None),
    ],
)
def test_actions(host, probe, script, action):
    with host.http_stream([probe(f"@on_request_headers\n{script}")]) as stream:
        stream.request_headers(REQUEST, True)
        assert stream.filters[0].request.action == action
        assert stream.filters[0].request.action.__class__ is action.__class__


def test_after_the_end_ids_are_still_there(host, probe):
    plugin = probe("@on_request_headers\nreturn 1")
    with host.http_stream([plugin]) as stream:
        stream.request_headers(REQUEST, True)
        [open] = stream.filters
    [closed] = stream.filters
    assert closed == open
    assert (closed.request.holds, closed.request.headers) == (False, None)


def test_filters_of_a_connection(host, probe):
    one, two = probe("", name="one", vm_id="1"), probe("@on_downstream_data\nreturn 1", name="two", vm_id="2")
    stream = host.tcp_stream([one, two])
    stream.new_connection()
    assert [(filter.plugin, filter.downstream, filter.upstream) for filter in stream.filters] == [
        (one, None, None),
        (two, None, None),
    ]
    assert [filter.context_id in filter.plugin._vm.contexts for filter in stream.filters] == [True, True]
    stream.downstream_data(b"abc")
    assert [(filter.downstream, filter.upstream) for filter in stream.filters] == [(None, None), (b"abc", None)]
    stream.close()


# -- The router ------------------------------------------------------------------------------------------------------

REMOVED = [":method", ":path"]


def test_without_a_router_headers_come_out_as_filters_left_them(host, probe):
    script = "\n".join(["@on_request_headers", *(f"remove_header_map_value 0 {name}" for name in REMOVED)])
    plugin = probe(script + "\n@on_response_headers\nremove_header_map_value 2 :status")
    with host.http_stream([plugin], router=False) as stream:
        left = [pair for pair in REQUEST if pair[0].decode() not in REMOVED]
        assert stream.request_headers(REQUEST, True) == [RequestHeaders(left, True, stream)]
        assert stream.response_headers(RESPONSE, True) == [ResponseHeaders(RESPONSE[1:], True, stream)]
    with host.http_stream([probe(script)], router=True) as stream:
        assert dict(stream.request_headers(REQUEST, True)[0].headers)[b":status"] == b"404"


# -- What is refused -------------------------------------------------------------------------------------------------


def test_a_plugin_of_another_host(host, probe, engine):
    with Host(engine) as other:
        for make in other.http_stream, other.tcp_stream:
            for chain in ([probe(name="strange")], (probe(name="strange"),)):
                with pytest.raises(ValueError) as refused:
                    make(chain)
                assert str(refused.value) == (
                    "<Plugin 'strange' running> is another host's: load it into this one, with host.load_plugin(…)"
                )


HEADERS = {
    "upper case": ([(b"X-Up", b"1")], ValueError, "names of headers are in lower case: write b'x-up', not b'X-Up'"),
    "text": ([("a", "b")], TypeError, "headers are (name, value) pairs of bytes, not ('a', 'b'): write (b'a', b'b')"),
    "a dict": ({b"a": b"b"}, TypeError, "headers are (name, value) pairs of bytes, not b'a': write list(headers.items())"),
    "three": ([(b"a", b"b", b"c")], TypeError, "headers are (name, value) pairs of bytes, not (b'a', b'b', b'c')"),
    "a number": ([(b"a", 1)], TypeError, "headers are (name, value) pairs of bytes, not (b'a', 1)"),
}


@pytest.mark.parametrize("at", [0, 2, 5])
@pytest.mark.parametrize(("wrong", "kind", "says"), HEADERS.values(), ids=HEADERS)
def test_headers(host, probe, wrong, kind, says, at):
    plugin = probe()

    def odd(right):
        return wrong if isinstance(wrong, dict) else right[:at] + wrong + right[at:]

    with host.http_stream([plugin]) as stream:
        with pytest.raises(kind) as refused:
            stream.request_headers(odd(REQUEST))
        assert str(refused.value) == says
        stream.request_headers(REQUEST)  # and nothing has begun
        with pytest.raises(kind):
            stream.request_trailers(odd([(b"t", b"u")]))
        stream.request_trailers([(b"t", b"u")])
        with pytest.raises(kind):
            stream.response_headers(odd(RESPONSE))


BODIES = {
    "text": ("hello", "a body is bytes, not text: write 'hello'.encode()"),
    "long text": ("x" * 1000, f"a body is bytes, not text: write 'x{'x' * 19}'….encode()"),
    "nothing": (None, "a body is bytes, not None"),
    "numbers": ([1, 2], "a body is bytes, not [1, 2]"),
}


@pytest.mark.parametrize(("body", "says"), BODIES.values(), ids=BODIES)
def test_bodies(host, probe, body, says):
    plugin = probe()
    connection = host.tcp_stream([plugin])
    connection.new_connection()
    with host.http_stream([plugin]) as stream:
        stream.request_headers(REQUEST)
        feeds = [stream.request_body, connection.downstream_data, connection.upstream_data]
        for feed in feeds:
            with pytest.raises(TypeError) as refused:
                feed(body)
            assert str(refused.value) == says
        assert stream.request_body(memoryview(b"taken"))[0].data == b"taken"
        assert connection.downstream_data(bytearray(b"taken"))[0].data == b"taken"
    connection.close()


@pytest.mark.parametrize(
    ("limits", "kind", "says"),
    [
        ({"memory": "64MiB"}, TypeError, "memory of Limits is a number of bytes, such as 64 << 20, or None, not '64MiB'"),
        ({"memory": 1.5}, TypeError, "memory of Limits is a number of bytes, such as 64 << 20, or None, not 1.5"),
        ({"memory": True}, TypeError, "memory of Limits is a number of bytes, such as 64 << 20, or None, not True"),
        ({"memory": -1}, ValueError, "memory of Limits is -1 bytes, which is less than 0; None is no limit"),
        ({"deadline": "1s"}, TypeError, "deadline of Limits is a number of seconds, such as 0.5, or None, not '1s'"),
        ({"deadline": -1}, ValueError, "deadline of Limits is -1 seconds: give a number from 0 on, or None"),
        ({"deadline": float("nan")}, ValueError, "deadline of Limits is nan seconds: give a number from 0 on, or None"),
        ({"deadline": float("inf")}, ValueError, "deadline of Limits is inf seconds: give a number from 0 on, or None"),
    ],
)
def test_limits(limits, kind, says):
    with pytest.raises(kind) as refused:
        Limits(**limits)
    assert str(refused.value) == says


def test_limits_that_are_some():
    assert Limits(memory=64 << 20, deadline=1) == Limits(64 << 20, 1.0)
    assert Limits() == Limits(None, None)


# -- Replies ---------------------------------------------------------------------------------------------------------

CALLS = {
    "http": ('http_call upstream :method=GET&:path=/&:authority=x "" "" 5', HttpCall, [HttpCallReply([])]),
    "http that failed": ('http_call upstream :method=GET&:path=/&:authority=x "" "" 5', HttpCall, [CalloutFailed()]),
    "redis": ('redis_init upstream "" "" 5\nredis_call upstream PING', RedisCall, [RedisCallReply(b"+PONG")]),
    "grpc": ("grpc_call upstream s m '' x 5".replace("''", '""'), GrpcCall, [GrpcCallReply(b"x")]),
}


@pytest.mark.parametrize(("script", "kind", "replies"), CALLS.values(), ids=CALLS)
def test_a_callout_is_answered_once(host, probe, script, kind, replies):
    with host.http_stream([probe(f"@on_request_headers\n{script}\nreturn 1", version="0_2_100")]) as stream:
        [call] = [effect for effect in stream.request_headers(REQUEST, True) if isinstance(effect, kind)]
        for reply in replies:
            host.deliver(call, reply)
        with pytest.raises(RuntimeError) as refused:
            host.deliver(call, replies[-1])
    assert str(refused.value) == (
        f"{kind.__name__} {call.token} to 'upstream' has got its reply: a callout is answered once"
    )


def test_what_comes_after_the_end_of_a_grpc_stream_is_dropped(host, probe, log):
    script = '@on_request_headers\ngrpc_stream upstream s m ""\nreturn 1\n@on_grpc_close\nsay closed'
    with host.http_stream([probe(script)]) as stream:
        [call] = [effect for effect in stream.request_headers(REQUEST, True) if isinstance(effect, GrpcStream)]
        log.take()
        for reply in GrpcMessage(b"1"), GrpcMessage(b"2"), GrpcClosed(0), CalloutFailed():
            assert host.deliver(call, reply) == []
    assert log.take() == ["closed"]


@pytest.mark.parametrize("policy", ["fail_closed", "fail_open"])
def test_a_reply_that_comes_late_is_dropped(host, probe, policy):
    """The guest has failed meanwhile: whoever made the callout cannot know."""
    script = '@on_request_headers\nhttp_call upstream :method=GET&:path=/&:authority=x "" "" 5\nreturn 1\n@on_tick\ntrap'
    plugin = probe("@on_configure\nset_tick_period_milliseconds 5\n" + script, failure_policy=policy)
    with host.http_stream([plugin]) as stream:
        [call] = [effect for effect in stream.request_headers(REQUEST, True) if isinstance(effect, HttpCall)]
        plugin.tick()
        assert host.deliver(call, HttpCallReply([])) == []
        assert host.deliver(call, HttpCallReply([])) == []
