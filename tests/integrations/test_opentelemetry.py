"""Spans: what each says, whose child it is, and who is told of it."""

from __future__ import annotations

import re
import threading

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF

from proxywasm_host import Host, Services
from proxywasm_host.abi.types import LogLevel
from proxywasm_host.effects import HttpCall, HttpCallReply
from proxywasm_host.integrations.asgi import Filter
from proxywasm_host.integrations.opentelemetry import Tracing
from proxywasm_host.services import ManualClock
from tests.grpc_services import GrpcServer
from tests.integrations.middlewares import Application
from tests.serve.origin import running
from tests.support import REQUEST, code

TRACE = "0af7651916cd43dd8448eb211c80319c"
TRACEPARENT = f"00-{TRACE}-b7ad6b7169203331-01"
CALL = "http_call up :method=GET&:path=/call&:authority=up {} \"\" 1000\n"
WAITS = "@on_request_headers\n" + CALL.format('""') + "return 1\n@on_http_call_response\nset_effective_context $stream\ncontinue_stream 0\n"


@pytest.fixture
def exporter():
    return InMemorySpanExporter()


@pytest.fixture
def provider(exporter):
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    yield provider
    provider.shutdown()


@pytest.fixture(scope="module")
def upstream():
    with running() as origin:
        yield origin


@pytest.fixture(scope="module")
def server():
    server = GrpcServer()
    yield server
    server.stop()


def names(spans) -> list[str]:
    return [span.name for span in spans]


def test_a_stream_and_its_callbacks(carry, exporter, provider):
    script = "@on_request_headers\nset_property trace_span_tag.user alice\nreturn 0\n@on_response_headers\n"
    filter = Filter(code("c/probe_0_2_100"), "probe", configuration=script)
    served = carry([filter], listener=Tracing(provider), application=Application(status=503))
    served.get("POST", "/a?b", [("traceparent", TRACEPARENT)], b"body")
    *callbacks, stream = exporter.get_finished_spans()
    assert list(dict.fromkeys(names([*callbacks, stream]))) == [
        *("probe on_context_create", "probe on_request_headers", "probe on_request_body"),
        *("probe on_response_headers", "probe on_response_body", "probe on_log", "probe on_done", "probe on_delete"),
        "proxywasm stream",
    ]
    assert (f"{stream.context.trace_id:032x}", f"{stream.parent.span_id:016x}") == (TRACE, "b7ad6b7169203331")
    assert {span.parent.span_id for span in callbacks} == {stream.context.span_id}
    assert dict(stream.attributes) == {
        "http.request.method": "POST",
        "url.path": "/a?b",
        "http.response.status_code": 503,
        "proxywasm.response_code_details": "via_upstream",
        "user": "alice",
    }
    assert stream.status.status_code is trace.StatusCode.ERROR
    assert dict(callbacks[1].attributes) == {
        "proxywasm.plugin": "probe",
        "proxywasm.callback": "proxy_on_request_headers",
        "proxywasm.action": "CONTINUE",
    }
    assert all(stream.start_time <= span.start_time <= span.end_time <= stream.end_time for span in callbacks)


def test_the_span_that_is_current_is_the_parent(exporter, provider, carry):
    served = carry("@on_request_headers\n", listener=Tracing(provider))
    with provider.get_tracer("").start_as_current_span("application") as outer:
        served.get(headers=[("traceparent", TRACEPARENT)])
    stream = next(span for span in exporter.get_finished_spans() if span.name == "proxywasm stream")
    assert stream.parent.span_id == outer.get_span_context().span_id


def test_a_callout_carries_the_trace_and_its_reply_belongs_to_the_stream(carry, exporter, provider, upstream):
    served = carry(WAITS, listener=Tracing(provider), clusters={"up": upstream.url})
    assert served.get(headers=[("traceparent", TRACEPARENT)]).status == 200
    told = upstream.requests[-1]["traceparent"]
    spans = {span.name: span for span in exporter.get_finished_spans()}
    asked, replied = spans["probe on_request_headers"], spans["probe on_http_call_response"]
    assert told == f"00-{TRACE}-{asked.context.span_id:016x}-01"
    assert replied.parent.span_id == spans["proxywasm stream"].context.span_id
    assert asked.attributes["proxywasm.action"] == "STOP_ITERATION"


def test_the_request_carries_the_trace_upstream(carry, exporter, provider):
    application = Application()
    served = carry("@on_request_headers\n", listener=Tracing(provider), application=application)
    served.get(headers=[("traceparent", TRACEPARENT), ("tracestate", "vendor=1")])
    served.get()
    first, second = (span.context for span in exporter.get_finished_spans() if span.name == "proxywasm stream")
    continued, begun = (seen.headers for seen in application.seen)
    assert (continued["traceparent"], continued["tracestate"]) == (f"00-{TRACE}-{first.span_id:016x}-01", "vendor=1")
    assert begun["traceparent"].startswith(f"00-{second.trace_id:032x}-{second.span_id:016x}-")


def test_a_filter_has_the_last_word_on_the_trace_upstream(carry, provider):
    application = Application()
    script = "@on_request_headers\nreplace_header_map_value 0 traceparent mine\n"
    carry(script, listener=Tracing(provider), application=application).get(headers=[("traceparent", TRACEPARENT)])
    assert application.seen[0].headers["traceparent"] == "mine"


BY_ITSELF = {
    "on_tick": ("set_tick_period_milliseconds 10", lambda plugin: plugin.tick()),
    "on_queue_ready": ("register_shared_queue q", lambda plugin: plugin.host.services.shared_queues.enqueue(1, b"x") or plugin.queue_ready(1)),
}


@pytest.mark.parametrize("cause", BY_ITSELF)
def test_ticks_and_queues_begin_traces(engine, exporter, provider, cause):
    """What they ask belongs to them, and so does its reply."""
    tracing = Tracing(provider)
    clock = ManualClock()
    with Host(engine, services=Services(clock=clock, clusters={"up"}), listener=tracing) as host:
        begin, happens = BY_ITSELF[cause]
        script = f"@on_configure\n{begin}\n@{cause}\n" + CALL.format('""') + "@on_http_call_response\n"
        plugin = host.load_plugin(code("c/probe_0_2_1"), name="probe", configuration=script)
        todo = happens(plugin) or host.drain()
        [call] = [effect for effect in todo if isinstance(effect, HttpCall)]
        host.deliver(call, HttpCallReply([(b":status", b"200")], b""))
    asked, replied = exporter.get_finished_spans()
    assert names([asked, replied]) == [f"probe {cause}", "probe on_http_call_response"]
    assert (asked.parent, replied.parent.span_id) == (None, asked.context.span_id)
    told = dict(call.headers)[b"traceparent"].decode()
    assert told.startswith(f"00-{asked.context.trace_id:032x}-{asked.context.span_id:016x}-")
    assert (tracing._streams, dict(tracing._callouts), tracing._running.stack) == ({}, {}, [])


def test_what_a_filter_says_of_the_trace_stays(carry, provider, upstream):
    script = WAITS.replace(":authority=up", ":authority=up&traceparent=mine")
    assert carry(script, listener=Tracing(provider), clusters={"up": upstream.url}).get().status == 200
    assert [value for name, value in upstream.requests[-1].headers if name == "traceparent"] == ["mine"]


@pytest.mark.parametrize("call", ["up,test.Echo,Echo,", "stream:up,test.Echo,StreamEcho,"])
def test_grpc_carries_it_in_its_metadata(carry, exporter, provider, server, call):
    served = carry(Filter(code("rust/grpc"), configuration=call), listener=Tracing(provider), clusters={"up": server.url})
    assert served.get(headers=[("traceparent", TRACEPARENT)]).status == 200
    _, metadata, _ = server.seen[-1]
    assert re.fullmatch(f"00-{TRACE}-[0-9a-f]{{16}}-01", metadata["traceparent"])
    streams = [span for span in exporter.get_finished_spans() if span.name == "proxywasm stream"]
    replies = [span for span in exporter.get_finished_spans() if "on_grpc_receive" in span.name]
    assert {span.parent.span_id for span in replies} == {streams[0].context.span_id}


def test_a_guest_that_fails(carry, exporter, provider):
    tracing = Tracing(provider)
    assert carry("@on_request_headers\ntrap\n", "fail_closed", listener=tracing).get().status == 503
    failed, stream = exporter.get_finished_spans()[-2:]
    assert names([failed, stream]) == ["probe on_request_headers", "proxywasm stream"]
    for span in (failed, stream):
        assert span.status.status_code is trace.StatusCode.ERROR
        assert span.status.description == "probe failed in proxy_on_request_headers"
    assert (tracing._streams, dict(tracing._callouts), tracing._running.stack) == ({}, {}, [])


def test_callbacks_of_no_stream_have_no_spans_and_nothing_is_kept(engine, exporter, provider):
    tracing = Tracing(provider)
    call = CALL.format('""')
    asks = f"@on_configure\n{call}@on_request_headers\n{call}@on_http_call_response\n"
    with Host(engine, services=Services(clusters={"up"}), listener=tracing) as host:
        plugin = host.load_plugin(code("c/probe_0_2_1"), name="probe", configuration=asks)
        [before] = [effect for effect in host.drain() if isinstance(effect, HttpCall)]
        with host.http_stream([plugin]) as stream:
            [during] = [effect for effect in stream.request_headers(REQUEST, True) if isinstance(effect, HttpCall)]
        host.deliver(during, HttpCallReply([(b":status", b"200")], b""))  # its stream is gone
    assert [b"traceparent" in dict(call.headers) for call in (before, during)] == [False, True]
    assert {"probe on_configure", "probe on_http_call_response"}.isdisjoint(names(exporter.get_finished_spans()))
    assert (tracing._streams, dict(tracing._callouts), tracing._running.stack) == ({}, {}, [])


def test_a_callout_is_forgotten_with_its_reply(engine, exporter, provider):
    """A stream that lives long may make any number of them."""
    tracing = Tracing(provider)
    call = CALL.format('""')
    asks = f"@on_request_headers\n{call}@on_http_call_response\n{call}"
    with Host(engine, services=Services(clusters={"up"}), listener=tracing) as host:
        plugin = host.load_plugin(code("c/probe_0_2_1"), name="probe", configuration=asks)
        with host.http_stream([plugin]) as stream:
            effects = stream.request_headers(REQUEST, True)
            for _ in range(3):
                [call] = [effect for effect in effects if isinstance(effect, HttpCall)]
                effects = host.deliver(call, HttpCallReply([(b":status", b"200")], b""))
                assert len(tracing._callouts) <= 1
    assert names(exporter.get_finished_spans()).count("probe on_http_call_response") >= 1


def test_a_trace_that_is_not_sampled_is_carried_on_as_that(carry, upstream):
    tracing = Tracing(TracerProvider(sampler=ALWAYS_OFF))
    assert carry(WAITS, listener=tracing, clusters={"up": upstream.url}).get().status == 200
    flags = int(upstream.requests[-1]["traceparent"].rpartition("-")[2], 16)
    assert not flags & trace.TraceFlags.SAMPLED


def test_hosts_in_two_threads_share_a_listener(engine, exporter, provider):
    """A callback that returns while another thread's is inside ends its own span."""
    tracing = Tracing(provider)
    inside, returned = threading.Event(), threading.Event()

    class Log:
        level = LogLevel.INFO

        def __init__(self, then) -> None:
            self.then = then

        def log(self, line) -> None:
            self.then()

    def serve(name: str, then) -> None:
        with Host(engine, services=Services(log=Log(then)), listener=tracing) as host:
            plugin = host.load_plugin(code("c/probe_0_2_1"), name=name, configuration="@on_request_headers\nlog hello\n")
            with host.http_stream([plugin]) as stream:
                stream.request_headers(REQUEST, True)

    def second() -> None:
        serve("second", lambda: inside.set() or returned.wait(30))

    thread = threading.Thread(target=second)
    serve("first", lambda: thread.start() or inside.wait(30))
    returned.set()
    thread.join(30)
    assert [name for name in names(exporter.get_finished_spans()) if "on_request_headers" in name] == [
        "first on_request_headers",
        "second on_request_headers",
    ]
