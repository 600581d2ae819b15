"""Streams through filters under test, fed part by part."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from difflib import unified_diff
from typing import TYPE_CHECKING, Any

from proxywasm_host.abi.pairs import HeaderList
from proxywasm_host.runtime import effects
from proxywasm_host.runtime.effects import Effect
from proxywasm_host.runtime.fast_path import REQUEST, RESPONSE
from proxywasm_host.runtime.rules import matching
from proxywasm_host.testing.callouts import FAIL, NEVER, Later, asked
from proxywasm_host.testing.http import Headers, HeadersLike, Request, Response, encoded, response_of
from proxywasm_host.testing.outcome import Outcome

if TYPE_CHECKING:
    from proxywasm_host.abi.values import PropertyValue
    from proxywasm_host.testing.harness import FilterUnderTest

__all__ = ["HttpExchange", "TcpConnection"]

GONE = "upstream_reset_before_response_started{connection_termination}"
NO_UPSTREAM = b"upstream connect error or disconnect/reset before headers. reset reason: connection termination"
MOST_CHANGES = 12
"""Maximum number of lines for a message in `HttpExchange.changes`."""


class HttpExchange:
    """One request and its response, fed part by part. Made by `FilterUnderTest.stream`; several may be open at a time.

    `send` and `respond` feed whole messages, the other methods parts. `result` is the result so far.
    """

    def __init__(self, chain: FilterUnderTest, request: Request, properties: dict[str, PropertyValue]) -> None:
        self.chain = chain
        self.request = request
        self._harness = harness = chain.harness
        harness.clock.frozen_at = harness.clock.now_ns if harness.profile.frozen_clock else None
        self._began = harness.clock.now_ns
        self._first = len(harness.recorder.timeline)
        named = dict(request.pairs)
        plugins = matching(chain.plugins, named.get(b":authority", b""), named.get(b":path", b""), properties)
        self.stream = chain.new_stream(plugins, properties)
        harness.restrict(*self.stream._contexts)
        harness.attach(self.stream, self._perform)
        harness.exchanges.append(self)
        self._fed: dict[int, _Parts] = {}
        self._parts: dict[int, _Parts] = {}
        self._closed = False

    # -- Feeding -------------------------------------------------------------------------------------------------

    def request_headers(self, end_stream: bool = False) -> HttpExchange:
        """Feed the headers of the request."""
        self._fed[REQUEST] = _Parts(self.request.pairs, end_stream)
        return self._feed("request headers", self.stream.request_headers, self.request.pairs, end_stream)

    def request_body(self, data: bytes, end_stream: bool = False) -> HttpExchange:
        """Feed a part of the request's body."""
        self._feed("request body", self.stream.request_body, data, end_stream)
        self._part(REQUEST).chunks.append(data)
        return self

    def request_trailers(self, trailers: HeadersLike) -> HttpExchange:
        """Feed trailers, which end the request."""
        pairs = self._part(REQUEST).trailers = encoded(Headers(trailers).pairs)
        return self._feed("request trailers", self.stream.request_trailers, pairs)

    def response_headers(self, status: int = 200, headers: HeadersLike = (), end_stream: bool = False) -> HttpExchange:
        """Feed the headers of upstream's response."""
        pairs = Response(status, headers).pairs
        self._fed[RESPONSE] = _Parts(pairs, end_stream)
        return self._feed("response headers", self.stream.response_headers, pairs, end_stream)

    def response_body(self, data: bytes, end_stream: bool = False) -> HttpExchange:
        """Feed a part of the response's body."""
        self._feed("response body", self.stream.response_body, data, end_stream)
        self._part(RESPONSE).chunks.append(data)
        return self

    def response_trailers(self, trailers: HeadersLike) -> HttpExchange:
        """Feed trailers, which end the response."""
        pairs = self._part(RESPONSE).trailers = encoded(Headers(trailers).pairs)
        return self._feed("response trailers", self.stream.response_trailers, pairs)

    def _part(self, direction: int) -> _Parts:
        """The fed part of a message. (A test may feed a body without headers, to check that it is refused.)"""
        return self._fed.setdefault(direction, _Parts([], False))

    def _feed(self, what: str, event: Callable[..., list[Effect]], part: Any, *end: bool) -> HttpExchange:
        self._harness.feed(what, len(part), end != (False,), lambda: event(part, *end))
        return self

    def send(self) -> HttpExchange:
        """Feed the whole request, and `wait` while a part of it is paused."""
        request = self.request
        self._message(request, self.request_headers, self.request_body, self.request_trailers)
        self.wait()
        return self

    def respond(self, answer: Any = None) -> HttpExchange:
        """Feed a whole response, `answer` or that of the chain's ``upstream``, and `wait` while it is paused."""
        if self.over:
            return self
        got = self._message_of(REQUEST)
        answer = asked(self.chain.turns if answer is None else answer, got)
        while isinstance(answer, Later):
            self._harness.clock.advance(answer.seconds)
            answer = asked(answer.answer, got)
        if answer is NEVER or self.over:
            return self
        if answer is FAIL:
            return self.upstream_gone()
        response = response_of(answer, "upstream")
        self._message(
            response,
            lambda end_stream: self.response_headers(response.status, response.headers.pairs, end_stream),
            self.response_body,
            self.response_trailers,
        )
        self.wait()
        return self

    def upstream_gone(self) -> HttpExchange:
        """Let upstream break the connection. As in Envoy, the client gets 503 if the response has not begun."""
        stream = self.stream

        def gone() -> list[Effect]:
            if stream._response_started:
                return stream.close("upstream_reset_after_response_started")
            stream._local_response(503, [(b"content-type", b"text/plain")], NO_UPSTREAM, GONE, None)
            return stream.host.drain()

        self._harness.feed("upstream gone", 0, True, gone)
        return self

    def time_out(self) -> HttpExchange:
        """Let the proxy stop waiting. As with Envoy's idle timeout, the client gets 408 or 504."""
        self._harness.feed("time-out", 0, True, self.stream.time_out)
        return self

    def _message(
        self,
        message: Request | Response,
        headers: Callable[[bool], object],
        body: Callable[[bytes, bool], object],
        trailers: Callable[[HeadersLike], object],
    ) -> None:
        chunks, has_trailers = message.chunks, len(message.trailers) > 0
        headers(not chunks and not has_trailers)
        for number, chunk in enumerate(chunks, 1):
            if not self.over:
                body(chunk, number == len(chunks) and not has_trailers)
        if has_trailers and not self.over:
            trailers(message.trailers)

    def wait(self) -> None:
        """Let time pass until nothing is paused or no event is due within `FilterUnderTest.patience`."""
        clock = self._harness.clock
        until = clock.now_ns + int(self.chain.patience * 1e9)
        while self.stream.paused and not self.over:
            due = clock.next_due
            if due is None or due > until:
                return
            clock.advance_to(due)

    @property
    def over(self) -> bool:
        """Whether upstream is no longer needed, because of a local response, a reset or the end."""
        return self.stream.local is not None or self.stream.reset_details is not None or self._closed

    # -- Effects and results -------------------------------------------------------------------------------------

    def _perform(self, effect: Effect) -> None:
        if isinstance(effect, (effects.RequestHeaders, effects.ResponseHeaders)):
            direction = REQUEST if isinstance(effect, effects.RequestHeaders) else RESPONSE
            self._parts[direction] = _Parts(list(effect.headers), effect.end_stream)
        elif isinstance(effect, (effects.RequestBody, effects.ResponseBody)):
            parts = self._parts[REQUEST if isinstance(effect, effects.RequestBody) else RESPONSE]
            parts.chunks.append(effect.data)
            parts.complete = effect.end_stream
        elif isinstance(effect, (effects.RequestTrailers, effects.ResponseTrailers)):
            parts = self._parts[REQUEST if isinstance(effect, effects.RequestTrailers) else RESPONSE]
            parts.trailers, parts.complete = list(effect.trailers), True

    def _message_of(self, direction: int) -> Any:
        parts = self._parts.get(direction)
        return None if parts is None else parts.message(direction)

    @property
    def told(self) -> str:
        """A line with the request and its end."""
        request, result = self.request, self.result
        ended = [f"status {result.status}" if result.response else "no response", *result.ended()]
        ended += [] if result.upstream else ["nothing reached upstream"]
        return f"{request.method} {request.scheme}://{request.authority}{request.path}: {', '.join(ended)}"

    def changes(self) -> Iterator[str]:
        """A line for each change by filters: ``request +x-wasm: hello``."""
        for direction, which in ((REQUEST, "request"), (RESPONSE, "response")):
            came, went = self._fed.get(direction), self._parts.get(direction)
            if came is None or went is None or (direction == RESPONSE and self.stream.local is not None):
                continue
            before, after = (parts.message(direction, complete=True).lines() for parts in (came, went))
            lines = [line for line in unified_diff(before, after, lineterm="", n=0) if line[:2] != "@@"][2:]
            yield from (f"{which} {line}" for line in lines[:MOST_CHANGES])
            if len(lines) > MOST_CHANGES:
                yield f"{which} … ({len(lines) - MOST_CHANGES} more lines)"

    @property
    def request_is_out(self) -> bool:
        """Whether the whole request has been sent upstream."""
        parts = self._parts.get(REQUEST)
        return parts is not None and parts.complete

    @property
    def result(self) -> Outcome:
        """The result so far."""
        stream, harness = self.stream, self._harness
        holding = {}
        for direction, which in ((REQUEST, "request"), (RESPONSE, "response")):
            chain = stream._chain(direction)
            holder = chain.holding
            if holder is not None and not chain.complete and not chain.aborted:
                holding[which] = holder.name
        invocations, logs = harness.recorder.of(stream, self._first)
        return Outcome(
            upstream=self._message_of(REQUEST),
            response=self._message_of(RESPONSE),
            local_response=stream.local,
            details=stream.details or "",
            reset=stream.reset_details,
            paused=self._held if self._closed else holding,
            failure=stream.failure or next((each.failure for each in self.chain.plugins if each.failure), None),
            properties=dict(stream.filter_state),
            callouts=[each for each in harness.callouts if each.stream is stream],
            invocations=invocations,
            logs=logs,
            took=(harness.clock.now_ns - self._began) / 1e9,
        )

    def close(self) -> None:
        """End the stream (on_log, on_done, on_delete). Closing again does nothing."""
        if not self._closed:
            self._held = self.result.paused
            self._closed = True
            parts = self._parts.get(RESPONSE)
            whole = parts is not None and parts.complete
            gone = "" if whole or self.stream.reset_details else "downstream_remote_disconnect"
            self._harness.feed("end", 0, True, lambda: self.stream.close(gone))
            self._harness.detach(self.stream)

    def __enter__(self) -> HttpExchange:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<HttpExchange {self.request.method} {self.request.path}: {self.result!r}>"


class _Parts:
    """The parts of a message that were fed or sent so far."""

    def __init__(self, headers: HeaderList, complete: bool) -> None:
        self.headers, self.complete = headers, complete
        self.chunks: list[bytes] = []
        self.trailers: HeaderList = []

    def message(self, direction: int, *, complete: bool | None = None) -> Any:
        """The `Request` or `Response` of these parts."""
        kind = Request if direction == REQUEST else Response
        message = kind.of(self.headers, b"", self.trailers, self.complete if complete is None else complete)
        message.chunks = [chunk for chunk in self.chunks if chunk]
        return message


class TcpConnection:
    """One TCP connection through filters, open from the start. Made by `FilterUnderTest.tcp`."""

    def __init__(self, chain: FilterUnderTest, properties: dict[str, PropertyValue]) -> None:
        self._harness = harness = chain.harness
        self._first = len(harness.recorder.timeline)
        self.stream = harness.host.tcp_stream(chain.plugins, properties=properties, buffer_limit=chain.buffer_limit)
        self.to_upstream = b""
        """The data that upstream got."""
        self.to_downstream = b""
        """The data that the client got."""
        self.close_details: str | None = None
        """The reason for which the filters closed the connection, or ``None``."""
        harness.restrict(*self.stream._contexts)
        harness.attach(self.stream, self._perform)
        harness.feed("new connection", 0, False, self.stream.new_connection)

    def downstream(self, data: bytes, end_stream: bool = False) -> TcpConnection:
        """Feed data from the client."""
        self._harness.feed(
            "downstream data", len(data), end_stream, lambda: self.stream.downstream_data(data, end_stream)
        )
        return self

    def upstream(self, data: bytes, end_stream: bool = False) -> TcpConnection:
        """Feed data from upstream."""
        self._harness.feed("upstream data", len(data), end_stream, lambda: self.stream.upstream_data(data, end_stream))
        return self

    def _perform(self, effect: Effect) -> None:
        if isinstance(effect, effects.DownstreamData):
            self.to_upstream += effect.data
        elif isinstance(effect, effects.UpstreamData):
            self.to_downstream += effect.data
        elif isinstance(effect, effects.CloseConnection):
            self.close_details = effect.details

    @property
    def closed(self) -> bool:
        """Whether filters or a failure have closed the connection."""
        return self.close_details is not None

    @property
    def result(self) -> Outcome:
        """Logs, callbacks and callouts of the connection so far."""
        invocations, logs = self._harness.recorder.of(self.stream, self._first)
        callouts = [each for each in self._harness.callouts if each.stream is self.stream]
        return Outcome(
            failure=self.stream.failure,
            properties=dict(self.stream.filter_state),
            callouts=callouts,
            invocations=invocations,
            logs=logs,
        )

    def close(self) -> None:
        """Close the connection from the client's side. Closing again does nothing."""
        self._harness.feed("connection closed", 0, True, self.stream.close)
        self._harness.detach(self.stream)

    def __enter__(self) -> TcpConnection:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        state = f"closed by filters: {self.close_details}" if self.closed else "open"
        return f"<TcpConnection {state}; upstream got {self.to_upstream!r}; the client got {self.to_downstream!r}>"
