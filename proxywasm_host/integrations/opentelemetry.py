"""OpenTelemetry spans: one for each stream, with one for each callback of its filters; one for each tick and queue.

    from proxywasm_host.integrations.opentelemetry import Tracing

    app = ProxyWasmMiddleware(app, ["auth.wasm"], listener=Tracing())

`Tracing` is a listener of hosts, so it works wherever streams do. A stream's span is a child of the current span when
its first filter is called, or else of the span that the request's headers name. Headers name the stream's span to
upstream, and headers of callouts (gRPC: metadata) name the callback's span, unless a filter has set them.
A tick, or a queue with a message, begins a new trace, which includes the replies to its callouts. Tags that Higress's
filters set (``trace_span_tag.NAME``) become attributes of a stream's span. Your `TracerProvider` exports the spans;
this package needs only OpenTelemetry's API.
"""

from __future__ import annotations

import threading
import weakref
from dataclasses import dataclass, field
from typing import Any

from proxywasm_host import remedy

try:
    from opentelemetry import context as contexts
    from opentelemetry import propagate, trace
    from opentelemetry.propagators.textmap import TextMapPropagator
except ModuleNotFoundError as error:
    raise remedy.missing("otel", error) from None

from proxywasm_host.abi.context import Context
from proxywasm_host.abi.marshal import Call
from proxywasm_host.abi.pairs import HeaderList
from proxywasm_host.abi.table import Callback
from proxywasm_host.runtime.effects import GrpcCall, GrpcStream, HttpCall
from proxywasm_host.runtime.http import HttpStream

__all__ = ["Tracing"]

CALLOUTS = frozenset(("proxy_http_call", "proxy_grpc_call", "proxy_grpc_stream", "proxy_redis_call"))
REPLIES = frozenset(
    (
        *("on_http_call_response", "on_redis_call_response", "on_grpc_receive", "on_grpc_close"),
        *("on_grpc_receive_initial_metadata", "on_grpc_receive_trailing_metadata"),
    )
)
BY_THEMSELVES = frozenset(("on_tick", "on_queue_ready"))
"""Callbacks that no stream causes."""
SERVER_ERROR = 500


@dataclass
class _Traced:
    """A stream, or a callback of `BY_THEMSELVES`, with its span."""

    span: trace.Span
    context: contexts.Context
    """The context of the span."""
    callouts: set[tuple[Any, int]] = field(default_factory=set)
    """Callouts in progress, by root context and token."""
    ended: bool = False


class _Running(threading.local):
    """The callbacks that have not returned in one thread: one filter may enter the next."""

    def __init__(self) -> None:
        self.stack: list[tuple[trace.Span, _Traced, int | None] | None] = []
        """Each with its span, or ``None`` without one, and the token of the callout that is answered."""


class Tracing:
    """A listener that makes spans. One may listen to any number of hosts, each in its thread.

    Args:
        tracer_provider: makes tracers; the global one by default.
        propagator: writes and reads headers; by default the global one (``traceparent``, ``baggage``).
    """

    def __init__(
        self, tracer_provider: trace.TracerProvider | None = None, propagator: TextMapPropagator | None = None
    ) -> None:
        self._tracer = trace.get_tracer("proxywasm_host", tracer_provider=tracer_provider)
        self._propagator = propagate.get_global_textmap() if propagator is None else propagator
        self._streams: dict[int, _Traced] = {}
        """By `id` of the stream, whose entry is removed when the stream ends or is freed."""
        self._callouts: weakref.WeakKeyDictionary[Any, dict[int, _Traced]] = weakref.WeakKeyDictionary()
        """The stream or callback that made each callout, by root context and token."""
        self._running = _Running()

    # -- Listener ------------------------------------------------------------------------------------------------

    def callback(self, context: Context, row: Callback, args: tuple[int, ...]) -> None:
        """See `Listener`."""
        traced: _Traced | None = None
        stream, token = getattr(context, "stream", None), None
        if stream is not None:
            traced = self._streams.get(id(stream)) or self._begin(stream)
        elif row.key in REPLIES:
            token = args[1]
            traced = self._callouts.get(context, {}).get(token)
        if traced is None and row.key not in BY_THEMSELVES:
            self._running.stack.append(None)
            return
        given = {"proxywasm.plugin": context.name, "proxywasm.callback": row.name}
        parent = contexts.Context() if traced is None else traced.context
        span = self._tracer.start_span(f"{context.name} {row.key}", parent, attributes=given)
        traced = traced or _Traced(span, trace.set_span_in_context(span, parent))
        self._running.stack.append((span, traced, token))

    def hostcall(self, context: Context, call: Call) -> None:
        """See `Listener`."""
        stack = self._running.stack
        running = stack[-1] if stack else None
        if running is None or call.row.name not in CALLOUTS or call.status:
            return
        span, traced, _ = running
        root: Any = context.root
        token = int(call.result)
        self._callouts.setdefault(root, {})[token] = traced
        traced.callouts.add((root, token))
        callout = root.callout(token)
        if isinstance(callout, HttpCall):
            self._inject(span, callout.headers)
        elif isinstance(callout, (GrpcCall, GrpcStream)):
            self._inject(span, callout.metadata)

    def returned(self, context: Context, row: Callback, result: int | None, *, failed: bool) -> None:
        """See `Listener`."""
        stack = self._running.stack
        running = stack.pop() if stack else None
        if running is None:
            return
        span, traced, token = running
        if failed:
            for each in (span, traced.span):
                each.set_status(trace.StatusCode.ERROR, f"{context.name} failed in {row.name}")
        elif row.result is not None:
            span.set_attribute("proxywasm.action", _action(row, result))
        span.end()
        root: Any = context.root
        if token is not None and root.callout(token) is None:
            self._answered(traced, root, token)
        stream = getattr(context, "stream", None)
        if row.key == "on_delete" and stream is not None and all(each.deleted for each in _contexts(stream)):
            self._end(stream, traced)

    # -- Streams -------------------------------------------------------------------------------------------------

    def _begin(self, stream: Any) -> _Traced:
        given: dict[str, Any] = {}
        parent = contexts.get_current()
        if isinstance(stream, HttpStream):
            headers = dict(_text(stream._request.headers))
            if not trace.get_current_span().get_span_context().is_valid:
                parent = self._propagator.extract(headers)
            given = {"http.request.method": headers.get(":method", ""), "url.path": headers.get(":path", "")}
        span = self._tracer.start_span("proxywasm stream", parent, attributes=given)
        traced = _Traced(span, trace.set_span_in_context(span, parent))
        if isinstance(stream, HttpStream):
            self._pass_on(traced, stream._request.headers)
        self._streams[id(stream)] = traced
        weakref.finalize(stream, self._gone, id(stream), traced)
        return traced

    def _end(self, stream: Any, traced: _Traced) -> None:
        span = traced.span
        if isinstance(stream, HttpStream):
            status = dict(_text(stream._response.headers)).get(":status", "")
            if status.isdigit():
                span.set_attribute("http.response.status_code", int(status))
                if int(status) >= SERVER_ERROR:
                    span.set_status(trace.StatusCode.ERROR)
            if stream.details:
                span.set_attribute("proxywasm.response_code_details", stream.details)
            for name, value in stream.span_tags.items():
                span.set_attribute(name, value.decode("utf-8", "replace"))
        self._gone(id(stream), traced)

    def _gone(self, stream: int, traced: _Traced) -> None:
        """End the span of a stream, also of one whose guest has failed and got no ``on_delete``."""
        if traced.ended:
            return
        traced.ended = True
        traced.span.end()
        self._streams.pop(stream, None)
        for root, token in list(traced.callouts):
            self._answered(traced, root, token)

    def _answered(self, traced: _Traced, root: Any, token: int) -> None:
        """Drop a callout, which gets no more replies."""
        traced.callouts.discard((root, token))
        asked = self._callouts.get(root, {})
        asked.pop(token, None)
        if not asked:
            self._callouts.pop(root, None)

    def _pass_on(self, traced: _Traced, headers: HeaderList) -> None:
        """Name the stream's span in the request's headers, instead of the client's."""
        given = self._headers(traced.context)
        names = {name for name, _ in given}
        headers[:] = [*(pair for pair in headers if pair[0] not in names), *given]

    def _inject(self, span: trace.Span, headers: HeaderList) -> None:
        names = {name for name, _ in headers}
        headers += [pair for pair in self._headers(trace.set_span_in_context(span)) if pair[0] not in names]

    def _headers(self, context: contexts.Context) -> HeaderList:
        carrier: dict[str, str] = {}
        self._propagator.inject(carrier, context)
        return [(name.encode(), value.encode()) for name, value in carrier.items()]


def _action(row: Callback, result: int | None) -> str:
    kind: Any = row.result
    try:
        action = kind(result or 0)
    except ValueError:
        return str(result)
    return str(action) if kind is bool else str(action.name)


def _contexts(stream: Any) -> list[Any]:
    found: list[Any] = stream._contexts
    return found


def _text(headers: HeaderList) -> list[tuple[str, str]]:
    return [(name.decode("latin-1"), value.decode("latin-1")) for name, value in headers]
