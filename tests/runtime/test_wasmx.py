"""The profile ``wasmx``: what ngx_wasm_module does, numbered as in our list of its tests' behaviours.

What is the same in each profile is at the end. 19 is of nginx alone, which has requests within requests.
"""

from __future__ import annotations

from dataclasses import replace

import pytest

from proxywasm_host import Host, ModuleError, PluginError
from proxywasm_host.driver.clusters import Cluster, Clusters
from proxywasm_host.effects import CalloutFailed, CancelCallout, HttpCall, HttpCallReply, NameLookup, NameLookupReply
from proxywasm_host.integrations.heads import response_head
from tests.support import REQUEST, RESPONSE, code, wat

POST = [REQUEST[0], REQUEST[1], (b":method", b"POST"), REQUEST[3]]
CALL = 'http_call 127.0.0.1:80 :method=GET&:path=/ "" "" 1000'
REPLY = HttpCallReply([(b":status", b"200"), (b"x", b"y")], b"ok")
PHASES = "\n".join(f"@on_{phase}\nsay {phase}" for phase in ("request_headers", "request_body", "response_headers", "response_body", "done", "log", "delete"))


class Anywhere:
    """Clusters: each address is one."""

    def __contains__(self, name):
        return True


@pytest.fixture
def services(services):
    return replace(services, clusters=Anywhere())


@pytest.fixture
def host(engine, services, trace):
    with Host(engine, services=services, listener=trace, profile="wasmx") as host:
        yield host


def parts(effects):
    """What comes out: heads as their first header and whether they end, bodies as their bytes."""
    return [(e.data if hasattr(e, "data") else e.headers[0][1], e.end_stream) for e in effects if hasattr(e, "end_stream")]


def calls(trace):
    return [event for event in trace.take() if "log" in event or "_re" in event or "done" in event]


def failure(plugin):
    return plugin.failure.message


# -- Phases ------------------------------------------------------------------------------------------------------------


COUNT = "@on_request_headers\nset a $a+1\ndefine_metric 1 n\nrecord_metric $token $a"


@pytest.mark.parametrize(
    ("isolation", "counts"),
    [("none", [(1, 2), (3, 4)]), ("stream", [(1, 2), (1, 2)]), ("filter", [(1, 1), (1, 1)])],
)
def test_08_how_far_a_global_of_the_guest_reaches(host, services, isolation, counts):
    chain = [host.load_plugin(code("c/probe_0_2_1"), name=name, configuration=COUNT, isolation=isolation) for name in "ab"]
    seen = []
    for _ in counts:
        with host.http_stream(chain) as stream:
            stream.request_headers(REQUEST, True)
        seen.append(tuple(services.metrics.get(1, f"pw:{name}:n") for name in "ab"))
    assert seen == counts


def test_08_a_streams_vm_is_configured_and_not_started_and_goes_with_the_stream(host, trace):
    plugin = host.load_plugin(code("c/probe_0_2_1"), name="p", configuration="@on_configure\nset_tick_period_milliseconds 9", isolation="stream")
    host.drain()
    trace.take()
    stream = host.http_stream([plugin])
    assert [event for event in trace.take() if "_on_" in event] == ["p: proxy_on_context_create(0,)", "p: proxy_on_configure(44,)"]
    assert parts(stream.request_headers(REQUEST, True)) == [(b"example.com", True)]  # and no tick
    assert len(host._all_vms()) == 2
    assert stream.close() == []
    assert [event.partition("(")[0] for event in trace.take() if "_on_" in event][-3:] == ["p: proxy_on_done", "p: proxy_on_log", "p: proxy_on_delete"]
    assert len(host._all_vms()) == 1


def test_08_a_guest_that_fails_in_a_streams_vm_fails_there_alone(host):
    failures = []
    plugin = host.load_plugin(code("c/probe_0_2_1"), name="p", configuration="@on_request_headers\nget_header_map_value 0 x-trap\nif_status 0\ntrap", isolation="filter")
    plugin.on_failure.append(failures.append)
    with host.http_stream([plugin]) as other, host.http_stream([plugin]) as stream:
        assert parts(stream.request_headers([*REQUEST, (b"x-trap", b"1")], True)) == [(b"500", True)]
        assert parts(other.request_headers(REQUEST, True)) == [(b"example.com", True)]
    assert (len(failures), plugin.failure, plugin.reloads) == (1, None, 0)


def test_08_a_streams_vm_that_refuses_its_configuration_is_500(host):
    script = "@on_configure\nset_shared_data new 1 0\nif_status 8\nreturn 0"
    plugin = host.load_plugin(code("c/probe_0_2_1"), name="p", configuration=script, isolation="stream")
    with host.http_stream([plugin]) as stream:
        assert parts(stream.request_headers(REQUEST, True)) == [(b"500", True)]
    assert stream.failure.message == "proxy_on_configure returned false"
    assert len(host._all_vms()) == 1


def test_08_usage_has_the_vms_of_streams(host):
    script = "@on_request_headers\ngrow 4"
    plugin = host.load_plugin(code("c/probe_0_2_1"), name="p", configuration=script, isolation="stream")
    fresh = plugin.usage()
    with host.http_stream([plugin]) as stream, host.http_stream([plugin]) as other:
        stream.request_headers(REQUEST, True)
        usage = plugin.usage()
        grown = fresh.memory + (4 << 16)
        assert (usage.streams, usage.isolated_memory, usage.peak_memory) == (2, grown + fresh.memory, grown)
        other.request_headers(REQUEST, True)
    after = plugin.usage()
    assert (after.streams, after.isolated_memory, after.peak_memory, after.memory) == (0, 0, grown, fresh.memory)


def test_08_isolation_is_of_this_profile(engine):
    with Host(engine) as host, pytest.raises(ValueError, match="isolation 'stream' needs the profile 'wasmx', and this host has 'envoy'"):
        host.load_plugin(code("c/probe_0_2_1"), isolation="stream")


def test_08_callouts_of_a_streams_vm(host, trace):
    plugin = host.load_plugin(code("c/probe_0_2_1"), name="p", configuration=f"@on_request_headers\n{CALL}\nreturn 1", isolation="stream")
    with host.http_stream([plugin]) as stream:
        [call] = stream.request_headers(REQUEST, True)
        assert parts(host.deliver(call, REPLY)) == [(b"example.com", True)]
    stream = host.http_stream([plugin])
    [call] = stream.request_headers(REQUEST, True)
    assert [type(effect) for effect in stream.close()] == [CancelCallout]
    assert host.deliver(call, REPLY) == []


def test_08_callouts_are_limited_for_a_plugin_and_not_for_each_of_its_vms(host):
    host.use(replace(host.services, clusters=Clusters({"127.0.0.1:80": Cluster("http://127.0.0.1", max_callouts=3)})))
    plugin = host.load_plugin(code("c/probe_0_2_1"), name="p", configuration=f"@on_request_headers\nrepeat 2\n{CALL}\nreturn 1", isolation="stream")
    streams = [host.http_stream([plugin]) for _ in range(3)]
    assert [len(stream.request_headers(REQUEST, True)) for stream in streams] == [2, 1, 0]
    streams[0].close()
    with host.http_stream([plugin]) as stream:
        assert len(stream.request_headers(REQUEST, True)) == 2
    for stream in streams[1:]:
        stream.close()
    assert plugin._by_cluster == {}


def test_08_callouts_are_counted_for_a_plugin_whose_own_vm_was_replaced(host):
    host.use(replace(host.services, clusters=Clusters({"127.0.0.1:80": Cluster("http://127.0.0.1", max_callouts=1)})))
    plugin = host.load_plugin(code("c/probe_0_2_1"), name="p", configuration=f"@on_request_headers\n{CALL}\nreturn 1\n@on_tick\ntrap\n@on_configure\nset_tick_period_milliseconds 50", isolation="stream", failure_policy="fail_reload", reload_interval=0)
    host.drain()
    with host.http_stream([plugin]) as old:
        plugin.tick()
        with host.http_stream([plugin]) as new:
            assert (plugin.reloads, plugin.failure) == (1, None)
            host.drain()  # of the new VM, which ticks
            assert len(old.request_headers(REQUEST, True)) == 1
            assert new.request_headers(REQUEST, True) == []
    assert plugin._by_cluster == {}


def test_11_a_request_without_a_body(host, probe, trace):
    plugin = probe(PHASES)
    trace.take()
    with host.http_stream([plugin]) as stream:
        assert parts(stream.request_headers(REQUEST, True)) == [(b"example.com", True)]
        assert parts(stream.response_headers(RESPONSE)) == [(b"200", False)]
        assert parts(stream.response_body(b"hello", True)) == [(b"hello", True)]
    assert [event.partition(": proxy_on_")[2] for event in trace.take()] == [
        "context_create(1,)",
        "request_headers(5, 0)",
        "response_headers(2, 0)",
        "response_body(5, 1)",
        "done()",
        "log()",
        "delete()",
    ]


def test_12_13_the_body_of_the_request_comes_once_before_anything_goes_upstream(host, probe, trace):
    plugin = probe("@on_request_body\nadd_header_map_value 0 late 1\nset_buffer_bytes 0 0 100 HELLO%20WORLD!")
    with host.http_stream([plugin]) as stream:
        assert parts(stream.request_headers(POST)) == []
        assert parts(stream.request_body(b"hello ")) == []
        out = stream.request_body(b"world", True)
    assert parts(out) == [(b"example.com", False), (b"HELLO WORLD!", True)]
    assert out[0].headers[-1] == (b"late", b"1")
    assert "probe: proxy_on_request_body(11, 1)" in trace.events


def test_12_an_empty_body_is_no_callback(host, probe, trace):
    with host.http_stream([probe("")]) as stream:
        stream.request_headers(POST)
        assert parts(stream.request_body(b"", True)) == [(b"example.com", True)]
    assert not any("request_body" in event for event in trace.events)


def test_14_no_body_of_204_and_of_head(host, probe, trace):
    plugin = probe("")
    head = [REQUEST[0], REQUEST[1], (b":method", b"HEAD"), REQUEST[3]]
    for request, response in ((REQUEST, [(b":status", b"204")]), (head, RESPONSE)):
        with host.http_stream([plugin]) as stream:
            stream.request_headers(request, True)
            assert parts(stream.response_headers(response, True)) == [(response[0][1], True)]
    assert not any("response_body" in event for event in trace.events)


def test_15_one_callback_for_each_part_of_a_response(host, probe, trace):
    with host.http_stream([probe("")]) as stream:
        stream.request_headers(REQUEST, True)
        stream.response_headers(RESPONSE)
        for part in (b"a", b"bc"):
            assert parts(stream.response_body(part)) == [(part, False)]
        assert parts(stream.response_body(b"", True)) == [(b"", True)]
    assert [event.partition("response_body")[2] for event in trace.events if "response_body" in event] == ["(1, 0)", "(2, 0)", "(0, 1)"]


def test_16_17_both_ways_in_the_order_of_the_request(host, probe, trace):
    chain = [probe("", name=name) for name in ("one", "two")]
    trace.take()
    with host.http_stream(chain) as stream:
        stream.request_headers(REQUEST, True)
        stream.response_headers(RESPONSE, True)
    assert [event.partition("(")[0] for event in trace.events if "re" in event.partition("_on_re")[1]] == [
        f"{name}: proxy_on_{phase}"
        for phase in ("request_headers", "response_headers", "response_body")
        for name in ("one", "two")
    ]


def test_18_the_same_module_twice_has_two_configurations(host, probe, log):
    with host.http_stream([probe(f"@on_request_headers\nsay {name}", name=name) for name in "ab"]) as stream:
        stream.request_headers(REQUEST, True)
    assert log.messages == ["a", "b"]


# -- Actions -----------------------------------------------------------------------------------------------------------


def test_21_pause_without_a_callout_waits(host, probe):
    with host.http_stream([probe("@on_request_headers\nreturn 1")]) as stream:
        assert stream.request_headers(REQUEST, True) == []
        assert stream.paused
        assert stream.waiting_for.startswith("plugin 'probe', which holds the request")


def test_22_52_the_last_reply_resumes_whether_the_filter_asks_or_not(host, probe, trace):
    plugin = probe(f"@on_request_headers\n{CALL}\n{CALL}\nreturn 1\n@on_http_call_response/1\ncontinue_stream 0")
    with host.http_stream([plugin]) as stream:
        first, second = stream.request_headers(REQUEST, True)
        assert (first.token != second.token, first.cluster) == (True, "127.0.0.1:80")
        assert host.deliver(first, REPLY) == []
        assert parts(host.deliver(second, REPLY)) == [(b"example.com", True)]


def test_22_a_callout_without_pause_holds_nothing(host, probe):
    with host.http_stream([probe(f"@on_request_headers\n{CALL}")]) as stream:
        call, head = stream.request_headers(REQUEST, True)
        assert (type(call), parts([head])) == (HttpCall, [(b"example.com", True)])


def test_53_the_next_filter_begins_when_the_one_before_is_done(host, probe, log):
    chain = [probe(f"@on_request_headers\n{CALL}\nreturn 1\n@on_request_body\n{CALL}\nreturn 1", name="one"), probe("@on_request_headers\nsay two, headers\n@on_request_body\nsay two, body", name="two")]
    with host.http_stream(chain) as stream:
        [call] = stream.request_headers(POST)
        stream.request_body(b"body", True)
        log.take()
        [call] = host.deliver(call, REPLY)
        assert log.take()[0] == "two, headers"
        out = host.deliver(call, REPLY)
        assert log.take() == ["two, body"]
        assert parts(out) == [(b"example.com", False), (b"body", True)]


def test_54_a_reply_that_calls_again_goes_on_waiting(host, probe):
    plugin = probe(f"@on_request_headers\n{CALL}\nreturn 1\n@on_http_call_response/1\n{CALL}")
    with host.http_stream([plugin]) as stream:
        [call] = stream.request_headers(REQUEST, True)
        [again] = host.deliver(call, REPLY)
        assert parts(host.deliver(again, REPLY)) == [(b"example.com", True)]


def test_23_the_headers_of_a_response_cannot_be_held(host, probe, log):
    with host.http_stream([probe("@on_response_headers\nreturn 1")]) as stream:
        stream.request_headers(REQUEST, True)
        assert parts(stream.response_headers(RESPONSE)) == [(b"200", False)]
    assert log.messages == ["proxy_on_response_headers returned PAUSE, which counts as CONTINUE: the headers of a response cannot be held"]


@pytest.mark.parametrize(
    ("limit", "expected"),
    [(32, ["(2, 0)", "(14, 1)"]), (6, ["(2, 0)", "(9, 0)", "(5, 0)", "(0, 1)"]), (1, ["(2, 0)", "(5, 0)", "(4, 0)", "(5, 0)", "(0, 1)"])],
    ids=["all", "overflow", "small"],
)
def test_24_25_pause_on_a_part_shows_all_of_it_up_to_the_limit(host, probe, trace, limit, expected):
    with host.http_stream([probe("@on_response_body/1\nreturn 1")], buffer_limit=limit) as stream:
        stream.request_headers(REQUEST, True)
        stream.response_headers(RESPONSE)
        sent = b"".join(part for chunk in (b"ab", b"cde", b"fghi", b"jklmn") for part, _ in parts(stream.response_body(chunk)))
        sent += parts(stream.response_body(b"", True))[0][0]
    assert sent == b"abcdefghijklmn"
    assert [event.partition("response_body")[2] for event in trace.events if "response_body" in event] == expected


def test_26_a_second_pause_is_taken_for_continue(host, probe, log):
    with host.http_stream([probe("@on_response_body\nreturn 1")], buffer_limit=3) as stream:
        stream.request_headers(REQUEST, True)
        stream.response_headers(RESPONSE)
        assert parts(stream.response_body(b"ab")) == []
        assert parts(stream.response_body(b"cd")) == [(b"abcd", False)]
    assert log.messages == ["proxy_on_response_body returned PAUSE, which counts as CONTINUE: it was returned earlier in this response"]


# -- Local responses ---------------------------------------------------------------------------------------------------


def test_28_all_filters_see_a_local_response(host, probe, trace):
    chain = [probe("", name="one"), probe('@on_request_headers\nsend_local_response 403 "" no x=y -1\nreturn 1', name="two"), probe("", name="three")]
    trace.take()
    with host.http_stream(chain) as stream:
        out = stream.request_headers(REQUEST, True)
    assert parts(out) == [(b"403", False), (b"no\n", True)]
    assert (b"x", b"y") in out[0].headers
    seen = [event.partition("(")[0].replace("proxy_on_", "") for event in trace.events if "_re" in event]
    assert seen == ["one: request_headers", "two: request_headers", *(f"{name}: {phase}" for phase in ("response_headers", "response_body") for name in ("one", "two", "three"))]


def test_29_a_status_beyond_999_is_refused(host, probe, log):
    with host.http_stream([probe('@on_request_headers\nsend_local_response 1000 "" "" "" -1')]) as stream:
        assert parts(stream.request_headers(REQUEST, True)) == [(b"example.com", True)]
    assert log.messages == ['send_local_response(1000, "", "", "", -1) = 2']


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ('@on_request_headers\nsend_local_response 403 "" "" "" -1\nsend_local_response 404 "" "" "" -1', "local response already stashed"),
        ('@on_response_body\nsend_local_response 403 "" "" "" -1', "response already sent"),
        ("@on_response_body\nadd_header_map_value 2 a b", "response headers"),
        ("@on_response_headers\nadd_header_map_value 0 a b", "request headers"),
        ('@on_request_headers\nhttp_call 127.0.0.1:80 :path=/ "" "" 0', "dispatch failed: no :method"),
        ('@on_request_headers\nhttp_call 127.0.0.1:80 :method=GET "" "" 0', "dispatch failed: no :path"),
        ("@on_request_headers\ndefine_metric 1 g\nincrement_metric $token 1", "can only increment counters"),
    ],
    ids=["30", "32", "headers too late", "44", "55 no method", "55 no path", "60"],
)
def test_30_32_44_55_misuse_fails_the_guest_with_the_reason(host, probe, script, reason):
    plugin = probe(script)
    with host.http_stream([plugin]) as stream:
        out = stream.request_headers(REQUEST, True)
        if not plugin.failure:
            stream.response_headers(RESPONSE)
            assert parts(stream.response_body(b"hello", True)) == [(b"hello", True)]
        else:
            assert parts(out) == [(b"500", True)]
    assert reason in failure(plugin)


def test_33_a_local_response_cancels_callouts(host, probe):
    plugin = probe(f'@on_request_headers\n{CALL}\nsend_local_response 200 "" "" "" -1\nreturn 1')
    with host.http_stream([plugin]) as stream:
        out = stream.request_headers(REQUEST, True)
        assert [type(effect) for effect in out][:2] == [HttpCall, CancelCallout]
        assert host.deliver(out[0], REPLY) == []


# -- Headers and bodies ------------------------------------------------------------------------------------------------


def test_40_41_an_added_header_stands_beside_the_other(host, probe):
    with host.http_stream([probe('@on_request_headers\nadd_header_map_value 0 user-agent 2\nreplace_header_map_value 0 x ""')]) as stream:
        [head] = stream.request_headers(REQUEST, True)
    assert [value for name, value in head.headers if name == b"user-agent"] == [b"test", b"2"]
    assert (b"x", b"") in head.headers


def test_45_46_48_bodies_are_spliced_and_read_from_an_offset(host, probe, log):
    script = "@on_request_body\nget_buffer_bytes 0 5 3\nset_buffer_bytes 0 5 3 Wasm\nset_buffer_bytes 0 0 0 >"
    with host.http_stream([probe(script)]) as stream:
        stream.request_headers(POST)
        assert parts(stream.request_body(b"HelloWorld", True))[1] == (b">HelloWasmld", True)
    assert log.messages[0].endswith('= 0 "Wor"')


def test_50_no_body_is_not_found(host, probe, log):
    with host.http_stream([probe("@on_request_headers\nget_buffer_bytes 0 0 10")]) as stream:
        stream.request_headers(REQUEST, True)
    assert log.messages == ["get_buffer_bytes(0, 0, 10) = 1"]


# -- Callouts ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("reply", "count", "pairs"),
    [(REPLY, 3, "[:status=200, :dispatch_status=ok, x=y]"), (HttpCallReply([(b":status", b"504")], failure="timeout"), 0, "[:dispatch_status=timeout]")],
    ids=["ok", "timeout"],
)
def test_51_what_became_of_a_callout(host, probe, log, trace, reply, count, pairs):
    plugin = probe(f"@on_request_headers\n{CALL}\nreturn 1\n@on_http_call_response\nget_header_map_pairs 6\nget_header_map_value 0 :path")
    with host.http_stream([plugin]) as stream:
        [call] = stream.request_headers(REQUEST, True)
        assert parts(host.deliver(call, reply)) == [(b"example.com", True)]
    assert f"proxy_on_http_call_response({call.token}, {count}, {len(reply.body) if count else 0}, 0)" in " ".join(trace.events)
    assert log.messages[1:] == [f"get_header_map_pairs(6) = 0 {pairs}", 'get_header_map_value(0, :path) = 0 "/a?b=c"']


@pytest.mark.parametrize("target", ["a:99999", "[::1", "unix:/tmp/socket", ":80"])
def test_51_55_a_target_is_an_address(engine, services, target):
    with Host(engine, services=replace(services, clusters=Clusters(any_host=Cluster("http://any.host"))), profile="wasmx") as host:
        plugin = host.load_plugin(code("c/probe_0_2_1"), configuration=f'@on_request_headers\nhttp_call {target} :method=GET&:path=/ "" "" 0')
        with host.http_stream([plugin]) as stream:
            assert parts(stream.request_headers(REQUEST, True)) == [(b"500", True)]
        assert f"dispatch failed: '{target}' is no address" in failure(plugin)


@pytest.mark.parametrize("target", ["a", "a:1", "10.0.0.1", "[::1]", "[::1]:8080"])
def test_51_targets(engine, services, target):
    with Host(engine, services=replace(services, clusters=Clusters(any_host=Cluster("http://any.host"))), profile="wasmx") as host:
        plugin = host.load_plugin(code("c/probe_0_2_1"), configuration=f'@on_request_headers\nhttp_call {target} :method=GET&:path=/ "" "" 0')
        with host.http_stream([plugin]) as stream:
            [call] = stream.request_headers(REQUEST, True)[:1]
        assert (call.cluster, dict(call.headers)[b":authority"]) == (target, target.encode())


def test_56_a_guest_that_fails_in_a_reply_is_answered_500(host, probe):
    plugin = probe(f"@on_request_headers\n{CALL}\nreturn 1\n@on_http_call_response\ntrap")
    with host.http_stream([plugin]) as stream:
        [call] = stream.request_headers(REQUEST, True)
        assert parts(host.deliver(call, REPLY)) == [(b"500", True)]


def test_a_stream_that_ends_cancels_its_callouts(host, probe):
    stream = host.http_stream([probe(f"@on_request_headers\n{CALL}\nreturn 1")])
    [call] = stream.request_headers(REQUEST, True)
    assert [(type(effect), effect.token) for effect in stream.close()] == [(CancelCallout, call.token)]


LOOKUP = "call_foreign_function resolve_lua idp.example"
FOUND = "@on_foreign_function\nget_buffer_bytes 8 0 100"


@pytest.mark.parametrize(
    ("reply", "shown"),
    [
        (NameLookupReply(b"ABCD"), "%04ABCDidp.example"),
        (NameLookupReply(b"0123456789abcdef"), "%100123456789abcdefidp.example"),
        (CalloutFailed("no such host"), "%00idp.example"),
    ],
    ids=["IPv4", "IPv6", "failed"],
)
def test_resolve_lua_has_the_address_later(host, probe, log, trace, reply, shown):
    plugin = probe(f"@on_request_headers\n{LOOKUP}\nreturn 1\n{FOUND}\nget_header_map_value 0 :path")
    with host.http_stream([plugin]) as stream:
        [lookup] = stream.request_headers(REQUEST, True)
        assert (type(lookup), lookup.cluster) == (NameLookup, "idp.example")
        with pytest.raises(TypeError, match=r"NameLookupReply\.address is 4 or 16 bytes, not b'10\.0\.0\.1'"):
            host.deliver(lookup, NameLookupReply(b"10.0.0.1"))
        assert parts(host.deliver(lookup, reply)) == [(b"example.com", True)]
        with pytest.raises(RuntimeError, match="a callout is answered once"):
            host.deliver(lookup, reply)
    assert log.messages[0].startswith("call_foreign_function(resolve_lua, idp.example) = 0")
    assert [line.lower() for line in log.messages[1:]] == [f'get_buffer_bytes(8, 0, 100) = 0 "{shown}"'.lower(), 'get_header_map_value(0, :path) = 0 "/a?b=c"']
    size = 1 + len(getattr(reply, "address", b"")) + len("idp.example")
    assert f"proxy_on_foreign_function(0, {size})" in " ".join(trace.events)


def test_resolve_lua_of_a_tick_and_of_an_answer_that_looks_again(host, probe, log, trace):
    plugin = probe(f"@on_configure\nset_tick_period_milliseconds 9\n@on_tick\n{LOOKUP}\n@on_foreign_function\nget_buffer_bytes 8 0 100\n{LOOKUP}")
    host.drain()
    [lookup] = plugin.tick()
    [again] = host.deliver(lookup, NameLookupReply(b"ABCD"))
    assert isinstance(again, NameLookup)
    assert again.token != lookup.token
    assert 'get_buffer_bytes(8, 0, 100) = 0 "%04ABCDidp.example"' in log.messages
    assert plugin.close()[-1:] == [CancelCallout(plugin, again.token)]


@pytest.mark.parametrize(("name", "address"), [("127.0.0.1", "%7f%00%00%01"), ("%5B::1%5D", "%00" * 15 + "%01")])
def test_resolve_lua_of_an_address_answers_at_once(host, probe, log, name, address):
    with host.http_stream([probe(f"@on_request_headers\ncall_foreign_function resolve_lua {name}")]) as stream:
        assert parts(stream.request_headers(REQUEST, True)) == [(b"example.com", True)]
    assert log.messages[0].lower().endswith(f'= 0 "{address}"')


@pytest.mark.parametrize(("name", "reason"), [('""', "cannot resolve, missing name"), ("a%00b", "is not the name of a host"), ("a:1", "is not the name of a host")])
def test_resolve_lua_of_no_name_fails_the_guest(host, probe, name, reason):
    plugin = probe(f"@on_request_headers\ncall_foreign_function resolve_lua {name}")
    with host.http_stream([plugin]) as stream:
        assert parts(stream.request_headers(REQUEST, True)) == [(b"500", True)]
    assert reason in failure(plugin)


def test_resolve_lua_of_a_host_that_the_filter_may_not_call(engine, services, log):
    with Host(engine, services=replace(services, clusters=Clusters()), profile="wasmx") as host:
        plugin = host.load_plugin(code("c/probe_0_2_1"), configuration=f"@on_request_headers\n{LOOKUP}")
        with host.http_stream([plugin]) as stream:
            assert parts(stream.request_headers(REQUEST, True)) == [(b"example.com", True)]
    assert log.messages[0].startswith("call_foreign_function(resolve_lua, idp.example) = 2")


def test_resolve_lua_of_a_stream_that_ends_is_cancelled(host, probe):
    stream = host.http_stream([probe(f"@on_request_headers\n{LOOKUP}\nreturn 1")])
    [lookup] = stream.request_headers(REQUEST, True)
    assert [(type(effect), effect.token) for effect in stream.close()] == [(CancelCallout, lookup.token)]
    assert host.deliver(lookup, NameLookupReply(b"ABCD")) == []


def test_resolve_lua_is_of_this_profile(engine, services, log):
    with Host(engine, services=services) as host:
        plugin = host.load_plugin(code("c/probe_0_2_1"), configuration=f"@on_request_headers\n{LOOKUP}")
        with host.http_stream([plugin]) as stream:
            stream.request_headers(REQUEST, True)
    assert log.messages[0].startswith("call_foreign_function(resolve_lua, idp.example) = 1")


def test_a_callout_of_a_connection_is_its_plugins(host, probe, trace):
    plugin = probe(f"@on_new_connection\n{CALL}\n{LOOKUP}")
    stream = host.tcp_stream([plugin])
    call, lookup = stream.new_connection()
    host.deliver(call, REPLY)
    host.deliver(lookup, CalloutFailed("no such host"))
    stream.close()
    assert plugin.failure is None
    assert "proxy_on_foreign_function" in " ".join(trace.events)


# -- Failure -----------------------------------------------------------------------------------------------------------


def test_05_06_a_guest_that_does_not_start_is_told_before_any_request(host, probe):
    with pytest.raises(PluginError, match="proxy_on_configure returned false"):
        probe("@on_configure\nreturn 0")


def test_07_the_request_after_a_trap_gets_a_fresh_instance(host):
    plugin = host.load_plugin(code("c/probe_0_2_1"), configuration="@on_request_headers\nget_header_map_value 0 x-trap\nif_status 0\ntrap", name="p", failure_policy="fail_reload", reload_interval=0)
    with host.http_stream([plugin]) as stream:
        assert parts(stream.request_headers([*REQUEST, (b"x-trap", b"1")], True)) == [(b"500", True)]
    with host.http_stream([plugin]) as stream:
        assert parts(stream.request_headers(REQUEST, True)) == [(b"example.com", True)]
    assert plugin.reloads == 1


def test_a_trap_on_a_response_leaves_the_response_alone(host, probe):
    plugin = probe("@on_response_headers\ntrap")
    with host.http_stream([plugin]) as stream:
        stream.request_headers(REQUEST, True)
        assert parts(stream.response_headers(RESPONSE)) == [(b"200", False)]
        assert parts(stream.response_body(b"hello", True)) == [(b"hello", True)]


# -- Properties, shared state ------------------------------------------------------------------------------------------


def test_properties_are_text(host, probe, log):
    paths = ("request%00size", "response%00code", "connection%00mtls", "plugin_name")
    with host.http_stream([probe("@on_response_headers\n" + "\n".join(f"get_property {path}" for path in paths))], properties={"connection.mtls": True}) as stream:
        stream.request_headers(REQUEST, True)
        stream.response_headers(RESPONSE)
    assert [line.partition(" = ")[2] for line in log.messages] == ['0 "0"', '0 "200"', '0 "true"', '0 "probe"']


def test_58_cas_zero_sets_only_what_is_absent(host, probe, log):
    script = "@on_configure\nset_shared_data k 1 0\nset_shared_data k 2 0\nget_shared_data k\nset_shared_data k 3 1"
    probe(script)
    assert [line.partition(" = ")[2] for line in log.messages] == ["0", "8", '0 "1" 1', "0"]


def test_60_a_metric_has_the_name_of_its_filter(host, probe, services):
    probe("@on_configure\ndefine_metric 0 hits\nincrement_metric $token 2", name="mine")
    assert services.metrics.get(0, "pw:mine:hits") == 2


# -- The same in each profile ------------------------------------------------------------------------------------------

IMPORTS = '(import "env" "{0}" (func (param i32)))'
CALLED = '(import "env" "{0}" (func $it {1})) (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32) {2} drop i32.const 0)'
GUEST = """
    (memory (export "memory") 1)
    (func (export "proxy_on_memory_allocate") (param i32) (result i32) i32.const 1024)
    (func (export "proxy_on_context_create") (param i32 i32))
    (func (export "proxy_on_vm_start") (param i32 i32) (result i32) i32.const 1)
    (func (export "proxy_on_configure") (param i32 i32) (result i32) i32.const 1)
"""


def guest(text="", marker='(func (export "proxy_abi_version_0_2_1"))'):
    return wat(f"(module {text} {GUEST} {marker})")


def test_01_a_module_that_says_no_version(host):
    with pytest.raises(ModuleError, match="proxy_abi_version"):
        host.load_plugin(guest(marker=""), name="p")


def test_02_an_import_that_is_not_known(host):
    with pytest.raises(ModuleError, match=r"import env\.proxy_one is offered by no Proxy-Wasm host"):
        host.load_plugin(guest(IMPORTS.format("proxy_one")), name="p")


@pytest.mark.parametrize(("given", "size"), [("of the VM", 9), ("", 0)])
def test_03_04_configurations_and_their_sizes(host, log, trace, given, size):
    script = "get_buffer_bytes 6 0 100\nget_buffer_bytes 7 0 100"
    host.load_plugin(code("c/probe_0_2_1"), name="p", vm_configuration=f"# {given}" if given else "", configuration=f"@on_configure\n{script}")
    vm, own = log.messages
    assert vm.partition(" = ")[2] == (f'0 "# {given}"' if given else '0 ""')
    assert own.startswith('get_buffer_bytes(7, 0, 100) = 0 "@on_configure')
    assert [event for event in trace.events if "vm_start" in event or "on_configure" in event] == [f"p: proxy_on_vm_start({size + 2 * bool(given)},)", "p: proxy_on_configure(63,)"]


def test_09_callbacks_that_a_filter_does_not_have(host, trace):
    plugin = host.load_plugin(guest(), name="p")
    with host.http_stream([plugin]) as stream:
        assert parts(stream.request_headers(REQUEST)) == [(b"example.com", False)]
        assert parts(stream.request_body(b"x", True)) == [(b"x", True)]
        assert parts(stream.response_headers(RESPONSE)) == [(b"200", False)]
        assert parts(stream.response_body(b"y", True)) == [(b"y", True)]
    assert [event for event in trace.events if "_re" in event] == []


def test_10_a_hostcall_that_is_known_and_not_there_can_be_linked(host):
    """ngx_wasm_module has no gRPC, and fails the guest that calls it; here there is gRPC."""
    text = CALLED.format("proxy_grpc_cancel", "(param i32) (result i32)", "(call $it (i32.const 7))")
    plugin = host.load_plugin(guest(text), name="p")
    with host.http_stream([plugin]) as stream:
        assert parts(stream.request_headers(REQUEST, True)) == [(b"example.com", True)]
    assert plugin.failure is None


def test_20_callbacks_on_headers_in_abi_0_1_0(host, probe, trace, log):
    plugin = probe("@on_request_headers\nget_header_map_value 0 nope", version="0_1_0")
    with host.http_stream([plugin]) as stream:
        stream.request_headers(REQUEST, True)
    assert "probe: proxy_on_request_headers(5,)" in trace.events
    assert log.messages == ["get_header_map_value(0, nope) = 0 \"\""]


def test_27_an_action_that_is_none_holds_the_request(host, probe):
    with host.http_stream([probe("@on_request_headers\nreturn 7")]) as stream:
        assert stream.request_headers(REQUEST, True) == []
        assert stream.paused


def test_31_a_local_response_in_place_of_upstreams(host, probe):
    with host.http_stream([probe('@on_response_headers\nsend_local_response 418 "" tea "" -1')]) as stream:
        stream.request_headers(REQUEST, True)
        head, body = stream.response_headers(RESPONSE)
        assert parts([head, body]) == [(b"418", False), (b"tea\n", True)]
        assert b"server" not in dict(head.headers)
        assert stream.response_body(b"upstream's", True) == []


def test_34_bytes_in_the_headers_of_a_local_response_cannot_split_it(host, probe):
    with host.http_stream([probe('@on_request_headers\nsend_local_response 200 "" "" x%0d%0ay=1&z=a%0d%0ab:2 -1\nreturn 1')]) as stream:
        out = stream.request_headers(REQUEST, True)
    assert response_head(out[0].headers, True) is None  # a carrier answers 502


def test_35_36_names_have_no_case_and_what_is_missing_is_not_found(host, probe, log):
    with host.http_stream([probe("@on_request_headers\nget_header_map_value 0 User-AGENT\nget_header_map_value 0 nope")]) as stream:
        stream.request_headers(REQUEST, True)
    assert [line.partition(" = ")[2] for line in log.messages] == ['0 "test"', "1"]


@pytest.mark.parametrize("path", ["/a?b=c", "/x?", "/"])
def test_37_a_path_with_its_query(host, probe, path):
    with host.http_stream([probe(f"@on_request_headers\nreplace_header_map_value 0 :path {path}")]) as stream:
        [head] = stream.request_headers(REQUEST, True)
    assert dict(head.headers)[b":path"] == path.encode()


def test_38_the_status_of_a_response(host, probe):
    with host.http_stream([probe("@on_response_headers\nreplace_header_map_value 2 :status 201")]) as stream:
        stream.request_headers(REQUEST, True)
        assert parts(stream.response_headers(RESPONSE, True))[0][0] == b"201"


def test_39_42_what_nginx_keeps_from_filters_is_not_kept_here(host, probe, log):
    """``:scheme`` can be set, and all headers are there: both are differences that no filter counts on."""
    many = [*REQUEST, *((b"h%d" % number, b"x") for number in range(150))]
    with host.http_stream([probe("@on_request_headers\nreplace_header_map_value 0 :scheme https\nget_header_map_value 0 h149")], header_limits=None) as stream:
        [head] = stream.request_headers(many, True)
    assert dict(head.headers)[b":scheme"] == b"https"
    assert log.messages[-1] == 'get_header_map_value(0, h149) = 0 "x"'


def test_43_addresses_beyond_the_guests_memory(host, probe, log):
    script = "@on_request_headers\nget_header_map_value 0 at:0xfffffff0:8\nout 0xfffffff0 0xfffffff4\nget_header_map_value 0 :path"
    with host.http_stream([probe(script)]) as stream:
        assert parts(stream.request_headers(REQUEST, True)) == [(b"example.com", True)]
    assert [line.partition(" = ")[2] for line in log.messages] == ["6", "6"]


def test_47_the_length_of_a_body_that_was_set_is_for_the_carrier(host, probe):
    """`Exchange` says it anew, as for each profile; here the filter's own is left."""
    with host.http_stream([probe("@on_request_body\nset_buffer_bytes 0 0 100 longer%20body")]) as stream:
        stream.request_headers([*POST, (b"content-length", b"2")])
        out = stream.request_body(b"hi", True)
        assert stream.changes_bodies
    assert parts(out)[1] == (b"longer body", True)


def test_49_an_offset_that_overflows(host, probe, log):
    with host.http_stream([probe("@on_request_body\nget_buffer_bytes 0 0xffffffff 0xffffffff")]) as stream:
        stream.request_headers(POST)
        stream.request_body(b"body", True)
    assert log.messages[0].partition(" = ")[2] != '0 "body"'


def test_57_ticks_begin_and_end_and_outlive_a_trap(host, clock):
    script = "@on_configure\nset_tick_period_milliseconds 0\nset_tick_period_milliseconds 9\n@on_tick/2\nset_tick_period_milliseconds 0\n@on_tick/1\ntrap"
    plugin = host.load_plugin(code("c/probe_0_2_1"), name="p", configuration=script, failure_policy="fail_reload", reload_interval=0)
    assert [effect.milliseconds for effect in host.drain()] == [9]
    assert [effect.milliseconds for effect in plugin.tick()] == [0]
    clock.advance(60)
    plugin.heal()
    assert (plugin.reloads, [effect.milliseconds for effect in host.drain()]) == (1, [9])


def test_59_queues_that_are_empty_full_or_unknown(host, probe, log):
    script = "@on_configure\nregister_shared_queue q\ndequeue_shared_queue $token\nenqueue_shared_queue 999 x"
    probe(script)
    assert [line.partition(" = ")[2].split()[0] for line in log.messages] == ["0", "7", "1"]
