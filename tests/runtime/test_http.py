"""HTTP streams: what the embedder may do, what it gets back, how long chains behave."""

from __future__ import annotations

import pytest

from proxywasm_host import Host, Services
from proxywasm_host.runtime.effects import RequestBody, RequestHeaders, ResponseBody, ResponseHeaders
from tests.support import REQUEST, RESPONSE, code


def kinds(effects) -> list[str]:
    return [type(effect).__name__ for effect in effects]


def test_events_out_of_order_are_errors_of_the_embedder(host, probe):
    stream = host.http_stream([probe()])
    with pytest.raises(RuntimeError, match="the request's headers must be given first"):
        stream.request_body(b"x")
    with pytest.raises(RuntimeError, match="the response's headers must be given first"):
        stream.response_trailers([])
    stream.request_headers(REQUEST, True)
    with pytest.raises(RuntimeError, match="the request's headers were given before"):
        stream.request_headers(REQUEST)
    with pytest.raises(RuntimeError, match="the request has ended before"):
        stream.request_body(b"x")
    stream.response_headers(RESPONSE)
    with pytest.raises(RuntimeError, match="the response's headers were given before"):
        stream.response_headers(RESPONSE)
    stream.response_trailers([])
    with pytest.raises(RuntimeError, match="the response has ended before"):
        stream.response_trailers([])


@pytest.mark.parametrize("owned", [False, True])
def test_a_list_that_is_handed_over_is_not_copied(host, probe, owned):
    request, response = list(REQUEST), list(RESPONSE)
    with host.http_stream([probe("@on_request_headers\nadd_header_map_value 0 a 1\n")]) as stream:
        [out] = stream.request_headers(request, True, owned=owned)
        assert ((b"a", b"1") in request, out.headers is request) == (owned, owned)
        [out] = stream.response_headers(response, True, owned=owned)
        assert (out.headers is response) is owned


@pytest.mark.parametrize(
    "headers", [{b":path": b"/"}, [(":path", "/")], [(b":path", "/")], [(b":path", None)], [b":path"], [(b"x", 1)]]
)
def test_headers_that_are_no_pairs_of_bytes(host, probe, headers):
    plugin = probe()
    with host.http_stream([plugin]) as stream, pytest.raises(TypeError, match="pairs of bytes"):
        stream.request_headers(headers)
    assert plugin.failure is None


def test_a_configuration_that_is_no_text(host):
    with pytest.raises(TypeError, match="text or bytes"):
        host.load_plugin(code("c/minimal"), configuration={"a": 1})


def test_after_close_nothing_happens(host, probe, trace):
    stream = host.http_stream([probe()])
    stream.request_headers(REQUEST)
    stream.close()
    trace.take()
    assert stream.request_body(b"x") + stream.response_headers(RESPONSE) + stream.close() == []
    assert trace.take() == []


def test_what_comes_from_upstream_after_a_local_response_is_ignored(host, probe):
    with host.http_stream([probe('@on_request_headers\nsend_local_response 403 d "" "" -1')]) as stream:
        stream.request_headers(REQUEST)
        assert stream.response_headers(RESPONSE) + stream.response_body(b"x") + stream.response_trailers([]) == []
        assert stream.request_body(b"x") + stream.request_trailers([]) == []


def test_the_embedders_headers_are_left_alone(host, probe):
    mine = list(REQUEST)
    with host.http_stream([probe("@on_request_headers\nadd_header_map_value 0 x y")]) as stream:
        stream.request_headers(mine, True)
    assert mine == REQUEST


def test_no_filter_at_all(host):
    with host.http_stream([]) as stream:
        assert stream.request_headers(REQUEST) == [RequestHeaders(REQUEST, False, stream)]
        assert stream.request_body(b"x", True) == [RequestBody(b"x", True, stream)]
        assert stream.response_headers(RESPONSE, True) == [ResponseHeaders(RESPONSE, True, stream)]


def test_each_filter_sees_what_the_one_before_it_changed(host, probe, log):
    one = probe(
        "@on_request_headers\nadd_header_map_value 0 x-one 1\n@on_response_headers\nget_header_map_value 2 x-two",
        vm_id="1",
    )
    two = probe(
        "@on_request_headers\nget_header_map_value 0 x-one\n@on_response_headers\nadd_header_map_value 2 x-two 2",
        vm_id="2",
    )
    with host.http_stream([one, two]) as stream:
        stream.request_headers(REQUEST, True)
        stream.response_headers(RESPONSE, True)
    assert [line for line in log.messages if line.startswith("get")] == [
        'get_header_map_value(0, x-one) = 0 "1"',
        'get_header_map_value(2, x-two) = 0 "2"',
    ]


def test_body_held_by_one_filter_reaches_the_next_as_one_chunk(host, probe, trace):
    one = probe("@on_request_body\nreturn 1\n@on_request_body/eos\nreturn 0", name="one", vm_id="1")
    two = probe("@on_request_body\nreturn 1\n@on_request_body/eos\nset_buffer_bytes 0 0 99 new", name="two", vm_id="2")
    with host.http_stream([one, two]) as stream:
        stream.request_headers(REQUEST)
        assert stream.request_body(b"aaa") == []
        effects = stream.request_body(b"bbb", True)
    assert effects == [RequestBody(b"new", True, stream)]
    assert [event for event in trace.take() if "body" in event] == [
        "one: proxy_on_request_body(3, 0)",
        "one: proxy_on_request_body(6, 1)",
        "two: proxy_on_request_body(6, 1)",
    ]


PAUSED = "@on_configure\nset_tick_period_milliseconds 5\n@on_tick\nset_effective_context $stream\ncontinue_stream {}\n"


def test_body_and_trailers_wait_for_headers_and_are_shown_to_the_filter_itself(host, probe, trace):
    plugin = probe(PAUSED.format(0) + "@on_request_headers\nreturn 1")
    with host.http_stream([plugin]) as stream:
        stream.request_headers(REQUEST)
        assert stream.request_body(b"abc") + stream.request_trailers([(b"t", b"1")]) == []
        assert stream.paused
        trace.take()
        assert kinds(plugin.tick()) == ["RequestHeaders", "RequestBody", "RequestTrailers"]
        assert not stream.paused
        assert trace.take() == [
            "probe: proxy_on_tick()",
            "probe: proxy_on_request_body(3, 0)",
            "probe: proxy_on_request_trailers(1,)",
        ]


def test_trailers_paused_and_resumed(host, probe):
    plugin = probe(PAUSED.format(0) + "@on_request_trailers\nreturn 1")
    with host.http_stream([plugin]) as stream:
        stream.request_headers(REQUEST)
        assert stream.request_trailers([(b"t", b"1")]) == []
        assert kinds(plugin.tick()) == ["RequestTrailers"]


def test_held_body_can_be_read_and_changed_from_elsewhere(host, probe, log):
    script = "@on_configure\nset_tick_period_milliseconds 5\n@on_tick\nset_effective_context $stream\nget_buffer_bytes 0 0 99\nset_buffer_bytes 0 0 99 changed\ncontinue_stream 0\n@on_request_body\nreturn 1"
    plugin = probe(script)
    with host.http_stream([plugin]) as stream:
        stream.request_headers(REQUEST)
        stream.request_body(b"held", True)
        effects = plugin.tick()
    assert effects == [RequestBody(b"changed", True, stream)]
    assert 'get_buffer_bytes(0, 0, 99) = 0 "held"' in log.messages


def test_a_body_that_is_held_grows_in_place(host, probe, log):
    """Else a body of n parts would be copied n times, each time as a whole."""
    plugin = probe(
        "@on_request_body/1\nreturn 1\n@on_request_body/2\nreturn 1\n@on_request_body\nget_buffer_bytes 0 0 100"
    )
    with host.http_stream([plugin]) as stream:
        stream.request_headers([(b":method", b"POST"), *REQUEST[:2], *REQUEST[3:]], False)
        assert stream.request_body(b"one ", False) == []
        held = stream._request.buffer
        assert stream.request_body(b"two ", False) == []
        assert stream._request.buffer is held
        [out] = stream.request_body(b"three", True)
        assert (out.data, out.end_stream) == (b"one two three", True)
    assert log.messages[-1] == 'get_buffer_bytes(0, 0, 100) = 0 "one two three"'


def test_response_resumed_later(host, probe):
    plugin = probe(PAUSED.format(1) + "@on_response_headers\nreturn 1")
    with host.http_stream([plugin]) as stream:
        stream.request_headers(REQUEST, True)
        assert stream.response_headers(RESPONSE) + stream.response_body(b"abc", True) == []
        assert plugin.tick() == [ResponseHeaders(RESPONSE, False, stream), ResponseBody(b"abc", True, stream)]


def test_a_stream_is_reset_if_a_local_response_comes_too_late(host, probe):
    with host.http_stream([probe('@on_response_body\nsend_local_response 500 late x "" -1')]) as stream:
        stream.request_headers(REQUEST, True)
        stream.response_headers(RESPONSE)
        assert kinds(stream.response_body(b"abc")) == ["ResetStream"]
        assert stream.response_body(b"more", True) == []
    assert stream.details == "late"


def test_a_second_local_response_on_the_way_of_the_first(host, probe):
    script = '@on_request_headers\nsend_local_response 403 first a "" -1\n@on_response_headers\nsend_local_response 500 second b "" -1'
    with host.http_stream([probe(script)]) as stream:
        effects = stream.request_headers(REQUEST, True)
    assert [effect.headers[0] for effect in effects[:1]] == [(b":status", b"500")]
    assert effects[1] == ResponseBody(b"b", True, stream)


def test_head_gets_no_body(host, probe):
    head = [pair if pair[0] != b":method" else (b":method", b"HEAD") for pair in REQUEST]
    with host.http_stream([probe('@on_request_headers\nsend_local_response 403 d body "" -1')]) as stream:
        effects = stream.request_headers(head, True)
    assert kinds(effects) == ["ResponseHeaders"]
    assert (b"content-length", b"4") in effects[0].headers


def test_a_trap_fails_other_streams_of_its_vm_and_no_others(host, probe):
    broken, sound = probe("@on_request_body\ntrap", vm_id="1"), probe("", vm_id="2")
    one, two, three = host.http_stream([broken]), host.http_stream([broken]), host.http_stream([sound])
    for stream in one, two, three:
        stream.request_headers(REQUEST)
    effects = one.request_body(b"x", True)
    assert {(type(effect).__name__, effect.stream) for effect in effects} == {
        ("ResponseHeaders", one),
        ("ResponseHeaders", two),
    }
    assert kinds(two.request_body(b"x", True)) == []
    assert kinds(three.request_body(b"x", True)) == ["RequestBody"]
    assert (one.failure, two.failure, three.failure) == (broken.failure, broken.failure, None)
    for stream in one, two, three:
        stream.close()


def test_contexts_go_with_their_streams(host, probe):
    plugin = probe()
    before = len(plugin._vm.contexts)
    for _ in range(100):
        with host.http_stream([plugin]) as stream:
            stream.request_headers(REQUEST, True)
    assert len(plugin._vm.contexts) == before


@pytest.mark.parametrize("callback", ["on_log", "on_done", "on_delete"])
def test_a_local_response_at_the_end_is_ignored(host, probe, callback):
    plugin = probe(f'@{callback}\nsend_local_response 500 d "" "" -1\ncontinue_stream 0\nclose_stream 1')
    stream = host.http_stream([plugin])
    stream.request_headers(REQUEST, True)
    stream.response_headers(RESPONSE, True)
    assert stream.close() == []
    assert (plugin.failure, stream.local) == (None, None)


def test_repeated_headers_of_which_there_is_one_are_joined_as_in_envoy(host, probe, log):
    repeated = [*REQUEST, (b"accept", b"1"), (b"x", b"1"), (b"accept", b"2"), (b"x", b"2")]
    with host.http_stream(
        [probe("@on_request_headers\nget_header_map_value 0 accept\nget_header_map_value 0 x")]
    ) as stream:
        stream.request_headers([list(pair) for pair in repeated], True)
    assert [line.partition(" = 0 ")[2] for line in log.messages] == ['"1,2"', '"1"']


def test_what_a_pause_holds_back_is_bounded_and_told(host, probe):
    stream = host.http_stream([probe("@on_request_headers\nreturn 1")], buffer_limit=1000)
    stream.request_headers(REQUEST)
    stream.request_body(b"x" * 1000)
    assert not stream.request_full
    stream.request_body(b"x")
    assert (stream.request_full, stream.response_full, stream.local) == (True, False, None)
    for _ in range(15):
        stream.request_body(b"x" * 1000)
    assert stream.local.status == 413
    stream.close()


def test_many_streams_resumed_at_once_do_not_nest(host, probe):
    """Each one's callback resumes the next."""
    script = """@on_configure
set_tick_period_milliseconds 5
@on_tick
set_effective_context 2
continue_stream 0
@on_request_headers
return 1
@on_request_body
set_effective_context $ctx+1
continue_stream 0"""
    plugin = probe(script)
    streams = [host.http_stream([plugin]) for _ in range(300)]
    for stream in streams:
        stream.request_headers(REQUEST)
        stream.request_body(b"x", True)
    assert kinds(plugin.tick()) == ["RequestHeaders", "RequestBody"] * 300
    for stream in streams:
        stream.close()


def test_an_event_fed_to_a_guest_that_runs_is_an_error(engine, log):
    """A foreign function of the embedder feeds another stream of the same VM."""
    inner = []

    def feed(arguments: bytes) -> bytes:
        stream = host.http_stream([plugin])
        try:
            stream.request_headers(REQUEST, True)
        except RuntimeError as error:
            inner.append(str(error))
        return b"done"

    services = Services(log=log, foreign_functions={"feed": feed})
    with Host(engine, services=services) as host:
        script = '@on_request_headers\ncall_foreign_function feed x\nget_header_map_value 0 :path\nsend_local_response 403 d "" "" -1'
        plugin = host.load_plugin(code("c/probe_0_2_1"), configuration=script)
        with host.http_stream([plugin]) as outer:
            outer.request_headers(REQUEST, True)
        assert outer.local.status == 403
    assert inner == ["an event was fed to a guest that runs: wait until the current event has returned"]
    assert log.messages[1] == 'get_header_map_value(0, :path) = 0 "/a?b=c"'


@pytest.mark.parametrize(
    ("path", "headers"),
    [
        ("response%00code", [(b":status", b"\xc2\xb2")]),
        ("request%00size", [(b"content-length", b"9" * 5000)]),
        ("response%00grpc_status", [(b":status", b"200"), (b"grpc-status", b"9" * 5000)]),
    ],
)
def test_a_number_that_is_none_fails_nobody(host, probe, log, path, headers):
    plugin = probe(f"@on_request_headers\nget_property {path}\n@on_response_headers\nget_property {path}")
    with host.http_stream([plugin]) as stream:
        stream.request_headers(REQUEST + (headers if path.startswith("request") else []), True)
        stream.response_headers(headers if path.startswith("response") else RESPONSE, True)
    assert plugin.failure is None
    assert log.messages[-1].endswith(("= 1", '"%00%00%00%00%00%00%00%00"'))


def test_a_request_that_a_filter_holds_may_be_as_large_as_the_limit(host, probe):
    with host.http_stream([probe("@on_request_body\nreturn 1")], buffer_limit=1000) as stream:
        stream.request_headers(REQUEST)
        assert stream.request_body(b"x" * 600) + stream.request_body(b"x" * 400) == []
        assert stream.local is None
        stream.request_body(b"x")
        assert stream.local.status == 413


def test_a_response_that_a_filter_holds_may_be_as_large_as_the_limit(host, probe):
    with host.http_stream([probe("@on_response_body\nreturn 1")], buffer_limit=1000) as stream:
        stream.request_headers(REQUEST, True)
        stream.response_headers(RESPONSE)
        assert stream.response_body(b"x" * 600) + stream.response_body(b"x" * 400) == []
        assert kinds(stream.response_body(b"x")) == ["ResetStream"]
        assert stream.reset_details == "response_payload_too_large"


def test_a_filter_that_asks_to_go_on_and_goes_on_resumes_none_behind_it(host, probe):
    first, second = (
        probe("@on_request_headers\ncontinue_stream 0"),
        probe("@on_request_headers\nreturn 1", name="second"),
    )
    with host.http_stream([first, second]) as stream:
        assert stream.request_headers(REQUEST, True) == []
        assert stream.waiting_for == "plugin 'second', which holds the request"


def test_trailers_that_a_filter_adds_end_the_body_for_those_behind_it(host, probe, trace):
    first, second = probe("@on_request_body\nadd_header_map_value 1 t v"), probe(name="second")
    with host.http_stream([first, second]) as stream:
        stream.request_headers(REQUEST)
        trace.take()
        effects = stream.request_body(b"abc", True)
        assert kinds(effects) == ["RequestBody", "RequestTrailers"]
        assert [effect.end_stream for effect in effects[:1]] == [False]
        assert trace.take() == [
            "probe: proxy_on_request_body(3, 1)",
            "second: proxy_on_request_body(3, 0)",
            "second: proxy_on_request_trailers(1,)",
        ]


def test_a_filter_that_was_given_the_end_gets_nothing_that_is_injected_later(host, probe, trace):
    inject = "@on_configure\nset_tick_period_milliseconds 5\n@on_tick\nset_effective_context 2\n"
    inner = probe(f"{inject}inject_encoded_data_to_filter_chain late 0", "0_2_100", vm_id="inner", name="inner")
    outer = probe("", "0_2_100", vm_id="outer", name="outer")
    with host.http_stream([outer, inner]) as stream:
        stream.request_headers(REQUEST, True)
        assert kinds(stream.response_headers(RESPONSE, True)) == ["ResponseHeaders"]
        trace.take()
        assert inner.tick() == []
        assert [event for event in trace.take() if event.startswith("outer")] == []


def test_the_first_failure_of_a_stream_is_its_failure(host, probe):
    early = probe("@on_configure\nset_tick_period_milliseconds 5\n@on_tick\ntrap", name="early", vm_id="early")
    late = probe("@on_request_headers\ntrap", name="late", vm_id="late")
    with host.http_stream([early, late]) as stream:
        assert kinds(stream.request_headers(REQUEST, True))[-1:] == ["ResponseHeaders"]
        early.tick()
        assert (early.failure is None, stream.failure.plugin) == (False, "late")


def test_foreign_functions_of_higress(host, probe, log):
    """`get_log_level`, `set_global_max_requests_per_io_cycle`, and the one that sends a part of the answer."""
    inject = "call_foreign_function inject_encoded_data_to_filter_chain_on_header %0a%03"
    log.level = 1
    plugin = probe(
        "@on_configure\ncall_foreign_function get_log_level x\n"
        "call_foreign_function set_global_max_requests_per_io_cycle %08%05\n"
        f"@on_response_headers\n{inject}one\n{inject}two%10%01\n{inject}new\n"
    )
    with host.http_stream([plugin]) as stream:
        stream.request_headers(REQUEST, True)
        effects = stream.response_headers(RESPONSE)
    assert [effect.data for effect in effects if isinstance(effect, ResponseBody)] == [b"one", b"two"]
    assert [message.partition("(")[2] for message in log.messages[:3]] == [
        'get_log_level, x) = 0 "%01%00%00%00"',
        'set_global_max_requests_per_io_cycle, %08%05) = 0 ""',
        'inject_encoded_data_to_filter_chain_on_header, %0a%03one) = 0 ""',
    ]


def test_trailers_after_an_injected_end_go_nowhere(host, probe):
    plugin = probe("@on_response_headers\ninject_encoded_data_to_filter_chain bye 1", "0_2_100")
    with host.http_stream([plugin]) as stream:
        stream.request_headers(REQUEST, True)
        effects = stream.response_headers(RESPONSE)
        assert [(kind, effect.end_stream) for kind, effect in zip(kinds(effects), effects, strict=True)] == [
            ("ResponseHeaders", False),
            ("ResponseBody", True),
        ]
        assert stream.response_trailers([(b"t", b"v")]) == []
