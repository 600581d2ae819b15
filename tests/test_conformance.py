"""The conformance list: what a Proxy-Wasm host must do, item by item, as a script of the probe and what it logs.

Numbers are those of the project's list of behaviours; where Envoy 1.40 was seen to do otherwise than the list says, the
test shows what Envoy does, and the profile ``spec`` what the list says.
"""

from __future__ import annotations

import pytest

from proxywasm_host import Host, Limits, ModuleError, PluginError, Services
from proxywasm_host.runtime.effects import (
    CalloutFailed,
    DownstreamData,
    GrpcCall,
    GrpcCallReply,
    GrpcClosed,
    GrpcInitialMetadata,
    GrpcMessage,
    GrpcStream,
    GrpcTrailingMetadata,
    HttpCall,
    HttpCallReply,
    QueueReady,
    RequestBody,
    RequestHeaders,
    RequestTrailers,
    ResetStream,
    ResponseBody,
    ResponseHeaders,
    ResponseTrailers,
    SetTickPeriod,
)
from tests.support import REQUEST, RESPONSE, code, wat

MINIMAL = (
    '(memory (export "memory") 1) (func (export "proxy_on_memory_allocate") (param i32) (result i32) i32.const 1024)'
)
CALL = ":method=GET&:path=/&:authority=x"


def module(text: str, marker: str = "proxy_abi_version_0_2_1", rest: str = MINIMAL) -> bytes:
    return wat(f'(module {text} {rest} (func (export "{marker}")))')


def kinds(effects) -> list[str]:
    return [type(effect).__name__ for effect in effects]


def of(kind, effects):
    return next(effect for effect in effects if isinstance(effect, kind))


# -- Load and start ---------------------------------------------------------------------------------------------------


def test_01_no_abi_version(host):
    with pytest.raises(ModuleError, match="exports no proxy_abi_version_… function"):
        host.load_plugin(wat("(module)"))


def test_02_hostcall_of_another_version(host):
    text = '(import "env" "proxy_get_log_level" (func (param i32) (result i32)))'
    with pytest.raises(ModuleError, match=r"proxy_get_log_level belongs to ABI 0.2.1 to 0.2.100"):
        host.load_plugin(module(text, "proxy_abi_version_0_2_0"))
    host.load_plugin(module(text, "proxy_abi_version_0_2_0"), unknown_imports="stub")


def test_02_a_stub_answers_unimplemented(host, log):
    text = """
    (import "env" "proxy_new_thing" (func $new (param i32 i64) (result i32)))
    (import "env" "proxy_log" (func $log (param i32 i32 i32) (result i32)))
    (func (export "proxy_on_configure") (param i32 i32) (result i32)
      (i32.store8 (i32.const 0) (i32.add (i32.const 48) (call $new (i32.const 1) (i64.const 2))))
      (drop (call $log (i32.const 2) (i32.const 0) (i32.const 1)))
      i32.const 1)"""
    host.load_plugin(module(text), unknown_imports="stub")
    assert log.messages == [chr(48 + 12)]


@pytest.mark.parametrize("result", ["", "(result i32)"])
def test_03_resume_of_0_1_0_with_and_without_result(host, result):
    host.load_plugin(module(f'(import "env" "proxy_continue_request" (func {result}))', "proxy_abi_version_0_1_0"))


START = """
(import "env" "proxy_log" (func $log (param i32 i32 i32) (result i32)))
(data (i32.const 0) "_initialize|main|_start")
(func (export "_initialize") (drop (call $log (i32.const 2) (i32.const 0) (i32.const 11))))
(func (export "_start") (drop (call $log (i32.const 2) (i32.const 17) (i32.const 6))))
(func (export "main") (param i32 i32) (result i32)
  (drop (call $log (i32.const 2) (i32.const 12) (i32.const 4)))
  (i32.add (local.get 0) (local.get 1)))"""


def test_04_initialize_then_main_never_start(host, log):
    host.load_plugin(module(START))
    assert log.messages == ["_initialize", "main"]


def test_04_start_without_initialize(host, log):
    host.load_plugin(module(START.replace('(export "_initialize")', "")))
    assert log.messages == ["_start"]


def test_05_no_allocator(host):
    with pytest.raises(ModuleError, match="no allocator: it exports neither proxy_on_memory_allocate nor malloc"):
        host.load_plugin(module("", rest='(memory (export "memory") 1)'))


def test_06_one_allocator_throughout(host, log):
    both = MINIMAL + '(func (export "malloc") (param i32) (result i32) unreachable)'
    text = """
    (import "env" "proxy_get_buffer_bytes" (func $get (param i32 i32 i32 i32 i32) (result i32)))
    (func (export "proxy_on_configure") (param i32 i32) (result i32)
      (i32.eqz (call $get (i32.const 7) (i32.const 0) (i32.const 9) (i32.const 0) (i32.const 4))))"""
    host.load_plugin(module(text, rest=both), configuration="abc")


def test_07_wrong_signature_of_a_callback(host):
    with pytest.raises(
        ModuleError, match=r"proxy_on_tick has the type \(i64\) -> \(\), but in ABI 0.2.1 it is \(i32\) -> \(\)"
    ):
        host.load_plugin(module('(func (export "proxy_on_tick") (param i64))'))


GET_PROPERTY = '(import "env" "proxy_get_property" (func $get (param i32 i32 i32 i32) (result i32)))'


def test_08_hostcalls_are_restricted_while_starting(host):
    text = (
        GET_PROPERTY
        + """
    (func (export "_initialize") (drop (call $get (i32.const 0) (i32.const 1) (i32.const 0) (i32.const 4))))"""
    )
    with pytest.raises(PluginError, match="restricted: proxy_get_property") as raised:
        host.load_plugin(module(text))
    assert raised.value.failure.kind == "restricted"
    assert raised.value.failure.callback == "_initialize"


def test_09_hostcalls_are_restricted_in_the_allocator(host, probe):
    plugin = probe("@on_request_headers\nallocator call\nget_header_map_value 0 :path")
    with host.http_stream([plugin]) as stream:
        stream.request_headers(REQUEST, True)
    assert "proxy_done was called where it may not be" in plugin.failure.message
    assert stream.local.status == 503


def test_09_not_so_for_higress(host, probe, log):
    plugin = probe("@on_request_headers\nallocator call\nget_header_map_value 0 :path", version="0_2_100")
    with host.http_stream([plugin]) as stream:
        stream.request_headers(REQUEST, True)
    assert 'get_header_map_value(0, :path) = 0 "/a?b=c"' in log.messages


@pytest.mark.parametrize("number", [10, 11])
def test_10_11_a_guest_that_refuses(host, probe, number):
    callback = {10: "on_vm_start", 11: "on_configure"}[number]
    script = f"@{callback}\nreturn 0"
    with pytest.raises(PluginError, match=f"proxy_{callback} returned false") as raised:
        probe(script, vm_configuration=script)
    assert raised.value.failure.kind == "refused"


def test_11_the_canary_remembers(host, probe, log):
    probe("", vm_id="shared")
    for _ in range(2):
        with pytest.raises(PluginError, match="on_configure returned false"):
            probe("@on_configure\nset_shared_data asked yes 0\nreturn 0", vm_id="shared")
    assert host.services.shared_data.get("shared", b"asked") == (b"yes", 1)  # the second time nobody was asked


def test_12_plugins_share_a_vm(host, probe, trace, log):
    one = probe("@on_request_headers\nsay one", name="one", vm_id="shared", vm_configuration="@on_vm_start\nsay start")
    two = probe("@on_request_headers\nsay two", name="two", vm_id="shared", vm_configuration="@on_vm_start\nsay start")
    assert one._vm is two._vm
    assert one._root.id != two._root.id
    started = log.take()
    with host.http_stream([one, two]) as stream:
        stream.request_headers(REQUEST, True)
    assert (started.count("start"), log.take()) == (2, ["one", "two"])


def test_12_another_vm_configuration_is_another_vm(host, probe):
    assert probe(vm_id="shared")._vm is not probe(vm_id="shared", vm_configuration="# other")._vm


def test_13_no_new_canary_for_the_same_plugin(host, probe, log):
    probe(vm_id="shared")
    for _ in range(2):
        probe("@on_configure\nsay configured\nset_shared_data times x 0", vm_id="shared")
    assert log.messages.count("configured") == 2
    assert host.services.shared_data.get("shared", b"times") == (b"x", 3)  # and once by the canary, which is silent


def test_14_plugins_of_a_failed_vm_fail_and_the_next_gets_a_new_one(host, probe):
    one, two = probe("@on_tick\ntrap\n@on_configure\nset_tick_period_milliseconds 5", vm_id="v"), probe("", vm_id="v")
    one.tick()
    assert one.failure is two.failure is not None
    three = probe("", vm_id="v")
    assert three.failure is None
    assert three._vm is not one._vm


def test_15_configurations(host, probe, log):
    read = "get_buffer_bytes 7 0 3\nget_buffer_bytes 6 0 3\n"
    plugin = probe(f"@on_configure\n{read}@on_request_headers\n{read}", vm_configuration=f"@on_vm_start\n{read}")
    with host.http_stream([plugin]) as stream:
        stream.request_headers(REQUEST, True)
    plugin_part, vm_part = 'get_buffer_bytes(7, 0, 3) = 0 "@on"', 'get_buffer_bytes(6, 0, 3) = 0 "@on"'
    none = "get_buffer_bytes(7, 0, 3) = 1"
    assert log.messages == [none, vm_part, plugin_part, vm_part, none, vm_part]


# -- Memory -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def said(host, probe, log):
    """Run a script in on_request_headers; what the probe says."""

    def run(
        script: str, headers=REQUEST, version: str = "0_2_1", at: str = "on_request_headers", **options
    ) -> list[str]:
        plugin = probe(f"@{at}\n{script}", version, **options)
        with host.http_stream([plugin]) as stream:
            stream.request_headers(headers, True)
            stream.response_headers(RESPONSE, True)
        assert plugin.failure is None
        return log.take()

    return run


def test_16_bad_result_pointer(said):
    script = "out 0xfffffffe 0xfffffffe\nget_header_map_value 0 :path\nget_header_map_value 0 :path"
    assert said(script) == ["get_header_map_value(0, :path) = 6", 'get_header_map_value(0, :path) = 0 "/a?b=c"']


@pytest.mark.parametrize("mode", ["zero", "far"])
def test_17_allocator_gives_nothing(said, mode):
    script = f"allocator {mode}\nget_header_map_value 0 :path\nallocator normal\nget_header_map_value 0 :method"
    assert said(script) == ["get_header_map_value(0, :path) = 6", 'get_header_map_value(0, :method) = 0 "GET"']


def test_18_empty_result_without_allocator(said):
    assert said("allocator trap\nget_buffer_bytes 0 0 5") == ['get_buffer_bytes(0, 0, 5) = 0 ""']


def test_19_allocator_grows_memory(said):
    assert said("allocator grow\nget_header_map_value 0 :path") == ['get_header_map_value(0, :path) = 0 "/a?b=c"']


def test_20_enumeration_before_pointers(said):
    assert said("get_header_map_value 8 at:0xfffffff0:64") == ["get_header_map_value(8, at:0xfffffff0:64) = 2"]


# -- Headers ----------------------------------------------------------------------------------------------------------


def test_21_pairs_in_order_and_their_number(host, probe, log, trace):
    headers = [*REQUEST, (b"x-a", b"1"), (b"x-a", b"2")]
    with host.http_stream([probe("@on_request_headers\nget_header_map_pairs 0")]) as stream:
        stream.request_headers(headers, True)
    shown = ", ".join(f"{k.decode()}={v.decode()}" for k, v in headers)
    assert log.messages == [f"get_header_map_pairs(0) = 0 [{shown}]"]
    assert "probe: proxy_on_request_headers(7, 1)" in trace.events


def test_22_first_of_several_values_and_none(said):
    headers = [*REQUEST, (b"x-a", b"1"), (b"x-a", b"2")]
    script = "get_header_map_value 0 X-A\nget_header_map_value 0 nope"
    assert said(script, headers) == ['get_header_map_value(0, X-A) = 0 "1"', "get_header_map_value(0, nope) = 1"]
    assert said(script, headers, "0_1_0")[1] == 'get_header_map_value(0, nope) = 0 ""'


def test_23_replace_add_remove(host, probe, log):
    script = """@on_request_headers
replace_header_map_value 0 x-new 1
add_header_map_value 0 x-new 2
remove_header_map_value 0 nope
remove_header_map_value 0 user-agent"""
    with host.http_stream([probe(script)]) as stream:
        effects = stream.request_headers(REQUEST, True)
    assert of(RequestHeaders, effects).headers == [*REQUEST[:4], (b"x-new", b"1"), (b"x-new", b"2")]
    assert all(line.endswith("= 0") for line in log.messages)


def test_24_set_pairs_replaces_all_and_garbage_clears(host, probe):
    with host.http_stream([probe("@on_request_headers\nset_header_map_pairs 0 :path=/&x=y&:method=PUT")]) as stream:
        effects = stream.request_headers(REQUEST, True)
    assert effects[0].headers == [(b":path", b"/"), (b":method", b"PUT"), (b"x", b"y")]
    with host.http_stream([probe("@on_request_headers\nset_header_map_pairs 0 raw:garbage\nreturn 0")]) as stream:
        [answer] = stream.request_headers(REQUEST, True)[:1]
        assert answer.headers[0] == (b":status", b"404")  # as Envoy, which finds no route without :path


def test_25_response_headers_in_the_request(said, host, probe, log):
    script = "get_header_map_value 2 :status\nget_header_map_pairs 2"
    assert said(script) == ["get_header_map_value(2, :status) = 2", "get_header_map_pairs(2) = 0 []"]
    with host.http_stream([probe(f"@on_request_headers\n{script}", profile="spec")]) as stream:
        stream.request_headers(REQUEST, True)
    assert log.messages[1] == "get_header_map_pairs(2) = 2"


TICK = "set_effective_context $stream\n"


def test_26_request_headers_after_continue_and_while_paused(host, probe, log):
    script = f"@on_configure\nset_tick_period_milliseconds 5\n@on_tick\n{TICK}replace_header_map_value 0 x-late 1\n"
    going, paused = probe(script), probe(script + "@on_request_headers\nreturn 1", vm_id="other")
    with host.http_stream([going]) as stream:
        stream.request_headers(REQUEST, True)
        going.tick()
    assert log.take()[-1] == "replace_header_map_value(0, x-late, 1) = 2"
    with host.http_stream([paused]) as stream:
        assert stream.request_headers(REQUEST, True) == []
        paused.tick()
    assert log.take()[-1] == "replace_header_map_value(0, x-late, 1) = 0"


def test_26_changed_and_resumed_from_a_callout(host, probe):
    script = f"""@on_request_headers
http_call upstream {CALL} "" "" 100
return 1
@on_http_call_response
{TICK}replace_header_map_value 0 x-late 1
continue_stream 0"""
    with host.http_stream([probe(script)]) as stream:
        effects = stream.request_headers(REQUEST, True)
        assert kinds(effects) == ["HttpCall"]
        effects = host.deliver(effects[0], HttpCallReply([(b":status", b"200")]))
    assert effects == [RequestHeaders([*REQUEST, (b"x-late", b"1")], True, stream)]


def test_27_trailers_from_a_body_callback(host, probe, log):
    script = "@on_request_body\nadd_header_map_value 1 x-t 1\n@on_request_trailers\nsay trailers"
    with host.http_stream([probe(script)]) as stream:
        stream.request_headers(REQUEST)
        stream.request_body(b"abc")
        assert log.take() == ["add_header_map_value(1, x-t, 1) = 2"]
        effects = stream.request_body(b"", True)
    assert log.take() == ["add_header_map_value(1, x-t, 1) = 0"]
    assert effects == [RequestTrailers([(b"x-t", b"1")], stream)]


def test_28_headers_in_on_log(host, probe, log):
    script = "@on_log\nget_header_map_value 0 :path\nget_header_map_value 2 :status\nadd_header_map_value 0 a b\nget_header_map_value 3 x"
    with host.http_stream([probe(script)]) as stream:
        stream.request_headers(REQUEST, True)
        stream.response_headers(RESPONSE, True)
    assert log.messages == [
        'get_header_map_value(0, :path) = 0 "/a?b=c"',
        'get_header_map_value(2, :status) = 0 "200"',
        "add_header_map_value(0, a, b) = 2",
        "get_header_map_value(3, x) = 1",
    ]


# -- Actions ----------------------------------------------------------------------------------------------------------


def test_29_pause_holds_headers_and_body(host, probe, trace):
    with host.http_stream([probe("@on_request_headers\nreturn 1")]) as stream:
        assert stream.request_headers(REQUEST) + stream.request_body(b"abc", True) == []
    assert "probe: proxy_on_request_body(3, 1)" not in trace.take()


@pytest.mark.parametrize(
    "options", [{"allow_on_headers_stop_iteration": True}, {"version": "0_2_100"}, {"profile": "spec"}]
)
def test_29_body_comes_while_headers_are_held_where_that_is_allowed(host, probe, trace, options):
    with host.http_stream([probe("@on_request_headers\nreturn 1", **options)]) as stream:
        assert stream.request_headers(REQUEST) == []
        effects = stream.request_body(b"abc", True)
    assert kinds(effects) == ["RequestHeaders", "RequestBody"]
    assert "probe: proxy_on_request_body(3, 1)" in trace.take()


@pytest.mark.parametrize(
    ("action", "goes_on"), [(0, True), (2, True), (3, False), (4, False), (5, False), (1 << 31, False)]
)
def test_30_other_results_of_headers(host, probe, action, goes_on):
    with host.http_stream([probe(f"@on_request_headers\nreturn {action}")]) as stream:
        assert bool(stream.request_headers(REQUEST, True)) is goes_on


@pytest.mark.parametrize("action", [3, 4, 0xFFFFFFFF])
def test_31_data_results_beyond_the_known_stop_without_buffer(host, probe, action):
    script = f"@on_request_body/1\nreturn {action}\n@on_request_body/2\nreturn 0"
    with host.http_stream([probe(script)]) as stream:
        effects = stream.request_headers(REQUEST)
        assert stream.request_body(b"dropped") == []
        effects = stream.request_body(b"kept", True)
    assert effects == [RequestBody(b"kept", True, stream)]


def test_32_continue_acts_after_the_callback(host, probe, log):
    script = "@on_request_headers\ncontinue_stream 0\nget_header_map_value 0 :path\nsay still here\nreturn 1"
    second = probe("@on_request_headers\nsay second", vm_id="second")
    with host.http_stream([probe(script), second]) as stream:
        effects = stream.request_headers(REQUEST, True)
    assert log.messages == ["continue_stream(0) = 0", "get_header_map_value(0, :path) = 2", "still here", "second"]
    assert kinds(effects) == ["RequestHeaders"]


def test_33_streams_that_cannot_be_continued(said):
    assert said("continue_stream 3\ncontinue_stream 9\ncontinue_stream 2") == [
        "continue_stream(3) = 12",
        "continue_stream(9) = 2",
        "continue_stream(2) = 0",
    ]


def test_34_close_stream(host, probe, trace):
    stream = host.http_stream([probe("@on_request_headers\nclose_stream 0")])
    effects = stream.request_headers(REQUEST, True)
    assert effects == [ResetStream("wasm_close_stream", stream)]
    trace.take()
    stream.close()
    assert trace.take() == ["probe: proxy_on_log()", "probe: proxy_on_done()", "probe: proxy_on_delete()"]


# -- Body -------------------------------------------------------------------------------------------------------------


def bodies(trace, direction: str = "request") -> list[str]:
    name = f"probe: proxy_on_{direction}_body"
    return [event.removeprefix(name) for event in trace.take() if event.startswith(name)]


def send(stream, *chunks: bytes) -> list[bytes]:
    """Feed a request with these chunks and an empty end; the chunks that come out."""
    effects = stream.request_headers(REQUEST)
    for chunk in chunks:
        effects += stream.request_body(chunk)
    effects += stream.request_body(b"", True)
    return [effect.data for effect in effects if isinstance(effect, RequestBody)]


def test_35_continue(host, probe, trace):
    with host.http_stream([probe()]) as stream:
        assert send(stream, b"aaa", b"bbbb") == [b"aaa", b"bbbb", b""]
    assert bodies(trace) == ["(3, 0)", "(4, 0)", "(0, 1)"]


def test_36_buffer_shows_the_sum(host, probe, trace, log):
    script = (
        "@on_request_body\nget_buffer_bytes 0 0 100\nreturn 1\n@on_request_body/eos\nget_buffer_bytes 0 0 100\nreturn 0"
    )
    with host.http_stream([probe(script)]) as stream:
        assert send(stream, b"aaa", b"bbbb") == [b"aaabbbb"]
    assert bodies(trace) == ["(3, 0)", "(7, 0)", "(7, 1)"]
    assert [line.split("= 0 ")[1] for line in log.messages] == ['"aaa"', '"aaabbbb"', '"aaabbbb"']


def test_36_watermark_shows_the_new_chunk_only(host, probe, trace):
    with host.http_stream([probe("@on_request_body\nreturn 2\n@on_request_body/eos\nreturn 0")]) as stream:
        assert send(stream, b"aaa", b"bbbb") == [b"aaabbbb"]
    assert bodies(trace) == ["(3, 0)", "(4, 0)", "(0, 1)"]


def test_37_buffer_then_continue(host, probe, trace):
    script = "@on_request_body/1\nreturn 1\n@on_request_body\nreturn 0"
    with host.http_stream([probe(script)]) as stream:
        assert send(stream, b"aaa", b"bbbb", b"ccccc") == [b"aaabbbb", b"ccccc", b""]
    assert bodies(trace) == ["(3, 0)", "(7, 0)", "(5, 0)", "(0, 1)"]


@pytest.mark.parametrize(
    ("arguments", "status", "body", "spec"),
    [
        ("0 0 X", 0, b"Xabcdef", b"Xabcdef"),
        ("6 0 X", 0, b"abcdefX", b"abcdefX"),
        ("99 0 X", 0, b"abcdefX", b"abcdefX"),
        ("0 6 X", 0, b"X", b"X"),
        ("0 99 X", 0, b"X", b"X"),
        ('0 6 ""', 0, b"", b""),
        ("0 2 X", 0, b"Xcdef", b"Xcdef"),
        ("1 2 X", 2, b"abcdef", b"aXdef"),
    ],
)
def test_38_set_buffer_bytes(host, probe, log, arguments, status, body, spec):
    script = f"@on_request_body\nset_buffer_bytes 0 {arguments}"
    for profile, expected in ("envoy", body), ("spec", spec):
        with host.http_stream([probe(script, profile=profile)]) as stream:
            stream.request_headers(REQUEST)
            assert stream.request_body(b"abcdef", True) == [RequestBody(expected, True, stream)]
    assert [line[-1] for line in log.messages] == [str(status), "0"]


def test_39_body_over_the_limit(host, probe, trace):
    plugin = probe("@on_request_body\nreturn 1")
    stream = host.http_stream([plugin], buffer_limit=5)
    stream.request_headers(REQUEST)
    effects = stream.request_body(b"too long")
    assert (stream.local.status, stream.local.details) == (413, "request_payload_too_large")
    assert kinds(effects) == ["ResponseHeaders", "ResponseBody"]
    trace.take()
    assert stream.request_body(b"more", True) == []
    assert bodies(trace) == []


def test_39_response_over_the_limit(host, probe):
    with host.http_stream([probe("@on_response_headers\nreturn 1")], buffer_limit=5) as stream:
        stream.request_headers(REQUEST, True)
        stream.response_headers(RESPONSE)
        assert stream.response_body(b"12345") == []
    with host.http_stream([probe("@on_response_headers\nreturn 3")], buffer_limit=5) as stream:
        stream.request_headers(REQUEST, True)
        stream.response_headers(RESPONSE)
        effects = stream.response_body(b"too long")
    assert effects[0].headers[0] == (b":status", b"500")
    assert stream.local.details == "response_payload_too_large"


def test_40_buffers_of_another_phase(said, host, probe, log):
    script = "get_buffer_bytes 0 0 9\nget_buffer_status 1\nset_buffer_bytes 0 0 0 x\nget_buffer_bytes 4 0 9"
    assert said(script) == [
        'get_buffer_bytes(0, 0, 9) = 0 ""',
        "get_buffer_status(1) = 0 0 0",
        "set_buffer_bytes(0, 0, 0, x) = 2",
        "get_buffer_bytes(4, 0, 9) = 1",
    ]
    assert [line[-3:] for line in said(script, profile="spec")] == ["= 1"] * 4


def test_41_start_beyond_the_end(host, probe, log):
    with host.http_stream(
        [probe("@on_request_body\nget_buffer_bytes 0 3 9\nget_buffer_bytes 0 1 0xffffffff")]
    ) as stream:
        stream.request_headers(REQUEST)
        stream.request_body(b"abc", True)
    assert log.messages == ['get_buffer_bytes(0, 3, 9) = 0 ""', 'get_buffer_bytes(0, 1, 0xffffffff) = 0 "bc"']


# -- Local responses --------------------------------------------------------------------------------------------------


def test_42_local_response_from_request_headers(host, probe):
    script = "@on_request_headers\nsend_local_response 403 my%20details nope x-a=1 -1\nreturn 0"
    with host.http_stream([probe(script)]) as stream:
        effects = stream.request_headers(REQUEST)
        effects += stream.request_body(b"abc", True)
    headers = [(b":status", b"403"), (b"x-a", b"1"), (b"content-length", b"4"), (b"content-type", b"text/plain")]
    assert effects == [ResponseHeaders(headers, False, stream), ResponseBody(b"nope", True, stream)]
    assert stream.local.details == "my_details"


def test_43_twice_in_one_callback(host, probe):
    script = '@on_request_headers\nsend_local_response 403 a "" "" -1\nsend_local_response 404 b "" "" -1'
    with host.http_stream([probe(script)]) as stream:
        effects = stream.request_headers(REQUEST, True)
    assert effects == [ResponseHeaders([(b":status", b"403")], True, stream)]


def test_44_local_response_in_the_response(host, probe, trace):
    script = '@on_response_headers\nsend_local_response 500 a x "" -1'
    outer = probe("", name="outer", vm_id="outer")
    with host.http_stream([outer, probe(script)]) as stream:
        stream.request_headers(REQUEST, True)
        effects = stream.response_headers(RESPONSE)
        assert stream.response_body(b"upstream's", True) == []
    assert [effect.headers[0] for effect in effects[:1]] == [(b":status", b"500")]
    assert effects[1:] == [ResponseBody(b"x", True, stream)]
    assert not any(event.startswith("outer: proxy_on_response") for event in trace.events)


@pytest.mark.parametrize(("given", "shown"), [(-1, b"7"), (99, b"7"), (5, b"5")])
def test_45_grpc_status(host, probe, given, shown):
    script = f"@on_request_headers\nsend_local_response 403 d gone%20%25x x-a=1 {given}"
    grpc = [*REQUEST, (b"content-type", b"application/grpc")]
    with host.http_stream([probe(script)]) as stream:
        effects = stream.request_headers(grpc, True)
    assert effects == [
        ResponseHeaders(
            [
                (b":status", b"200"),
                (b"x-a", b"1"),
                (b"content-type", b"application/grpc"),
                (b"grpc-status", shown),
                (b"grpc-message", b"gone %25x"),
            ],
            True,
            stream,
        )
    ]


def test_46_details_without_white_space(host, probe):
    with host.http_stream([probe('@on_request_headers\nsend_local_response 403 a%20%20b%09c "" "" -1')]) as stream:
        stream.request_headers(REQUEST, True)
    assert stream.details == "a__b_c"


# -- Failure ----------------------------------------------------------------------------------------------------------


def test_47_trap_fails_closed(host, probe, trace):
    plugin = probe("@on_request_headers\ntrap")
    stream = host.http_stream([plugin])
    assert stream.request_headers(REQUEST, True) == [ResponseHeaders([(b":status", b"503")], True, stream)]
    stream.close()
    assert (stream.details, stream.failure) == ("wasm_fail_stream", plugin.failure)
    assert plugin.failure.callback == "proxy_on_request_headers"
    assert trace.take()[-1] == "probe: proxy_on_request_headers(5, 1)"


def test_48_fail_open(host, probe):
    plugin = probe("@on_request_headers\ntrap", failure_policy="fail_open")
    with host.http_stream([plugin]) as stream:
        assert kinds(stream.request_headers(REQUEST, True)) == ["ResponseHeaders"]
    with host.http_stream([plugin]) as stream:
        assert kinds(stream.request_headers(REQUEST, True)) == ["RequestHeaders"]


def test_48_fail_open_spares_the_stream_under_spec(host, probe):
    plugin = probe("@on_request_headers\ntrap", failure_policy="fail_open", profile="spec")
    with host.http_stream([plugin]) as stream:
        assert kinds(stream.request_headers(REQUEST, True)) == ["RequestHeaders"]
        assert kinds(stream.response_headers(RESPONSE, True)) == ["ResponseHeaders"]


def test_49_fail_reload(host, probe, clock):
    script = "@on_request_headers\nget_header_map_value 0 x-trap\nif_status 0\ntrap"
    plugin = probe(script, failure_policy="fail_reload")

    def status(headers) -> str:
        with host.http_stream([plugin]) as stream:
            return kinds(stream.request_headers(headers, True))[0]

    assert status([*REQUEST, (b"x-trap", b"1")]) == "ResponseHeaders"
    assert status(REQUEST) == "ResponseHeaders"  # within the back-off
    assert plugin.reloads == 0
    clock.advance(1)
    assert status(REQUEST) == "RequestHeaders"
    assert (plugin.reloads, plugin.failure) == (1, None)


def test_49_reload_keeps_backing_off(host, probe, clock):
    plugin = probe("@on_request_headers\ntrap", failure_policy="fail_reload")
    waits = []
    for _ in range(4):
        before = plugin.reloads
        waited = 0.0
        while plugin.reloads == before:
            with host.http_stream([plugin]) as stream:
                stream.request_headers(REQUEST, True)
            clock.advance(0.25)
            waited += 0.25
        waits.append(waited)
    assert waits[-1] > waits[0]


def test_49_a_guest_that_has_run_for_long_backs_off_anew(host, probe, clock):
    plugin = probe("@on_request_headers\ntrap", failure_policy="fail_reload")

    def wait() -> float:
        """Seconds from a failure to the next guest."""
        with host.http_stream([plugin]) as stream:
            stream.request_headers(REQUEST, True)
        waited = 0.0
        while plugin.failure:
            clock.advance(0.25)
            waited += 0.25
            plugin.heal()
        return waited

    assert [wait() for _ in range(4)][-1] > 2
    clock.advance(60)
    assert wait() <= 1


def test_50_an_endless_loop_ends_at_the_deadline(host, probe, engine):
    assert engine.capabilities.deadline
    other = probe("", name="other", vm_id="other")
    plugin = probe("@on_request_headers\nloop", limits=Limits(deadline=0.05))
    with host.http_stream([plugin]) as stream:
        assert kinds(stream.request_headers(REQUEST, True)) == ["ResponseHeaders"]
    assert plugin.failure.kind == "deadline"
    with host.http_stream([other]) as stream:
        assert kinds(stream.request_headers(REQUEST, True)) == ["RequestHeaders"]


def test_51_memory_limit(host, probe, engine, log):
    assert engine.capabilities.memory_limit
    plugin = probe("@on_request_headers\ngrow 10\ngrow 1000", limits=Limits(memory=4 << 20))
    with host.http_stream([plugin]) as stream:
        stream.request_headers(REQUEST, True)
    assert [line.rpartition(" ")[2] != "-1" for line in log.messages] == [True, False]
    assert plugin.failure is None


# -- Callouts ---------------------------------------------------------------------------------------------------------


def test_52_http_call(host, probe, log, trace):
    read = "get_header_map_pairs 6\nget_header_map_pairs 7\nget_buffer_bytes 4 0 99\n"
    plugin = probe(
        f"""@on_request_headers
http_call upstream {CALL} body x-t=1 100
return 1
@on_http_call_response
{read}add_header_map_value 6 a b
@on_log
{read}"""
    )
    with host.http_stream([plugin]) as stream:
        call = of(HttpCall, stream.request_headers(REQUEST, True))
        assert log.take() == [f"http_call(upstream, {CALL}, body, x-t=1, 100) = 0 4"]
        assert (call.cluster, call.body, call.trailers, call.timeout) == ("upstream", b"body", [(b"x-t", b"1")], 100)
        assert call.headers[-1] == (b"content-length", b"4")
        host.deliver(call, HttpCallReply([(b":status", b"200"), (b"a", b"b")], b"reply", [(b"t", b"1")]))
        assert "probe: proxy_on_http_call_response(4, 2, 5, 1)" in trace.take()
        assert log.take() == [
            "get_header_map_pairs(6) = 0 [:status=200, a=b]",
            "get_header_map_pairs(7) = 0 [t=1]",
            'get_buffer_bytes(4, 0, 99) = 0 "reply"',
            "add_header_map_value(6, a, b) = 2",
        ]
    assert log.take() == [
        "get_header_map_pairs(6) = 0 []",
        "get_header_map_pairs(7) = 0 []",
        "get_buffer_bytes(4, 0, 99) = 1",
    ]


@pytest.mark.parametrize(
    ("cluster", "headers", "timeout"),
    [("nope", CALL, 5), ("upstream", ":method=GET&:path=/", 5), ("upstream", '""', 5), ("upstream", CALL, -1)],
)
def test_53_http_call_that_cannot_be(said, trace, cluster, headers, timeout):
    assert said(f'http_call {cluster} {headers} "" "" {timeout}')[0].endswith("= 2")
    assert trace.hostcalls[-2].partition(" = ")[2].startswith("BAD_ARGUMENT: ")


def test_53_the_token_is_zeroed_first(said):
    assert said(f'poke $free %ff%ff%ff%ff\nout $free\nhttp_call nope {CALL} "" "" 5\npeek $free 4')[-1].endswith(
        '"%00%00%00%00"'
    )


def test_54_http_call_that_fails(host, probe, log, trace):
    script = f'@on_request_headers\nhttp_call upstream {CALL} "" "" 5\nreturn 1\n@on_http_call_response\nget_status'
    with host.http_stream([probe(script)]) as stream:
        call = of(HttpCall, stream.request_headers(REQUEST, True))
        host.deliver(call, CalloutFailed("connection refused"))
    assert "probe: proxy_on_http_call_response(4, 0, 0, 0)" in trace.take()
    assert log.messages[-1] == 'get_status() = 0 11 "reset"'


def test_55_a_reply_while_the_guest_runs_waits(engine, log):
    """The embedder answers at once, from inside the hostcall's effect."""
    waiting: list[HttpCall] = []

    with Host(engine, services=Services(log=log, clusters={"upstream"})) as host:

        def eager(effect, put=host._emit):
            put(effect)
            if isinstance(effect, HttpCall):
                waiting.append(effect)
                host.deliver(effect, HttpCallReply([(b":status", b"200")]))

        host._emit = eager
        script = f'@on_request_headers\nhttp_call upstream {CALL} "" "" 5\nsay still in the callback\n@on_http_call_response\nsay reply'
        plugin = host.load_plugin(code("c/probe_0_2_1"), configuration=script)
        with host.http_stream([plugin]) as stream:
            stream.request_headers(REQUEST, True)
    assert len(waiting) == 1
    assert log.messages[1:] == ["still in the callback", "reply"]


def test_56_stream_gone_before_the_reply(host, probe, log, trace):
    script = f'@on_request_headers\nhttp_call upstream {CALL} "" "" 5\nreturn 1\n@on_http_call_response\nset_effective_context $stream'
    with host.http_stream([probe(script)]) as stream:
        call = of(HttpCall, stream.request_headers(REQUEST, True))
    host.deliver(call, HttpCallReply([(b":status", b"200")]))
    assert log.messages[-1] == "set_effective_context($stream) = 2"


def test_57_plugin_gone_cancels_its_calls(host, probe, trace):
    plugin = probe(f'@on_request_headers\nhttp_call upstream {CALL} "" "" 5\nreturn 1')
    with host.http_stream([plugin]) as stream:
        call = of(HttpCall, stream.request_headers(REQUEST, True))
    effects = plugin.close()
    assert kinds(effects) == ["CancelCallout"]
    trace.take()
    assert host.deliver(call, HttpCallReply([(b":status", b"200")])) == []
    assert trace.take() == []


GRPC = "upstream demo.S Get a=b message 5"


def test_58_grpc_call(host, probe, log, trace):
    script = (
        f"@on_request_headers\ngrpc_call {GRPC}\n@on_grpc_receive\nget_buffer_bytes 5 0 99\n@on_grpc_close\nget_status"
    )
    plugin = probe(script)
    for reply in GrpcCallReply(b"hi"), GrpcClosed(5, "no such thing"):
        with host.http_stream([plugin]) as stream:
            call = of(GrpcCall, stream.request_headers(REQUEST, True))
            host.deliver(call, reply)
    assert (call.cluster, call.service, call.method, call.metadata, call.message) == (
        "upstream",
        "demo.S",
        "Get",
        [(b"a", b"b")],
        b"message",
    )
    assert [event for event in trace.take() if "grpc" in event] == [
        "probe: proxy_on_grpc_receive(5, 2)",
        "probe: proxy_on_grpc_close(9, 5)",
    ]
    assert log.messages[1::2] == ['get_buffer_bytes(5, 0, 99) = 0 "hi"', 'get_status() = 0 5 "no such thing"']


def test_58_grpc_cluster_from_a_proto_and_unknown(said):
    proto = "%0a%0a%0a%08upstream"  # GrpcService { envoy_grpc { cluster_name: "upstream" } }
    assert said(f"grpc_call {proto} s m pairs: x 5")[0].endswith("= 0 5")
    assert said("grpc_call nope s m pairs: x 5")[0].endswith("= 4")


def test_59_grpc_send_and_tokens_of_another_kind(said):
    script = f"grpc_call {GRPC}\ngrpc_send $token x 0\ngrpc_send 6 x 0\ngrpc_close 4\ngrpc_cancel 99\ngrpc_close $token\ngrpc_close $token"
    assert [line.rpartition(" = ")[2] for line in said(script)] == ["0 5", "2", "1", "2", "2", "0", "1"]


def test_60_grpc_stream(host, probe, trace, log):
    script = """@on_request_headers
grpc_stream upstream demo.S Watch a=b
grpc_send $token one 0
grpc_close $token
@on_grpc_receive_initial_metadata
get_header_map_pairs 4
@on_grpc_receive_trailing_metadata
get_header_map_pairs 5"""
    with host.http_stream([probe(script)]) as stream:
        effects = stream.request_headers(REQUEST, True)
        assert kinds(effects) == ["GrpcStream", "GrpcSend", "GrpcClose", "RequestHeaders"]
        opened = of(GrpcStream, effects)
        for reply in (
            GrpcInitialMetadata([(b"i", b"1")]),
            GrpcMessage(b"first"),
            GrpcMessage(b""),
            GrpcTrailingMetadata([(b"t", b"1")]),
            GrpcClosed(0),
            GrpcMessage(b"too late"),
        ):
            host.deliver(opened, reply)
    assert [event.removeprefix("probe: proxy_on_grpc_") for event in trace.take() if "grpc" in event] == [
        "receive_initial_metadata(6, 1)",
        "receive(6, 5)",
        "receive(6, 0)",
        "receive_trailing_metadata(6, 1)",
        "close(6, 0)",
    ]
    assert log.messages[-2:] == ["get_header_map_pairs(4) = 0 [i=1]", "get_header_map_pairs(5) = 0 [t=1]"]


# -- Shared data, queues, ticks, metrics ------------------------------------------------------------------------------


def test_61_shared_data(host, probe, log):
    script = "set_shared_data k v 0\nget_shared_data k\nset_shared_data k w $cas\nset_shared_data k x $cas\nget_shared_data k\nget_shared_data nope"
    probe(f"@on_configure\n{script}", vm_id="a")
    assert [line.rpartition(" = ")[2] for line in log.take()] == ["0", '0 "v" 1', "0", "8", '0 "w" 2', "1"]
    probe("@on_configure\nget_shared_data k", vm_id="b")
    assert log.take() == ["get_shared_data(k) = 1"]


def test_62_queues(host, probe, log, trace):
    reader = probe(
        "@on_configure\nregister_shared_queue q\n@on_queue_ready\nrepeat 3\ndequeue_shared_queue $2",
        vm_id="a",
        name="reader",
    )
    log.take()
    writer = probe(
        "@on_request_headers\nresolve_shared_queue a q\nenqueue_shared_queue $token one\nenqueue_shared_queue $token two\n"
        "resolve_shared_queue a nope\nenqueue_shared_queue 99 x\ndequeue_shared_queue 99",
        vm_id="b",
    )
    with host.http_stream([writer]) as stream:
        ready = [effect for effect in stream.request_headers(REQUEST, True) if isinstance(effect, QueueReady)]
    assert [line.rpartition(" = ")[2] for line in log.take()] == ["0 1", "0", "0", "1", "1", "1"]
    assert ready == [QueueReady(reader, 1)] * 2
    reader.queue_ready(1)
    assert [line.rpartition(" = ")[2] for line in log.take()] == ['0 "one"', '0 "two"', "7"]


def test_63_ticks(host, probe, log):
    ticking = probe(
        "@on_configure\nset_tick_period_milliseconds 50\n@on_tick\nsay tick\nset_tick_period_milliseconds 0"
    )
    silent = probe("@on_tick\nsay never", name="silent", vm_id="silent")
    assert host.drain() == [SetTickPeriod(ticking, 50)]
    assert ticking.tick() == [SetTickPeriod(ticking, 0)]
    assert ticking.tick() + silent.tick() == []
    assert [line for line in log.messages if line in ("tick", "never")] == ["tick"]


def test_64_metrics(said):
    script = """define_metric 0 c
increment_metric $token 5
increment_metric $token 0
increment_metric $token -1
record_metric $token 2
get_metric $token
define_metric 1 g
increment_metric $token -5
record_metric $token 9
increment_metric $token -2
get_metric $token
define_metric 2 h
record_metric $token 3
increment_metric $token 3
get_metric $token
get_metric 99
increment_metric 96 1
define_metric 3 x"""
    results = [line.rpartition(" = ")[2] for line in said(script)]
    assert results == [
        "0 4",
        "0",
        "2",
        "2",
        "0",
        "0 7",
        "0 5",
        "0",
        "0",
        "0",
        "0 7",
        "0 6",
        "0",
        "2",
        "2",
        "2",
        "1",
        "2",
    ]


def test_64_counter_cannot_be_recorded_under_spec(said):
    assert said("define_metric 0 c\nrecord_metric $token 2", profile="spec")[-1].endswith("= 2")


# -- The end of life --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("profile", "order"), [("envoy", ["log", "done", "delete"]), ("spec", ["done", "log", "delete"])]
)
def test_65_order_at_the_end(host, probe, trace, profile, order):
    with host.http_stream([probe(profile=profile)]) as stream:
        stream.request_headers(REQUEST, True)
        trace.take()
    assert trace.take() == [f"probe: proxy_on_{name}()" for name in order]


def test_65_a_plugin_that_is_not_done(host, probe, trace, log):
    plugin = probe("@on_done/root\nreturn 0\n@on_foreign_function\ndone\n@on_request_headers\ndone")
    with host.http_stream([plugin]) as stream:
        stream.request_headers(REQUEST, True)
    assert log.take() == ["done() = 1"]
    trace.take()
    plugin.close()
    assert trace.take() == ["probe: proxy_on_done()"]
    plugin.foreign_function(1, b"")
    assert log.take() == ["done() = 0"]
    assert trace.take()[-1] == "probe: proxy_on_delete()"


def test_65_a_stream_that_is_not_done_under_spec(host, probe, trace):
    script = f"@on_done\nreturn 0\n@on_tick\n{TICK}done\n@on_configure\nset_tick_period_milliseconds 1"
    plugin = probe(script, profile="spec")
    with host.http_stream([plugin]) as stream:
        stream.request_headers(REQUEST, True)
    assert trace.take()[-1] == "probe: proxy_on_done()"
    plugin.tick()
    assert trace.take() == ["probe: proxy_on_tick()", "probe: proxy_on_log()", "probe: proxy_on_delete()"]


def test_66_a_filter_that_was_not_reached_is_logged(host, probe, trace):
    first = probe('@on_request_headers\nsend_local_response 403 d "" "" -1', name="first", vm_id="1")
    second = probe("", name="second", vm_id="2")
    trace.take()
    with host.http_stream([first, second]) as stream:
        stream.request_headers(REQUEST, True)
    assert [event for event in trace.take() if event.startswith("second")] == [
        "second: proxy_on_context_create(1,)",
        "second: proxy_on_log()",
        "second: proxy_on_done()",
        "second: proxy_on_delete()",
    ]


# -- Other ------------------------------------------------------------------------------------------------------------


def test_67_capabilities(host, probe, log, trace):
    names = {"proxy_on_configure", "proxy_get_buffer_bytes", "proxy_on_context_create", "proxy_get_buffer_status"}
    probe("@on_configure\nget_buffer_status 7\nfd_write 1 x", capabilities=frozenset(names))
    assert log.messages == []
    assert not any("on_vm_start" in event for event in trace.events)
    refused = {line for line in trace.hostcalls if "is not allowed" in line}
    assert any(line.startswith("proxy_log(…) = INTERNAL_FAILURE: ") for line in refused)
    assert any(line.startswith("fd_write(…) = NOTCAPABLE: ") for line in refused)


def test_68_foreign_functions(said):
    script = 'call_foreign_function nope x\nout 0 0\ncall_foreign_function compress abc\ncall_foreign_function clear_route_cache ""'
    assert [line.partition(" = ")[2][0] for line in said(script)] == ["1", "0", "0"]


def test_68_compress_and_uncompress(said, host, probe, log):
    assert said("call_foreign_function compress aaaaaaaaaaaaaaaaaaaa\ncall_foreign_function uncompress at:$ptr:$size")[
        1
    ].endswith('= 0 "aaaaaaaaaaaaaaaaaaaa"')
    with host.http_stream([probe('@on_request_headers\ncall_foreign_function clear_route_cache ""')]) as stream:
        assert kinds(stream.request_headers(REQUEST, True)) == ["ClearRouteCache", "RequestHeaders"]


def test_69_properties(said):
    script = """get_property request%00path
get_property request%00path%00
get_property request%00size
get_property nope
get_property request
get_property plugin_name
set_property mine value
get_property mine
get_property request%00headers%00User-Agent"""
    assert said(script) == [
        'get_property(request%00path) = 0 "/a?b=c"',
        'get_property(request%00path%00) = 0 "/a?b=c"',
        'get_property(request%00size) = 0 "%00%00%00%00%00%00%00%00"',
        "get_property(nope) = 1",
        "get_property(request) = 3",
        'get_property(plugin_name) = 0 "probe"',
        "set_property(mine, value) = 0",
        'get_property(mine) = 0 "value"',
        'get_property(request%00headers%00User-Agent) = 0 "test"',
    ]


def test_69_properties_of_the_embedder(host, probe, log):
    plugin = probe(
        "@on_request_headers\nget_property source%00address\nget_property xds%00cluster_name\nget_property xds%00node%00id"
    )
    host.properties = {"xds.cluster_name": "c", "xds.node": {"id": "n"}}
    with host.http_stream([plugin], properties={"source.address": "1.2.3.4:5"}) as stream:
        stream.request_headers(REQUEST, True)
    assert [line.partition(" = ")[2] for line in log.messages] == ['0 "1.2.3.4:5"', '0 "c"', '0 "n"']


def test_70_fd_write(said, log):
    lines = said("fd_write 1 a%0a\nfd_write 5 x\nfd_write 2 b%0a")
    assert lines == ["a", "fd_write(1, a%0a) = 0 2", "fd_write(5, x) = 8", "b", "fd_write(2, b%0a) = 0 2"]


def test_71_random(said):
    assert said("random_get 65536\nrandom_get 65537\nrandom_get 0") == [
        "random_get(65536) = 0",
        "random_get(65537) = 28",
        "random_get(0) = 0",
    ]


def test_72_vms_do_not_share_memory(host, probe, log):
    poke = "@on_configure\npoke $free mine"
    probe(poke, vm_id="a")
    probe("@on_configure\npeek $free 4", vm_id="b")
    assert log.messages[-1].endswith('"%00%00%00%00"')


def test_73_74_duplicate_imports_and_both_names_of_wasi(host, log):
    write = "(param i32 i32 i32 i32) (result i32)"
    text = f"""
    (import "wasi_unstable" "fd_write" (func $old {write}))
    (import "wasi_snapshot_preview1" "fd_write" (func $new {write}))
    (import "wasi_snapshot_preview1" "fd_write" (func $again {write}))
    (data (i32.const 0) "\\10\\00\\00\\00\\02\\00\\00\\00")
    (data (i32.const 16) "i\\n")
    (func (export "proxy_on_configure") (param i32 i32) (result i32)
      (drop (call $old (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8)))
      (drop (call $new (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8)))
      (drop (call $again (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8)))
      i32.const 1)"""
    host.load_plugin(module(text))
    assert log.messages == ["i"] * 3


# -- TCP (as in Envoy's network filter) --------------------------------------------------------------------------------


def test_tcp(host, trace, log):
    plugin = host.load_plugin(code("rust/tcp"), name="tcp")
    log.take()
    stream = host.tcp_stream([plugin])
    assert stream.new_connection() == []
    assert stream.downstream_data(b"hello") == [DownstreamData(b"HELLO", False, stream)]
    assert kinds(stream.upstream_data(b"there", True)) == ["UpstreamData"]
    stream.close()
    assert log.take() == [
        "tcp: new connection",
        "tcp: downstream data of 5 bytes, end of stream false",
        "tcp: upstream data of 5 bytes, end of stream true",
        "tcp: upstream closed by Unknown",
        "tcp: downstream closed by Remote",
        "tcp: done",
        "tcp: log",
    ]


def test_response_trailers_pass_in_reverse_order(host, probe, trace):
    one, two = (
        probe("", name="one", vm_id="1"),
        probe("@on_response_trailers\nadd_header_map_value 3 x-two 2", name="two", vm_id="2"),
    )
    with host.http_stream([one, two]) as stream:
        stream.request_headers(REQUEST, True)
        stream.response_headers(RESPONSE)
        stream.response_body(b"abc")
        trace.take()
        effects = stream.response_trailers([(b"x-t", b"1")])
        assert trace.take() == ["two: proxy_on_response_trailers(1,)", "one: proxy_on_response_trailers(2,)"]
    assert effects == [ResponseTrailers([(b"x-t", b"1"), (b"x-two", b"2")], stream)]
