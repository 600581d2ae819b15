"""The host: loading, sharing, ending."""

from __future__ import annotations

import pickle
from threading import Thread, get_ident

import pytest

from proxywasm_host import (
    ENVOY,
    SPEC,
    EngineUnavailable,
    FailurePolicy,
    Host,
    Limits,
    ModuleError,
    PluginError,
    Services,
    UnknownEngine,
)
from proxywasm_host.runtime.effects import GrpcClosed, HttpCallReply, QueueReady, RedisCall, RedisCallReply
from proxywasm_host.runtime.failure import FailState
from tests.support import FILTERS, REQUEST, RESPONSE, Trace, code, wat


def test_a_path_names_the_plugin(host):
    assert host.load_plugin(FILTERS / "rust/headers.wasm").name == "headers"


def test_a_file_that_is_not_there(host):
    with pytest.raises(FileNotFoundError):
        host.load_plugin("nowhere.wasm")


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "it has only 0 bytes"),
        (b"(module)", "this is WebAssembly text: make a module of it with wat2wasm"),
        (b"hello world", "it begins with b'hell'"),
        (b"\0asm\x0d\0\1\0", "a WebAssembly component"),
        (code("c/minimal")[:100], "truncated"),
    ],
)
def test_what_is_no_filter(host, data, says):
    with pytest.raises(ModuleError, match=says):
        host.load_plugin(data)


def test_code_that_is_not_valid(host):
    broken = bytearray(code("c/minimal"))
    at = broken.index(b"\x0b", 200)
    broken[at - 1] ^= 0x7F
    with pytest.raises(ModuleError, match="cannot compile the module"):
        host.load_plugin(bytes(broken))


def test_profiles(engine):
    assert Host(engine, profile="spec").profile is SPEC
    assert Host(engine).profile is ENVOY
    with pytest.raises(LookupError, match=r"no profile is called 'nginx'\. There are envoy, spec"):
        Host(engine, profile="nginx")


def test_an_engine_that_nobody_knows():
    with pytest.raises(UnknownEngine, match="wasmtime"):
        Host("wasmtim")
    assert issubclass(EngineUnavailable, Exception)


def test_failure_policy_by_name(host):
    plugin = host.load_plugin(code("c/minimal"), failure_policy="fail_open")
    assert plugin.config.failure_policy is FailurePolicy.FAIL_OPEN


def test_closing_frees_the_vm_with_its_last_plugin(host, probe):
    one, two = probe(vm_id="v"), probe("#", vm_id="v")
    one.close()
    assert two.failure is None
    two.close()
    assert host.plugins == []
    with pytest.raises(RuntimeError, match="was closed"):
        host.http_stream([two])


def test_a_plugin_that_joins_a_vm_and_traps_leaves_the_others_alone(host, probe):
    one = probe(vm_id="v")
    with pytest.raises(PluginError, match="unreachable"):
        probe("@on_configure\ntrap", vm_id="v")
    assert one.failure is None


def test_errors_can_be_sent_between_processes(host, probe):
    with pytest.raises(PluginError) as raised:
        probe("@on_configure\nget_header_map_value 0 x\nreturn 0")
    assert raised.value.failure.state is FailState.CONFIGURE
    assert str(pickle.loads(pickle.dumps(EngineUnavailable("x", "not installed", "install it")))) == str(
        EngineUnavailable("x", "not installed", "install it")
    )


def test_the_report_of_a_failure(host, probe):
    plugin = probe("@on_request_headers\nget_header_map_value 0 nope\nadd_header_map_value 6 a b\ntrap")
    with host.http_stream([plugin]) as stream:
        stream.request_headers(REQUEST, True)
    report = plugin.failure.report().splitlines()
    assert report[0] == "plugin 'probe' failed in a callback: " + plugin.failure.message
    assert report[1] == "  in proxy_on_request_headers"
    assert any("proxy_on_request_headers" in line for line in report if line.startswith("    at "))
    assert (
        "    proxy_get_header_map_value(map=REQUEST_HEADERS, key='nope') = NOT_FOUND: no 'nope' in the request headers"
        in report
    )
    assert any(
        "HTTP_CALL_RESPONSE_HEADERS" in line and "cannot be changed: they are a callout's reply" in line
        for line in report
    )


def test_redis(host, probe, log):
    script = "@on_request_headers\nredis_call upstream x\nredis_init upstream?db=3 user pass 100\nredis_call upstream?db=3 *1%0d%0a\nreturn 1\n@on_redis_call_response\nget_buffer_bytes 9 0 99"
    plugin = probe(script, version="0_2_100")
    with host.http_stream([plugin]) as stream:
        [call] = [effect for effect in stream.request_headers(REQUEST, True) if isinstance(effect, RedisCall)]
        assert (call.cluster, call.query, call.username, call.password, call.options) == (
            "upstream",
            b"*1\r\n",
            b"user",
            b"pass",
            {"db": "3"},
        )
        host.deliver(call, RedisCallReply(b"+OK\r\n"))
    assert [line.partition(" = ")[2] for line in log.messages] == ["2", "0", "0 7", '0 "+OK%0d%0a"']


def test_a_reply_of_another_kind_is_an_error_of_the_embedder(host, probe):
    script = '@on_request_headers\nhttp_call upstream :method=GET&:path=/&:authority=x "" "" 5\nreturn 1'
    with host.http_stream([probe(script)]) as stream:
        [call] = stream.request_headers(REQUEST, True)
        with pytest.raises(TypeError, match="the reply to HttpCall is HttpCallReply or CalloutFailed, not GrpcClosed"):
            host.deliver(call, GrpcClosed(0))
        host.deliver(call, HttpCallReply([]))


def test_a_message_from_another_thread_wakes(engine, services):
    woken = []
    with Host(engine, services=services, wake=lambda: woken.append(get_ident())) as host:
        reader = host.load_plugin(
            code("c/probe_0_2_1"), vm_id="v", configuration="@on_configure\nregister_shared_queue jobs"
        )
        assert host.drain() == woken == []
        other = Thread(target=lambda: services.shared_queues.enqueue(1, b"a job"))
        other.start()
        other.join()
        assert woken == [other.ident]
        assert host.drain() == [QueueReady(reader, 1)]


def test_environment_of_the_guest(host, log):
    host.load_plugin(code("c/hello"), environment={"GREETING": "hello from the host"})
    assert any("hello from the host" in message for message in log.messages)


def test_memory_limit_at_start(host):
    text = '(module (memory (export "memory") 100) (func (export "proxy_abi_version_0_2_1")) (func (export "malloc") (param i32) (result i32) i32.const 0))'
    with pytest.raises((ModuleError, PluginError), match=r"(?i)memory"):
        host.load_plugin(wat(text), limits=Limits(memory=1 << 20))


def test_a_start_function_that_makes_hostcalls(host, log):
    text = """(module
    (import "env" "proxy_log" (func $log (param i32 i32 i32) (result i32)))
    (memory (export "memory") 1) (data (i32.const 0) "hello")
    (func (export "proxy_abi_version_0_2_1")) (func (export "malloc") (param i32) (result i32) i32.const 0)
    (func $start (drop (call $log (i32.const 2) (i32.const 0) (i32.const 5)))) (start $start))"""
    host.load_plugin(wat(text), name="starts")
    assert log.messages == ["hello"]


def test_a_refused_plugin_leaves_nothing_behind(host, probe):
    with pytest.raises(PluginError):
        probe("@on_configure\nset_tick_period_milliseconds 5\nreturn 0")
    assert host.drain() == []


def test_a_canary_wants_nothing_done(host, probe):
    probe(vm_id="v")
    host.drain()
    probe("@on_configure\nset_tick_period_milliseconds 5", vm_id="v")
    assert len(host.drain()) == 1


def test_a_reply_for_a_vm_that_was_replaced_reaches_nobody(host, probe, clock, log):
    script = """@on_request_headers
http_call upstream :method=GET&:path=/&:authority=x "" "" 5
return 1
@on_http_call_response
say reply
@on_response_headers
trap"""
    plugin = probe(script, failure_policy="fail_reload")
    with host.http_stream([plugin]) as stream:
        [old] = stream.request_headers(REQUEST, True)
        plugin._vm.call(stream._contexts[0], "on_response_headers", stream._contexts[0].id, 0, 0)
    clock.advance(2)
    with host.http_stream([plugin]) as stream:
        [new] = [effect for effect in stream.request_headers(REQUEST, True) if hasattr(effect, "token")][-1:]
        assert (plugin.reloads, new.token) == (1, old.token)
        log.take()
        host.deliver(old, HttpCallReply([(b":status", b"200")]))
        assert log.take() == []
        host.deliver(new, HttpCallReply([(b":status", b"200")]))
        assert log.take() == ["reply"]


def test_a_closed_plugin_serves_its_streams_to_their_end(host, probe, trace):
    plugin = probe()
    stream = host.http_stream([plugin])
    stream.request_headers(REQUEST, True)
    plugin.close()
    trace.take()
    assert [type(effect).__name__ for effect in stream.response_headers([(b":status", b"200")], True)] == [
        "ResponseHeaders"
    ]
    stream.close()
    assert [event.partition(": ")[2] for event in trace.take()][-5:] == [
        "proxy_on_log()",
        "proxy_on_done()",
        "proxy_on_delete()",
        "proxy_on_done()",
        "proxy_on_delete()",
    ]
    assert host.plugins == []


def test_a_plugin_closed_after_it_failed_is_forgotten(host, probe):
    plugin = probe("@on_configure\nset_tick_period_milliseconds 5\n@on_tick\ntrap")
    plugin.tick()
    plugin.close()
    assert host.plugins == []


def test_a_host_that_closes_stops_what_a_plugin_left_running(host, probe):
    plugin = probe("@on_configure\nset_tick_period_milliseconds 5\n@on_done/root\nreturn 0")
    host.drain()
    assert [(type(effect).__name__, effect.milliseconds) for effect in host.close()] == [("SetTickPeriod", 0)]
    assert plugin.closed


def test_a_queue_of_a_closed_plugin_tells_nobody(host, probe):
    probe("@on_configure\nregister_shared_queue q", vm_id="a").close()
    host.drain()
    host.services.shared_queues.enqueue(1, b"x")
    assert host.drain() == []


def test_listening_begins_and_ends_while_streams_are_open(engine, log):
    one, other = Trace(), Trace()
    with Host(engine, services=Services(log=log)) as host:
        plugin = host.load_plugin(code("c/probe_0_2_1"), configuration="@on_request_headers\nget_header_map_value 0 x")
        with host.http_stream([plugin]) as stream:
            host.listen(one)
            stream.request_headers(REQUEST, True)
            host.listen(other)
            stream.response_headers(RESPONSE, True)
            host.listen(None)
    assert [event.partition(": ")[2] for event in one.take()] == [
        "proxy_on_context_create(1,)",
        "proxy_on_request_headers(5, 1)",
    ]
    assert (
        "proxy_get_header_map_value(map=REQUEST_HEADERS, key='x') = NOT_FOUND: no 'x' in the request headers"
        in one.hostcalls
    )
    assert [event.partition(": ")[2] for event in other.take()] == ["proxy_on_response_headers(2, 1)"]


def test_who_asked_is_told_of_a_failure(host, probe):
    told = []
    plugin = probe("@on_request_headers\ntrap")
    plugin.on_failure.append(told.append)
    with host.http_stream([plugin]) as stream:
        stream.request_headers(REQUEST, True)
    assert told == [plugin.failure]
