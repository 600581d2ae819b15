"""One whole request through a chain: what comes out, what is recorded, what happens when it does not come out."""

from __future__ import annotations

import pytest

from proxywasm_host import FailurePolicy, Host, Services
from proxywasm_host.runtime.effects import (
    CalloutFailed,
    CancelCallout,
    GrpcCallReply,
    GrpcClosed,
    GrpcInitialMetadata,
    GrpcMessage,
    GrpcTrailingMetadata,
    HttpCallReply,
    QueueReady,
    RequestHeaders,
    SetTickPeriod,
)
from proxywasm_host.runtime.failure import describe
from proxywasm_host.services import GuestLog
from proxywasm_host.testing import ExchangeResult, InputEvent, Message, Recorder, exchange
from tests.support import code

OK = HttpCallReply([(b":status", b"200")])
POST = Message.request("POST", "http://example.com/p", chunks=[b"abc", b"def"])


@pytest.fixture
def recorder() -> Recorder:
    return Recorder()


@pytest.fixture
def host(engine, recorder):
    with Host(engine, services=Services(log=recorder, clusters={"upstream", "silent"}), listener=recorder) as host:
        yield host


@pytest.fixture
def run(host, recorder):
    """``run("rust/headers", "c/probe_0_2_1=script", request=…)`` sends a request through these filters."""

    def run(*filters: str, request: Message | None = None, response: Message | None = None, options=(), **more):
        plugins = []
        for number, name in enumerate(filters):
            path, _, configuration = name.partition("=")
            own = {"name": f"f{number}", "vm_id": f"{number}", "configuration": configuration}
            plugins.append(host.load_plugin(code(path), **own, **dict(options)))
        return exchange(host, plugins, request, response, recorder=recorder, **more)

    return run


def calls(result: ExchangeResult) -> list[str]:
    """The callbacks in order, as ``f0:request_headers(4, 1)=0`` without the context's id."""
    return [
        f"{i.plugin}:{i.name.removeprefix('proxy_on_')}({', '.join(map(str, i.arguments[1:]))})"
        + ("" if i.row.result is None else f"={'trap' if i.failed else i.result}")
        for i in result.invocations
        if i.name != "proxy_on_context_create"
    ]


# -- Messages ----------------------------------------------------------------------------------------------------------


def test_a_request_is_written_as_envoy_shows_it():
    headers = [("User-Agent", "a"), ("X", "1"), ("user-agent", b"b"), ("x", "2"), ("Host", "other:81")]
    assert Message.request("PUT", "https://u@example.com/p?q=1#f", headers).headers == [
        (b":authority", b"other:81"),
        (b":path", b"/p?q=1"),
        (b":method", b"PUT"),
        (b":scheme", b"https"),
        (b"user-agent", b"a,b"),
        (b"x", b"1"),
        (b"x", b"2"),
    ]


def test_a_pseudo_header_that_is_given_wins():
    request = Message.request(
        "GET", "/p", [(":path", "*"), (":method", "OPTIONS"), ("x", "1"), (":protocol", "websocket")]
    )
    assert request.headers == [
        (b":authority", b"example.com"),
        (b":path", b"*"),
        (b":method", b"OPTIONS"),
        (b":scheme", b"http"),
        (b":protocol", b"websocket"),
        (b"x", b"1"),
    ]


@pytest.mark.parametrize(
    ("url", "scheme", "authority", "path"),
    [
        ("/p?a=b#c", b"http", b"example.com", b"/p?a=b"),
        ("localhost:80", b"http", b"localhost:80", b"/"),
        ("https://[::1]:8443?x", b"https", b"[::1]:8443", b"/?x"),
        ("HTTP://u:p@h/p?#f", b"http", b"h", b"/p?"),
        ("/p?", b"http", b"example.com", b"/p?"),
        ("localhost/to?u=ftp://x", b"http", b"localhost", b"/to?u=ftp://x"),
        ("/\udcff", b"http", b"example.com", b"/\xff"),
    ],
)
def test_a_url_may_be_short(url, scheme, authority, path):
    request = Message.request("GET", url)
    assert [request.first(name) for name in (b":scheme", b":authority", b":path")] == [scheme, authority, path]


@pytest.mark.parametrize(("url", "why"), [("", "empty"), ("http://a b/", "white space"), ("http:///p", "no host")])
def test_a_url_that_is_none(url, why):
    with pytest.raises(ValueError, match=why):
        Message.request("GET", url)


def test_a_body_ends_as_http_1_ends_it_or_with_its_last_chunk():
    assert Message.response(200, chunks=[b"a"]).chunks == [b"a", b""]
    assert Message.response(200, chunks=[b"a"], http1=False).chunks == [b"a"]
    assert Message.response(200, chunks=[b"a"], trailers=[("T", "1")]).chunks == [b"a"]
    assert Message.response(204).chunks == []


# -- Through the filters -----------------------------------------------------------------------------------------------


def test_a_request_and_its_response(run):
    result = run(
        "rust/headers",
        request=Message.request("GET", "/a", [("x-remove-me", "1")]),
        response=Message.response(201, [("server", "up")], [b"Hello."]),
    )
    assert result.upstream_request == Message(
        [
            (b":authority", b"example.com"),
            (b":path", b"/a"),
            (b":method", b"GET"),
            (b":scheme", b"http"),
            (b"x-wasm", b"hello"),
        ]
    )
    client = result.client_response
    assert client == Message(
        [(b":status", b"201"), (b"x-wasm", b"hello"), (b"server", b"proxy-wasm")], [b"Hello.", b""]
    )
    assert (client.status, client.body, client.first(b"nope")) == (201, b"Hello.", b"")
    assert (result.details, result.local_response, result.reset, result.failure, result.held_by) == (
        "via_upstream", None, None, None, {},
    )  # fmt: skip
    assert [line.message for line in result.logs] == [
        "headers: request for /a by -",
        "headers: response by up",
        "headers: done",
    ]


def test_the_default_is_a_get_that_is_answered_200(run):
    result = run()
    assert result.upstream_request.first(b":method") == b"GET"
    assert result.client_response == Message([(b":status", b"200")])


def test_the_callbacks_of_a_chain_in_order(run):
    trailers = [("t", "1")]
    result = run(
        "c/probe_0_2_1",
        "c/probe_0_2_1",
        request=Message.request("POST", chunks=[b"aaa", b"bb"], trailers=trailers),
        response=Message.response(200, chunks=[b"xxx"], trailers=trailers),
    )
    assert calls(result) == [
        "f0:request_headers(4, 0)=0", "f1:request_headers(4, 0)=0",
        "f0:request_body(3, 0)=0", "f1:request_body(3, 0)=0",
        "f0:request_body(2, 0)=0", "f1:request_body(2, 0)=0",
        "f0:request_trailers(1)=0", "f1:request_trailers(1)=0",
        "f1:response_headers(1, 0)=0", "f0:response_headers(1, 0)=0",
        "f1:response_body(3, 0)=0", "f0:response_body(3, 0)=0",
        "f1:response_trailers(1)=0", "f0:response_trailers(1)=0",
        "f0:log()", "f1:log()", "f0:done()=1", "f0:delete()", "f1:done()=1", "f1:delete()",
    ]  # fmt: skip
    assert (result.upstream_request.chunks, result.upstream_request.trailers) == ([b"aaa", b"bb"], [(b"t", b"1")])
    assert (result.client_response.body, result.client_response.trailers) == (b"xxx", [(b"t", b"1")])


def test_a_request_that_stays_paused_never_reaches_upstream(run):
    result = run("c/probe_0_2_1=@on_request_body\nreturn 1\n", request=POST)
    assert result.held_by == {"request": "f0"}
    assert not result.upstream_request.complete
    assert result.client_response is None


def test_a_response_that_stays_paused(run):
    result = run(
        "c/probe_0_2_1", "c/probe_0_2_1=@on_response_headers\nreturn 1\n", response=Message.response(200, chunks=[b"x"])
    )
    assert result.held_by == {"response": "f1"}
    assert (result.upstream_request.complete, result.client_response) == (True, None)


def test_a_local_response_ends_the_request(run, recorder):
    result = run("rust/auth=secret", request=POST)
    assert (result.local_response.status, result.client_response.status, result.upstream_request) == (401, 401, None)
    assert [entry.what for entry in recorder.timeline if isinstance(entry, InputEvent)] == ["request headers", "end"]


def test_a_reset_ends_it_too(run):
    result = run("c/probe_0_2_1=@on_request_headers\nclose_stream 0\n")
    assert (result.reset, result.upstream_request, result.client_response) == ("wasm_close_stream", None, None)


def test_a_trap_is_told(run):
    result = run("rust/panics=request_headers")
    assert (result.client_response.status, result.details) == (503, "wasm_fail_stream")
    assert (result.failure.kind, result.failure.callback) == ("trap", "proxy_on_request_headers")
    assert calls(result) == ["f0:request_headers(4, 1)=trap"]


def test_a_trap_after_the_response_is_told(run):
    result = run("rust/panics=log")
    assert (result.client_response.status, result.failure.callback) == (200, "proxy_on_log")


@pytest.mark.parametrize(("policy", "status"), [(FailurePolicy.FAIL_OPEN, 200), (FailurePolicy.FAIL_CLOSED, 503)])
def test_what_comes_after_a_failure(host, run, policy, status):
    run("rust/panics=log", options={"failure_policy": policy})
    after = exchange(host, host.plugins)
    assert (after.client_response.status, after.failure.callback, after.invocations) == (status, "proxy_on_log", [])


# -- Callouts, ticks, queues -------------------------------------------------------------------------------------------


def test_a_callout_gets_the_reply_of_its_cluster(run):
    asked = []

    def answer(callout):
        asked.append(callout.headers)
        return [HttpCallReply([(b":status", b"403")], b"no")]

    result = run("rust/auth=callout:upstream", callouts={"upstream": answer})
    assert asked == [[(b":method", b"GET"), (b":path", b"/check"), (b":authority", b"upstream")]]
    assert result.client_response.status == 403
    assert "auth: token 4 answered 403 no" in [line.message for line in result.logs]


def test_a_reply_comes_at_once_or_after_the_whole_request(run):
    shown = [
        (calls(result)[1:3], result.upstream_request.chunks)
        for result in (
            run("rust/auth=callout:upstream", request=POST, callouts={"upstream": OK}, late_replies=late)
            for late in (False, True)
        )
    ]
    at_once = ["f0:http_call_response(4, 1, 0, 0)", "f0:request_body(3, 0)=0"], [b"abc", b"def", b""]
    late = ["f0:http_call_response(8, 1, 0, 0)", "f0:request_body(6, 1)=0"], [b"abcdef"]
    assert shown == [at_once, late]


def test_a_callout_that_fails(run):
    result = run("rust/auth=callout:upstream", callouts={"upstream": CalloutFailed()})
    assert any(line.message.startswith("auth: no answer") for line in result.logs)


def test_a_callout_that_nobody_answers_waits(run):
    assert run("rust/auth=callout:silent").held_by == {"request": "f0"}


def test_an_unknown_cluster_is_refused(run):
    result = run("rust/auth=callout:nowhere")
    assert "auth: cannot ask nowhere: BadArgument" in [line.message for line in result.logs]


def test_grpc(run):
    [line] = [
        line.message
        for line in run("rust/grpc=upstream,s,m,hi", callouts={"upstream": GrpcCallReply(b"yes")}).logs
        if "answered" in line.message
    ]
    assert line == 'grpc: call 5 answered with 3 bytes "yes"'
    replies = [GrpcInitialMetadata([]), GrpcMessage(b"a"), GrpcTrailingMetadata([]), GrpcClosed(3, "bad")]
    result = run("rust/grpc=stream:upstream,s,m,hi", callouts={"upstream": replies})
    assert [line.message.split(",")[0] for line in result.logs][-2:] == [
        "grpc: stream 6 trailing metadata",
        'grpc: stream 6 closed with 3: 3 "bad"',
    ]


def test_a_cancelled_callout_gets_no_reply(run):
    script = "@on_request_headers\ngrpc_stream upstream s m pairs:\ngrpc_cancel 6\nreturn 1\n"
    result = run(f"c/probe_0_2_1={script}", callouts={"upstream": GrpcMessage(b"a")}, late_replies=True)
    assert any(isinstance(effect, CancelCallout) for effect in result.effects)
    assert not any("grpc_receive" in call for call in calls(result))


def test_a_filter_that_asks_for_ever_is_given_up(run):
    ask = 'http_call upstream :method=GET&:path=/&:authority=x "" pairs: 0\n'
    script = f"@on_request_headers\n{ask}return 1\n@on_http_call_response\n{ask}"
    result = run(f"c/probe_0_2_1={script}", callouts={"upstream": OK})
    assert sum("http_call_response" in call for call in calls(result)) == 1000


def test_ticks_pass_while_something_is_paused(run):
    script = "@on_configure\nset_tick_period_milliseconds 10\n@on_request_headers\nreturn 1\n"
    resume = "@on_tick\nset_effective_context $stream\ncontinue_stream 0\n"
    paused = run(f"c/probe_0_2_1={script}", ticks=3)
    assert calls(paused).count("f0:tick()") == 3
    assert paused.held_by == {"request": "f0"}
    resumed = run(f"c/probe_0_2_1={script}{resume}", ticks=3)
    assert calls(resumed).count("f0:tick()") == 1
    assert resumed.client_response.status == 200


def test_no_tick_passes_for_whom_none_was_asked_for(run):
    assert calls(run("c/probe_0_2_1=@on_request_headers\nreturn 1\n", ticks=3)) == [
        "f0:request_headers(4, 1)=1", "f0:log()", "f0:done()=1", "f0:delete()",
    ]  # fmt: skip


def test_messages_in_queues_arrive_and_effects_are_kept(run):
    script = "@on_request_headers\nregister_shared_queue q\nenqueue_shared_queue 1 hi\n@on_configure\nset_tick_period_milliseconds 10\n"
    result = run(f"c/probe_0_2_1={script}")
    assert "f0:queue_ready(1)" in calls(result)
    assert [type(effect) for effect in result.effects[:3]] == [SetTickPeriod, RequestHeaders, QueueReady]


# -- The recorder ------------------------------------------------------------------------------------------------------


def test_the_recorder_keeps_everything_in_order(run, recorder):
    run(
        "c/probe_0_2_1=@on_configure\nget_buffer_bytes 7 0 4\n",
        request=Message([(b":authority", b"x"), (b":path", b"/a"), (b":method", b"GET")]),
    )
    assert list(map(repr, recorder.timeline)) == [
        "f0: proxy_on_context_create(1, 0) = None",
        "f0: proxy_on_vm_start(1, 0) = 1",
        "f0: proxy_on_configure(1, 37) = 1",
        "InputEvent(what='request headers', size=3, end_stream=True)",
        "f0: proxy_on_context_create(2, 1) = None",
        "f0: proxy_on_request_headers(2, 3, 1) = 0",
        "RequestHeaders(headers=[(b':authority', b'x'), (b':path', b'/a'), (b':method', b'GET')], end_stream=True)",
        "InputEvent(what='response headers', size=1, end_stream=True)",
        "f0: proxy_on_response_headers(2, 1, 1) = 0",
        "ResponseHeaders(headers=[(b':status', b'200')], end_stream=True)",
        "InputEvent(what='end', size=0, end_stream=False)",
        "f0: proxy_on_log(2) = None",
        "f0: proxy_on_done(2) = 1",
        "f0: proxy_on_delete(2) = None",
    ]
    events = recorder.invocations[2].events
    events = recorder.invocations[2].events[1:]
    assert [event.message if isinstance(event, GuestLog) else describe(event) for event in events] == [
        "proxy_get_buffer_bytes(buffer=PLUGIN_CONFIGURATION, start=0, length=4) = OK '@on_'",
        'get_buffer_bytes(7, 0, 4) = 0 "@on_"',
        "proxy_log(level=INFO, message='get_buffer_bytes(7, 0, 4) = 0 \"@on_\"') = OK",
    ]


def test_what_a_module_logs_before_its_first_callback_is_kept_too(recorder):
    line = GuestLog("p", 2, "initialising")
    recorder.log(line)
    assert (recorder.timeline, recorder.logs, recorder.invocations) == ([line], [line], [])


def test_lines_below_the_level_are_not_kept(engine):
    recorder = Recorder(level=3)
    with Host(engine, services=Services(log=recorder), listener=recorder) as host:
        exchange(host, [host.load_plugin(code("rust/headers"))], recorder=recorder)
    assert recorder.logs == []


def test_nothing_has_to_be_said_twice(engine):
    """No recorder, no listener, no log, no clusters are given: what the filter does, logs and asks is there."""
    with Host(engine) as host:
        auth = host.load_plugin(code("rust/auth"), name="auth", configuration="callout:idp")
        result = exchange(host, [auth], callouts={"idp": HttpCallReply([(b":status", b"403")], b"no")})
        assert result.client_response.status == 403
        assert [line.message for line in result.logs] == [
            "auth: asking idp, token 4",
            "auth: token 4 answered 403 no",
            "auth: denied with 403",
        ]
        assert "auth:http_call_response(4, 1, 2, 0)" in calls(result)
        assert (host._listener, host.services.clusters) == (None, frozenset())
        refused = exchange(host, [auth])
        assert refused.held_by == {}
        assert refused.refused == [
            (
                "auth: proxy_http_call(cluster='idp', headers=[':method': 'GET', ':path': '/check', ':authority': 'idp'], "
                "body='', trailers=[], timeout=1000) = BAD_ARGUMENT: no cluster is called 'idp': add it to clusters"
            )
        ]


def test_who_listens_and_takes_log_lines_does_so_still(engine, trace, log):
    with Host(engine, listener=trace, services=Services(log=log)) as host:
        headers = host.load_plugin(code("rust/headers"))
        trace.events.clear()
        log.take()
        result = exchange(host, [headers])
        assert [event.split(": ")[1].partition("(")[0] for event in trace.events] == [
            i.name for i in result.invocations
        ]
        assert log.take() == [line.message for line in result.logs] != []
        assert (host._listener, host.services.log) == (trace, log)


def test_lines_below_the_level_of_the_log_are_not_wanted(engine, log):
    log.level = 3
    with Host(engine, services=Services(log=log)) as host:
        headers = host.load_plugin(code("rust/headers"))
        log.take()
        result = exchange(host, [headers])
    assert (result.logs, log.lines) == ([], [])


def test_a_recorder_may_be_given_for_one_exchange_alone(engine):
    recorder = Recorder()
    with Host(engine) as host:
        headers = host.load_plugin(code("rust/headers"))
        first = exchange(host, [headers], recorder=recorder)
        exchange(host, [headers])
    assert (recorder.invocations, recorder.logs) == (first.invocations, first.logs)
    assert repr(recorder) == f"<Recorder of {len(first.invocations)} callbacks and {len(first.logs)} log lines>"


def test_a_vm_that_takes_the_place_of_a_failed_one_is_recorded_too(engine):
    with Host(engine) as host:
        panics = host.load_plugin(
            code("rust/panics"), configuration="log", failure_policy=FailurePolicy.FAIL_RELOAD, reload_interval=0
        )
        exchange(host, [panics])
        again = exchange(host, [panics], Message.request("GET", "/again"))
        assert (again.client_response.status, panics.reloads) == (200, 1)
        assert "proxy_on_request_headers" in [invocation.name for invocation in again.invocations]


# -- In few words ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("filters", "more", "told"),
    [
        ([], {}, "<ExchangeResult GET / → 200 from upstream>"),
        (["rust/auth=secret"], {}, "<ExchangeResult GET / → 401 from f0; nothing reached upstream; 1 log line>"),
        (
            ["rust/headers"],
            {
                "request": Message.request("PUT", "/a", [("x-remove-me", "1")]),
                "response": Message.response(201, [("server", "up")], [b"Hello."]),
            },
            ("<ExchangeResult PUT /a → 201 from upstream; request: -x-remove-me: 1, +x-wasm: hello; "
            "response: -server: up, +x-wasm: hello, +server: proxy-wasm; 3 log lines>"),
        ),
        (
            ["rust/panics=request_headers"],
            {},
            ("<ExchangeResult GET / → 503 from the host; f0 failed in proxy_on_request_headers; nothing reached upstream; "
            "2 log lines>"),
        ),
        (
            ["c/probe_0_2_1=@on_request_headers\nclose_stream 0\n"],
            {},
            "<ExchangeResult GET / → no response; reset: wasm_close_stream; nothing reached upstream; 1 log line>",
        ),
        (
            ["c/probe_0_2_1=@on_request_body\nreturn 1\n"],
            {"request": POST},
            ("<ExchangeResult POST /p → no response; f0 holds the request; "
            "request: body 6 → 0 bytes, its end never came>"),
        ),
        (
            ["rust/auth=callout:nowhere"],
            {},
            "<ExchangeResult GET / → 403 from f0; nothing reached upstream; 1 hostcall refused; 2 log lines>",
        ),
        (
            ["c/probe_0_2_1=@on_request_headers\n" + "".join(f"add_header_map_value 0 h{n} v\n" for n in range(9))],
            {},
            "<ExchangeResult GET / → 200 from upstream; request: +h0: v, +h1: v, +h2: v, +h3: v, … (5 more); 9 log lines>",
        ),
    ],
)  # fmt: skip
def test_an_exchange_reads_as_what_happened(run, filters, more, told):
    assert repr(run(*filters, **more)) == told


def test_a_host_reads_as_what_it_runs(engine):
    with Host(engine) as host:
        assert repr(host) == f"<Host on {engine.name} {engine.version} with no plugin>"
        host.load_plugin(code("rust/headers"), name="a")
        host.load_plugin(code("rust/auth"), name="b", configuration="t")
        assert repr(host) == f"<Host on {engine.name} {engine.version} with 'a', 'b'>"
