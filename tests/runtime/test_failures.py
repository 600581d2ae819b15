# ruff: noqa: ARG005 - a table of functions that are called alike
"""A guest that fails ends all of its streams at once, as its plugin's policy says; nothing waits for it any more."""

from __future__ import annotations

import gc
import resource

import pytest

from proxywasm_host import Host, Limits, Services
from proxywasm_host.runtime.effects import CalloutFailed, HttpCallReply
from proxywasm_host.services import SystemClock
from tests.support import REQUEST, RESPONSE, code

OK = HttpCallReply([(b":status", b"200")])
CALL = 'http_call upstream :method=GET&:path=/&:authority=x "" "" 5000\nreturn 1'


def told(effects, *streams) -> list[tuple]:
    """Kind, which of the streams, and the status or the data."""
    seen = []
    for effect in effects:
        of = streams.index(effect.stream) if hasattr(effect, "stream") else None
        headers = dict(getattr(effect, "headers", None) or [])
        seen.append((type(effect).__name__, of, headers.get(b":status", getattr(effect, "data", None))))
    return seen


def deliver(host, plugin, effects):
    calls = [effect for effect in effects if type(effect).__name__ == "HttpCall"]
    return host.deliver(calls[0], OK)


FAILS = {
    # what the guest does, and what makes it fail while two streams wait
    "a reply": ("@on_http_call_response\ntrap", deliver),
    "a reply that failed": ("@on_http_call_response\ntrap", lambda host, plugin, effects: host.deliver(effects[-1], CalloutFailed("reset"))),
    "a tick": ("@on_configure\nset_tick_period_milliseconds 5\n@on_tick\ntrap", lambda host, plugin, effects: plugin.tick()),
    "a queue": (
        "@on_configure\nregister_shared_queue q\n@on_queue_ready\ntrap",
        lambda host, plugin, effects: host.services.shared_queues.enqueue(1, b"x") or plugin.queue_ready(1),
    ),
    "a foreign function": ("@on_foreign_function\ntrap", lambda host, plugin, effects: plugin.foreign_function(1, b"")),
    "an endless loop": ("@on_configure\nset_tick_period_milliseconds 5\n@on_tick\nloop", lambda host, plugin, effects: plugin.tick()),
    "the end of a stream": ("@on_log\ntrap", lambda host, plugin, effects: host.http_stream([plugin]).close()),
    "a stream before": ("@on_response_headers\ntrap", None),
}


@pytest.mark.parametrize("policy", ["fail_closed", "fail_open", "fail_reload"])
@pytest.mark.parametrize(("script", "fails"), FAILS.values(), ids=FAILS)
def test_paused_streams_end_at_once(host, probe, clock, script, fails, policy):
    plugin = probe(f"@on_request_headers\n{CALL}\n{script}", failure_policy=policy, limits=Limits(memory=64 << 20, deadline=0.2))
    host.drain()
    one, two = host.http_stream([plugin]), host.http_stream([plugin])
    calls = one.request_headers(REQUEST, True) + two.request_headers(REQUEST)
    assert [type(effect).__name__ for effect in calls] == ["HttpCall", "HttpCall"]
    if fails is None:
        plugin._vm.call(one._contexts[0], "on_response_headers", one._contexts[0].id, 0, 0)
        effects = host.drain()
    else:
        effects = fails(host, plugin, calls)
    effects = [effect for effect in effects if type(effect).__name__ not in ("SetTickPeriod", "QueueReady")]
    cancelled = [effect.token for effect in effects if type(effect).__name__ == "CancelCallout"]
    assert set(cancelled) >= {calls[0].token, calls[1].token} - {calls[0].token if fails is deliver else calls[1].token}
    ended = told([effect for effect in effects if hasattr(effect, "stream")], one, two)
    # under fail-open the filter is left out of streams to come; those that it had begun end too, as in Envoy
    assert ended == [("ResponseHeaders", 0, b"503"), ("ResponseHeaders", 1, b"503")]
    assert one.failure is two.failure is plugin.failure is not None
    assert (one.details, two.details) == ("wasm_fail_stream", "wasm_fail_stream")
    assert one.close() + two.close() == []
    # the callout's reply comes too late, and the stream that comes next is served as the policy says
    assert host.deliver(calls[1], OK) == []
    clock.advance(11)
    with host.http_stream([plugin]) as stream:
        kinds = [type(effect).__name__ for effect in stream.request_headers(REQUEST, True)]
    assert kinds[-1] == {"fail_closed": "ResponseHeaders", "fail_open": "RequestHeaders", "fail_reload": "HttpCall"}[policy]


def test_a_stream_that_fail_open_spares_goes_on(host, probe):
    """A flag of profiles; what the filter held goes on without it, in both directions."""
    plugin = probe(
        "@on_request_headers\nreturn 1\n@on_request_body\nreturn 1\n@on_response_body\nreturn 1\n@on_foreign_function\ntrap",
        failure_policy="fail_open",
        profile="spec",
    )
    one, two = host.http_stream([plugin]), host.http_stream([plugin])
    assert one.request_headers(REQUEST) + one.request_body(b"body", True) == []
    two.request_headers(REQUEST, True)
    two._contexts[0].continue_stream(0)
    assert told(host.drain(), one, two) == [("RequestHeaders", 1, None)]
    assert told(two.response_headers(RESPONSE), one, two) == [("ResponseHeaders", 1, b"200")]
    assert two.response_body(b"held") == []
    assert told(plugin.foreign_function(1, b""), one, two) == [
        ("RequestHeaders", 0, None),
        ("RequestBody", 0, b"body"),
        ("ResponseBody", 1, b"held"),
    ]
    assert (one.failure, two.failure) == (None, None)
    assert told(two.response_body(b" more", True), one, two) == [("ResponseBody", 1, b" more")]
    one.close()
    two.close()


def test_a_response_under_way_is_reset(host, probe):
    plugin = probe("@on_foreign_function\ntrap")
    stream = host.http_stream([plugin])
    stream.request_headers(REQUEST, True)
    stream.response_headers(RESPONSE)
    stream.response_body(b"a part")
    assert told(plugin.foreign_function(1, b""), stream) == [("ResetStream", 0, None)]
    assert (stream.failure, stream.reset_details) == (plugin.failure, "wasm_fail_stream")
    stream.close()


def test_a_stream_that_is_whole_is_left_alone(host, probe):
    plugin = probe("@on_foreign_function\ntrap")
    stream = host.http_stream([plugin])
    stream.request_headers(REQUEST, True)
    stream.response_headers(RESPONSE, True)
    assert plugin.foreign_function(1, b"") == []
    assert stream.reset_details is None
    stream.close()


def test_a_stream_that_the_guest_has_not_met_is_answered_when_it_does(host, probe):
    holds = probe("@on_request_headers\nreturn 1", name="holds", vm_id="1")
    fails = probe("@on_foreign_function\ntrap", name="fails", vm_id="2")
    stream = host.http_stream([holds, fails])
    stream.request_headers(REQUEST, True)
    assert fails.foreign_function(1, b"") == []
    stream._contexts[0].continue_stream(0)
    assert told(host.drain(), stream) == [("ResponseHeaders", 0, b"503")]
    assert stream.failure is fails.failure
    stream.close()


def test_plugins_of_one_vm_fail_with_it(host, probe):
    one, two = (probe(f"@on_request_headers\nreturn 1\n@on_foreign_function\ntrap\nsay {name}", name=name, vm_id="vm", vm_configuration="") for name in "ab")
    assert one._vm is two._vm
    streams = [host.http_stream(chain) for chain in ([one], [two], [one, two])]
    for stream in streams:
        stream.request_headers(REQUEST, True)
    assert told(two.foreign_function(1, b""), *streams) == [("ResponseHeaders", at, b"503") for at in range(3)]
    for stream in streams:
        stream.close()


def test_what_ends_the_host_itself_ends_streams_too(engine):
    class Interrupts:
        def callback(self, context, row, args):
            pass

        def returned(self, context, row, result, *, failed):
            pass

        def hostcall(self, context, call):
            if call.row.name == "proxy_log":
                raise KeyboardInterrupt

    with Host(engine, listener=Interrupts(), services=Services(clusters={"upstream"})) as host:
        plugin = host.load_plugin(code("c/probe_0_2_1"), configuration="@on_request_headers\nreturn 1\n@on_foreign_function\nsay x")
        stream = host.http_stream([plugin])
        stream.request_headers(REQUEST, True)
        with pytest.raises(KeyboardInterrupt):
            plugin.foreign_function(1, b"")
        assert told(host.drain(), stream) == [("ResponseHeaders", 0, b"503")]
        stream.close()


@pytest.mark.parametrize("policy", ["fail_closed", "fail_open", "fail_reload"])
def test_connections_end_at_once(host, probe, policy):
    script = "@on_new_connection\nif_status 0\n@on_downstream_data\nreturn 1\n@on_upstream_data\nreturn 1\n@on_foreign_function\ntrap"
    for profile, kinds in (("envoy", ["CloseConnection"] * 2), ("spec", ["DownstreamData", "UpstreamData"] * 2)):
        plugin = probe(script, failure_policy=policy, profile=profile, vm_id=profile)
        streams = [host.tcp_stream([plugin]), host.tcp_stream([plugin])]
        for stream in streams:
            stream.new_connection()
            assert stream.downstream_data(b"down") + stream.upstream_data(b"up") == []
        effects = plugin.foreign_function(1, b"")
        spared = policy == "fail_open" and profile == "spec"
        assert [type(effect).__name__ for effect in effects] == (kinds if spared else ["CloseConnection"] * 2)
        for stream in streams:
            assert stream.failure is (None if spared else plugin.failure)
            stream.close()


# -- A net ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("script", "feed", "waiting", "ended"),
    [
        (
            f"@on_request_headers\n{CALL}",
            lambda s: s.request_headers(REQUEST, True),
            "plugin 'probe', which holds the request and has callouts under way: HttpCall to 'upstream'",
            [("ResponseHeaders", 0, b"504"), ("ResponseBody", 0, b"stream timeout")],
        ),
        (
            "@on_request_headers\nreturn 1",
            lambda s: s.request_headers(REQUEST),
            "plugin 'probe', which holds the request",
            [("ResponseHeaders", 0, b"408"), ("ResponseBody", 0, b"stream timeout")],
        ),
        (
            "",
            lambda s: s.request_headers(REQUEST),
            "the rest of the request",
            [("ResponseHeaders", 0, b"408"), ("ResponseBody", 0, b"stream timeout")],
        ),
        (
            "",
            lambda s: s.request_headers(REQUEST, True),
            "the response",
            [("ResponseHeaders", 0, b"504"), ("ResponseBody", 0, b"stream timeout")],
        ),
        (
            "@on_response_headers\nreturn 1",
            lambda s: s.request_headers(REQUEST, True) + s.response_headers(RESPONSE),
            "plugin 'probe', which holds the response",
            [("ResponseHeaders", 0, b"504"), ("ResponseBody", 0, b"stream timeout")],
        ),
        (
            "",
            lambda s: s.request_headers(REQUEST, True) + s.response_headers(RESPONSE),
            "the rest of the response",
            [("ResetStream", 0, None)],
        ),
        (
            "@on_response_body\nreturn 1",
            lambda s: s.request_headers(REQUEST, True) + s.response_headers(RESPONSE) + s.response_body(b"x", True),
            "plugin 'probe', which holds the response",
            [("ResetStream", 0, None)],
        ),
        (
            '@on_request_headers\nsend_local_response 403 d "" "" -1\n@on_response_headers\nreturn 1',
            lambda s: s.request_headers(REQUEST, True),
            "plugin 'probe', which holds the response",
            [("ResponseHeaders", 0, b"504"), ("ResponseBody", 0, b"stream timeout")],
        ),
    ],
)
def test_a_stream_that_waits_for_too_long(host, probe, script, feed, waiting, ended):
    stream = host.http_stream([probe(script)])
    feed(stream)
    assert stream.waiting_for == waiting
    assert told(stream.time_out(), stream) == ended
    assert stream.details == "stream_idle_timeout"
    assert stream.time_out() == []
    stream.close()
    assert stream.time_out() == []


def test_a_filter_that_holds_the_answer_to_a_stream_that_waited_too_long_is_passed_by(host, probe):
    stream = host.http_stream([probe("@on_request_headers\nreturn 1\n@on_response_headers\nreturn 1")])
    stream.request_headers(REQUEST, True)
    assert told(stream.time_out(), stream) == [("ResponseHeaders", 0, b"504"), ("ResponseBody", 0, b"stream timeout")]
    stream.close()


def test_a_whole_stream_does_not_time_out(host, probe):
    with host.http_stream([probe()]) as stream:
        stream.request_headers(REQUEST, True)
        stream.response_headers(RESPONSE, True)
        assert stream.time_out() == []


# -- Healing -------------------------------------------------------------------------------------------------------------


def status(host, plugin, headers=REQUEST) -> str:
    with host.http_stream([plugin]) as stream:
        return type(stream.request_headers(headers, True)[0]).__name__


def test_with_no_interval_a_filter_that_a_client_makes_fail_is_there_for_the_next(host):
    """A header that is not UTF-8 makes the Rust SDK panic."""
    plugin = host.load_plugin(code("rust/auth"), configuration="t", failure_policy="fail_reload", reload_interval=0)
    good, bad = ([*REQUEST, (b"authorization", value)] for value in (b"Bearer t", b"\xff\xfe"))
    for reloads in range(20):
        assert (status(host, plugin, good), plugin.reloads) == ("RequestHeaders", reloads)
        assert status(host, plugin, bad) == "ResponseHeaders"
        assert plugin.failure is not None


def test_a_closed_plugin_is_not_healed(host, probe):
    plugin = probe("@on_request_headers\ntrap", failure_policy="fail_reload", reload_interval=0)
    host.http_stream([plugin]).request_headers([(b":method", b"GET"), (b":path", b"/"), (b":authority", b"h")], True)
    assert plugin.failure is not None
    plugin.close()
    plugin.heal()
    assert (plugin.reloads, plugin.closed, plugin.failure is None) == (0, True, False)


def test_no_more_than_half_of_the_time_goes_into_starts(host, probe, clock):
    class Slow:
        def callback(self, context, row, args):
            if row.key == "on_configure":
                clock.advance(0.3)

        def returned(self, context, row, result, *, failed):
            pass

        def hostcall(self, context, call):
            pass

    host.listen(Slow())
    plugin = probe("@on_request_headers\ntrap", failure_policy="fail_reload", reload_interval=0)
    status(host, plugin)
    status(host, plugin)
    assert plugin.reloads == 1  # at once
    status(host, plugin)
    assert plugin.reloads == 1
    clock.advance(0.29)
    status(host, plugin)
    assert plugin.reloads == 1
    clock.advance(0.02)
    status(host, plugin)
    assert plugin.reloads == 2


def test_a_vm_that_does_not_start_again_is_told_and_backed_off(host, probe, clock):
    told = []
    script = "@on_configure\nget_property broken\nif_status 0\nreturn 0\n@on_request_headers\ntrap"
    plugin = probe(script, failure_policy="fail_reload", reload_interval=0)
    plugin.on_failure.append(told.append)
    host.properties = {"broken": "yes"}
    status(host, plugin)
    assert [failure.kind for failure in told] == ["trap"]
    assert status(host, plugin) == "ResponseHeaders"
    assert [failure.kind for failure in told] == ["trap", "refused"]
    assert (status(host, plugin), len(told)) == ("ResponseHeaders", 2)  # backed off, and still answered
    assert plugin.failure.kind == "trap"
    host.properties = {}
    clock.advance(2.1)
    assert status(host, plugin) == "ResponseHeaders"
    assert plugin.reloads == 1


def test_vms_that_failed_leave_nothing_behind(engine):
    with Host(engine, services=Services(clock=SystemClock())) as host:
        plugin = host.load_plugin(
            code("c/probe_0_2_1"), configuration="@on_request_headers\ngrow 100\ntrap", failure_policy="fail_reload", reload_interval=0
        )
        used = []
        for _ in range(2):
            for _ in range(40):
                plugin._retry_at = 0.0
                status(host, plugin)
            gc.collect()
            used.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
        assert plugin.reloads == 79
        assert used[1] - used[0] < 100 * 1024  # KiB, where 40 of them would be 250 MiB
