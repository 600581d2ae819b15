"""Whole requests through a filter with a single task."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from benchmarks.contenders.proxywasm import one_request, proxywasm
from benchmarks.headers import REQUEST, RESPONSE, HeaderList
from benchmarks.timing import InProcess
from benchmarks.workloads.wat import SIZE, VALUE, Wat
from benchmarks.workloads.workload import Silent, Workload
from proxywasm_host import Host, Services
from proxywasm_host.abi.pairs import encode
from proxywasm_host.abi.types import BufferType, HeadersAction, MapType, StreamType
from proxywasm_host.runtime.effects import HttpCall, HttpCallReply, RequestBody, RequestHeaders, ResponseHeaders

MAP = MapType.REQUEST_HEADERS
VALUE_AT, SIZE_AT = f"(i32.load (i32.const {VALUE}))", f"(i32.load (i32.const {SIZE}))"
CONTEXT = 12  # where a filter stores its context

KIB = 1024
CLUSTER = b"cluster"
REPLY = HttpCallReply([(b":status", b"200")], b"hello")


def named(count: int) -> HeaderList:
    """A request with so many headers."""
    others = [(b"x-header-%03d" % i, b"value of header %03d" % i) for i in range(count - len(REQUEST))]
    return [*REQUEST, *others]


@contextmanager
def streams(
    engine: str, wat: Wat, exchange: Callable[[Host, Any], Any], check: Callable[[Any], bool]
) -> Iterator[InProcess]:
    """Call `exchange` with a new stream each time; its result must pass `check`."""
    with Host(engine, services=Services(log=Silent(), clusters={CLUSTER.decode()})) as host:
        plugins = [host.load_plugin(wat.module(), name="filter")]

        def request() -> Any:
            stream = host.http_stream(plugins, buffer_limit=1 << 30)
            result = exchange(host, stream)
            stream.close()
            return result

        result = request()
        assert check(result), result
        yield InProcess(request)


def sent(headers: HeaderList) -> Callable[[Host, Any], Any]:
    """Exchange only request headers."""

    def exchange(host: Host, stream: Any) -> Any:
        return stream.request_headers(headers, True)

    return exchange


@contextmanager
def no_filter(engine: str) -> Iterator[InProcess]:
    """Send the headers of a request and of its response through a chain without plugins."""
    with Host(engine) as host:

        def request() -> tuple[HeaderList, HeaderList]:
            return one_request(host, [])

        assert request() == (REQUEST, RESPONSE)
        yield InProcess(request)


def reads_and_writes(engine: str) -> Any:
    """Read and replace each of 20 headers."""
    headers, wat = named(20), Wat()
    names = [name for name, _ in headers]
    wat.callback(
        "proxy_on_request_headers",
        *(wat.call("proxy_get_header_map_value", MAP, name) for name in names),
        *(wat.call("proxy_replace_header_map_value", MAP, name, b"new") for name in names),
    )
    return streams(
        engine,
        wat,
        sent(headers),
        lambda effects: [value for _, value in effects[0].headers] == [b"new"] * 20,
    )


def pairs(engine: str, count: int) -> Any:
    """Read all headers at once, and set them again."""
    headers, wat = named(count), Wat()
    wat.callback(
        "proxy_on_request_headers",
        wat.call("proxy_get_header_map_pairs", MAP),
        wat.call("proxy_set_header_map_pairs", MAP, VALUE_AT, SIZE_AT),
    )
    return streams(
        engine,
        wat,
        sent(headers),
        lambda effects: effects[0].headers == headers,
    )


def body(engine: str, size: int) -> Any:
    """Read a body of one chunk, and replace it by itself."""
    data, wat = bytes(range(256)) * (size // 256), Wat(pages=2 + 2 * size // 65536)
    buffer = BufferType.HTTP_REQUEST_BODY
    wat.callback("proxy_on_request_headers")
    wat.callback(
        "proxy_on_request_body",
        wat.call("proxy_get_buffer_bytes", buffer, 0, size),
        wat.call("proxy_set_buffer_bytes", buffer, 0, size, VALUE_AT, SIZE_AT),
    )

    def exchange(host: Host, stream: Any) -> Any:
        stream.request_headers(REQUEST, False)
        return stream.request_body(data, True)

    def check(effects: Any) -> bool:
        return isinstance(effects[0], RequestBody) and effects[0].data == data

    return streams(engine, wat, exchange, check)


def local_response(engine: str) -> Any:
    wat = Wat()
    fields = encode([(b"content-type", b"text/plain")])
    wat.callback(
        "proxy_on_request_headers",
        wat.call("proxy_send_local_response", 403, b"", b"denied", fields, -1),
        returns=HeadersAction.STOP_ITERATION,
    )

    def check(effects: Any) -> bool:
        return isinstance(effects[0], ResponseHeaders) and (b":status", b"403") in effects[0].headers

    return streams(engine, wat, sent(REQUEST), check)


def callout(engine: str) -> Any:
    """Hold the request for a callout that is answered at once, without the cost of a client."""
    wat = Wat()
    headers = encode([(b":method", b"GET"), (b":path", b"/"), (b":authority", CLUSTER)])
    wat.callback(
        "proxy_on_request_headers",
        f"(i32.store (i32.const {CONTEXT}) (local.get 0))",
        wat.call("proxy_http_call", CLUSTER, headers, b"", b"", 1000),
        returns=HeadersAction.STOP_ITERATION,
    )
    wat.callback(
        "proxy_on_http_call_response",
        wat.call("proxy_get_buffer_bytes", BufferType.HTTP_CALL_RESPONSE_BODY, 0, 5),
        wat.call("proxy_set_effective_context", f"(i32.load (i32.const {CONTEXT}))"),
        wat.call("proxy_continue_stream", StreamType.REQUEST),
    )

    def exchange(host: Host, stream: Any) -> Any:
        [call] = stream.request_headers(REQUEST, True)
        assert isinstance(call, HttpCall)
        return host.deliver(call, REPLY)

    return streams(engine, wat, exchange, lambda effects: isinstance(effects[0], RequestHeaders))


BODIES = {"1 KiB": KIB, "64 KiB": 64 * KIB, "1 MiB": KIB * KIB}

WORKLOADS = (
    Workload("request", "no filter", "the cost of a stream alone", no_filter),
    Workload("request", "header filter", "7 hostcalls, 6 callbacks, 3 allocations, see `header_filter.wat`", proxywasm),
    Workload("request", "20 headers read and replaced", "40 hostcalls, one by one", reads_and_writes),
    *(
        Workload("request", f"pairs of {count} headers", "all read and set at once", partial(pairs, count=count))
        for count in (20, 100)
    ),
    Workload("request", "local response", "403 with a header and a body", local_response),
    Workload("request", "HTTP callout", "dispatched, answered at once, the stream resumed", callout),
    *(
        Workload("body", f"body of {name}", "read and replaced", partial(body, size=size))
        for name, size in BODIES.items()
    ),
)
