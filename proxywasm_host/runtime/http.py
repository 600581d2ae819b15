"""An HTTP stream: one request and its response pass through a chain of plugins.

The embedder feeds the parts that it receives from the client and from upstream, and performs the returned effects:

    client → request_headers, request_body …, request_trailers   → RequestHeaders, RequestBody … → upstream
    upstream → response_headers, response_body …                 → ResponseHeaders, ResponseBody … → client

The response passes the plugins in reverse order. A pause produces no effect: held data is returned later. Call `close`
after both sides have finished, however the stream ended.

Rules of a local response, from ``sendLocalReply`` in ``filter_manager.cc`` of Envoy:

* Within a callback for the request it waits until the filter returns. Of several, the first counts.
* Before the response's headers have reached the filters, it passes all filters as a response would.
* From then on until these headers are sent, it is sent to the client directly, instead of the response.
* After that, the stream is reset; if the response is complete, nothing happens.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from proxywasm_host.abi.hostcalls.headers import add, joined, replace
from proxywasm_host.abi.marshal import Refusal
from proxywasm_host.abi.native import NATIVE, check_constants
from proxywasm_host.abi.pairs import HeaderList
from proxywasm_host.abi.types import MapType, Status
from proxywasm_host.abi.values import PropertyValue
from proxywasm_host.forks import cached_property
from proxywasm_host.runtime import effects
from proxywasm_host.runtime.arguments import as_body, how_to_write
from proxywasm_host.runtime.effects import Effect
from proxywasm_host.runtime.failure import Failure
from proxywasm_host.runtime.fast_path import WORDS, HttpStreamBase
from proxywasm_host.runtime.filter_chain import REQUEST, RESPONSE, FilterChain
from proxywasm_host.runtime.header_limits import measure
from proxywasm_host.runtime.http_context import HttpContext
from proxywasm_host.runtime.properties import Stored, grpc_status_of
from proxywasm_host.runtime.stream_filter import StreamFilter, filter_of

__all__ = ["HttpStream", "LocalResponse"]

TOO_LARGE = (
    ("http1.too_many_headers", "http1.headers_too_large"),
    ("http1.too_many_trailers", "http1.trailers_too_large"),
)
"""Envoy's details of a request beyond its `HeaderLimits`, for headers and for trailers: too many, too large."""
IDLE = "stream_idle_timeout"
GRPC_UNAVAILABLE = 14
SERVICE_UNAVAILABLE = 503
PAIR = [bytes, bytes]
KNOWN = ({b":path": 2, b":method": 1, b":scheme": 0, b":authority": 0, b":protocol": 0}, {b":status": 1})
"""Pseudo headers that may be sent, by direction, with a bit for required ones. They precede all other headers.

They are in the order in which Envoy's router checks for them: it looks for the route first.
"""
NEEDED = (3, 1)
check_constants(NEEDED_IN_REQUEST=NEEDED[0], NEEDED_IN_RESPONSE=NEEDED[1])
check_constants(**{name.decode(): bit for known in KNOWN for name, bit in known.items()})
TRAILERS = (MapType.REQUEST_TRAILERS, MapType.RESPONSE_TRAILERS)


def percent_encoded(text: bytes) -> bytes:
    """Text in the form of ``grpc-message``: ``%``, and all bytes but printable ASCII, become ``%XX``."""
    return b"".join(b"%c" % byte if 0x20 <= byte < 0x7F and byte != ord("%") else b"%%%02X" % byte for byte in text)


def local_headers(status: bytes, pairs: HeaderList) -> HeaderList:
    """Headers of a local response, including those of the filter, which cannot set the status."""
    headers = [(b":status", status)]
    for name, value in pairs:
        if name.lower() != b":status":
            add(headers, MapType.RESPONSE_HEADERS, name.lower(), value)
    return headers


@dataclass(frozen=True, slots=True)
class LocalResponse:
    """A response that a filter, or the host on its behalf, made instead of upstream."""

    status: int
    details: str
    headers: HeaderList
    body: bytes
    grpc_status: int | None = None


class HttpStream(HttpStreamBase):
    """One request and its response. Made by `Host.http_stream`.

    Feed it with received parts, in their order: `request_headers`, `request_body`, `request_trailers` from the client,
    `response_headers`, `response_body`, `response_trailers` from upstream, `close` at the end. Each method returns the
    effects to perform, in order; headers are lists of ``(name, value)`` pairs of bytes.

    Parts that are fed after a local response or a reset are ignored. If a `ResponseHeaders` is returned before a
    response was fed, it is a local response: drop the request to upstream. If a `ResetStream` follows a part of the
    response, do not send the rest.
    """

    failed = False
    """Whether a plugin's failure was answered with 503."""
    failure: Failure | None = None
    """The failure, if so."""
    reset_details: str | None = None
    """The reason for which the stream was reset, if it was."""
    _router = True
    """Whether headers without required pseudo headers are answered as by Envoy's router."""
    _prepared: LocalResponse | None = None
    _namespaces: frozenset[str] = frozenset()
    """Namespaces of properties that a subclass has, with `_own_property` and `_set_own`."""
    _context_type = HttpContext
    _chain_type = FilterChain

    # -- Events --------------------------------------------------------------------------------------------------

    def request_trailers(self, trailers: HeaderList) -> list[Effect]:
        """Feed the client's trailers, which end the request. Raises: RuntimeError, before headers or after the end."""
        return self._end(self._request, trailers)

    def response_trailers(self, trailers: HeaderList) -> list[Effect]:
        """Feed upstream's trailers. Ignored after a local response. Raises as `request_trailers`."""
        return self.host.drain() if self.local else self._end(self._response, trailers)

    def __enter__(self) -> HttpStream:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _check(self, chain: FilterChain) -> None:
        which = WORDS[chain.direction]
        if not chain.started:
            raise RuntimeError(f"the {which}'s headers must be given first")
        if chain.ended:
            raise RuntimeError(f"the {which} has ended before")

    def _feed_body(self, chain: FilterChain, data: bytes, end_stream: bool) -> list[Effect]:
        if data.__class__ is not bytes:
            data = as_body(data)
        if not chain.aborted:
            self._check(chain)
            chain.on_data(data, end_stream)
        return self.host.drain()

    def _end(self, chain: FilterChain, trailers: HeaderList) -> list[Effect]:
        if not chain.aborted:
            self._check(chain)
            checked = self._checked(trailers, TRAILERS[chain.direction])
            if checked is not None:
                chain.on_trailers(checked)
        return self.host.drain()

    def _checked(self, headers: Iterable[tuple[bytes, bytes]], map: int, owned: bool = False) -> HeaderList | None:
        """Check the embedder's headers. Returns a copy, or the list itself if it is `owned`.

        With the profile's `inline_headers`, values of headers that may occur only once are joined. Returns ``None`` for
        headers beyond the limits, after the client was answered.

        Raises: TypeError, if one is not a pair of bytes; ValueError, if a name is not in lower case.
        """
        try:
            # The embedder may pass anything:
            pairs: list[Any] = headers if owned and headers.__class__ is list else list(headers)
        except TypeError:
            raise TypeError(f"headers are a list of (name, value) pairs of bytes, not {headers!r}") from None
        for pair in pairs:
            if pair.__class__ is list:
                return self._checked([(name, value) for name, value in pairs], map)
            if pair.__class__ is not tuple or [part.__class__ for part in pair] != PAIR:
                raise TypeError(f"headers are (name, value) pairs of bytes, not {pair!r}{how_to_write(headers, pair)}")
            if pair[0] != pair[0].lower():
                raise ValueError(f"names of headers are in lower case: write {pair[0].lower()!r}, not {pair[0]!r}")
        chain = self._chain(map >= MapType.RESPONSE_HEADERS)
        count, size = measure(pairs)
        if map in TRAILERS:
            chain.trailer_count, chain.trailer_size = len(pairs), size
        else:
            chain.header_count, chain.header_size = len(pairs), size
        limits = self.header_limits
        if limits is not None and (count > limits.count or size > limits.size):
            self._over_header_limits(chain, map, count)
            return None
        return joined(pairs, map) if self.host.profile.inline_headers and len(dict(pairs)) < len(pairs) else pairs

    # -- State ---------------------------------------------------------------------------------------------------

    @cached_property
    def filter_state(self) -> dict[str, bytes]:
        """The properties that filters have stored with ``proxy_set_property``."""
        return {}

    def _own_property(self, name: str) -> PropertyValue:
        """A property in one of `_namespaces`. Raises: LookupError."""
        raise LookupError(name)

    def _set_own(self, name: str, value: bytes) -> Refusal | None:
        """Set a property in one of `_namespaces`."""
        return Refusal(Status.BAD_ARGUMENT, "property {0} cannot be set", name)

    @cached_property
    def _stored(self) -> Stored:
        """The quotas of the properties that filters have stored."""
        return Stored()

    @cached_property
    def span_tags(self) -> dict[str, bytes]:
        """Tags that filters have set for the trace span of this stream (Higress)."""
        return {}

    @property
    def _response_started(self) -> bool:
        """Whether the response's headers have reached the filters."""
        return self._response.started

    @property
    def paused(self) -> bool:
        """Whether a whole message has arrived and waits for a filter."""
        return any(
            chain.ended and not chain.complete and not chain.aborted for chain in (self._request, self._response)
        )

    def _place(self, context: HttpContext, direction: int) -> int:
        """Number of filters that a message has passed, including this one."""
        at = self._contexts.index(context)
        return at + 1 if direction == REQUEST else len(self._contexts) - at

    def _chain(self, direction: int) -> FilterChain:
        """The chain of one direction."""
        return self._response if direction else self._request

    @property
    def filters(self) -> tuple[StreamFilter, ...]:
        """The current state of the filters, in the order of the request."""
        return tuple(map(filter_of, self._contexts))

    # -- What filters do -----------------------------------------------------------------------------------------

    def _emit(self, effect: Effect) -> None:
        self.host._emit(effect)

    def _resume(self, context: HttpContext, direction: int) -> None:
        if not self.closed:
            self._chain(direction).resume(context)

    def _inject(self, context: HttpContext, data: bytes, end_stream: bool) -> None:
        if not self._response.aborted:
            self._response.inject(context, data, end_stream)

    def _for_wire(self, direction: int, headers: HeaderList) -> HeaderList | None:
        """Headers in the form in which they may be sent, without unknown pseudo headers.

        Returns ``None`` if a required one is missing, after an answer as from Envoy's router.
        """
        known, needed = KNOWN[direction], NEEDED[direction]
        found = 0
        for name, value in headers:
            bit = known.get(name)
            if bit is None:
                if name[:1] == b":":
                    allowed = [pair for pair in headers if pair[0][:1] != b":" or pair[0] in known]
                    return self._for_wire(direction, allowed)
                if found == needed:
                    return headers
            elif direction == REQUEST or value.isdigit():
                found |= bit
        if found == needed or not self._router:
            return headers
        self._missing(direction, next(name for name, bit in known.items() if bit & ~found))
        return None

    def _missing(self, direction: int, name: bytes) -> None:
        """Answer a message without this required pseudo header, as Envoy's router does."""
        header = name.decode()
        which = "response" if direction else "request"
        details = f"filter_removed_required_{which}_headers{{missing_required_header:_{header}}}"
        if direction == RESPONSE:
            self._chain(direction).aborted = False
            self._local_response(502, [], f"missing required header: {header}".encode(), details, None)
        elif name == b":path":
            self._local_response(404, [], b"", "route_not_found", None)
        else:
            self._local_response(503, [], f"missing required header: {header}".encode(), details, None)

    def _reset(self, details: str) -> None:
        """Reset the stream."""
        if self.closed or self.reset_details is not None:
            return
        self._request.aborted = self._response.aborted = True
        self.reset_details = details
        if self.details is None:
            self.details = details
        self._emit(effects.ResetStream(details, self))

    def _fail(self, context: HttpContext) -> None:
        """Answer 503, because a plugin's guest has failed (``failStream`` in ``context.cc``)."""
        self.failed = True
        self.failure = context.vm.failure
        self._local_response(SERVICE_UNAVAILABLE, [], b"", "wasm_fail_stream", GRPC_UNAVAILABLE)

    def time_out(self) -> list[Effect]:
        """End a stream that has made no progress for too long (Envoy's ``stream_idle_timeout``).

        The client gets 408 if its request is not complete, else 504; if it has got a part of the response, the
        stream is reset. The embedder chooses the time; Envoy's default is 5 minutes.
        """
        for _ in range(2):  # a filter may hold the first response; the second one is sent directly
            if self._response.headers_sent and self.local is not None and self.local.details == IDLE:
                break
            self._local_response(504 if self._request.ended else 408, [], b"stream timeout", IDLE, None)
        return self.host.drain()

    @property
    def waiting_for(self) -> str:
        """The filter or the part for which the stream waits, as text for a log line."""
        for chain in self._request, self._response:
            holding = chain.holding
            if holding is not None and not chain.aborted:
                return f"plugin {holding.name!r}, which holds the {WORDS[chain.direction]}{holding.plugin._root.calls}"
        if not self._request.ended and not self._request.aborted:
            return "the rest of the request"
        return "the rest of the response" if self._response.started else "the response"

    def _over_header_limits(self, chain: FilterChain, map: int, count: int) -> None:
        """Answer headers or trailers beyond the `HeaderLimits`; no filter gets them. `count` is their number.

        Envoy's codec does the same: it answers a request before any filter runs, and resets a response.
        """
        if chain.direction == RESPONSE:
            reason = "upstream connect or disconnect/reset before headers. reset reason: protocol error"
            self._local_response(
                502, [], reason.encode(), "upstream_reset_before_response_started{protocol_error}", None
            )
            return
        if not chain.started:
            self._abandon()
        assert self.header_limits is not None  # noqa: S101 - they are beyond it
        details = TOO_LARGE[map in TRAILERS][count <= self.header_limits.count]
        self._local_response(431, [], b"Request Header Fields Too Large", details, None)

    def _abandon(self) -> None:
        """Remove all filters, before any of them gets the stream."""
        for context in self._contexts:
            context.drop()
        self._contexts.clear()
        self._request.filters.clear()
        self._response.filters.clear()

    def _over_limit(self, chain: FilterChain) -> None:
        """Answer that filters hold more than the limit: 413 for a request, 500 for a response.

        Source: ``requestDataTooLarge`` and ``responseDataTooLarge`` in ``filter_manager.cc``.
        """
        if chain.direction == REQUEST:
            self._local_response(413, [], b"Payload Too Large", "request_payload_too_large", None)
        else:
            self._local_response(500, [], b"Internal Server Error", "response_payload_too_large", None)

    def _local_response(
        self, status: int, headers: HeaderList, body: bytes, details: str, grpc_status: int | None
    ) -> None:
        """Answer the client instead of upstream; within a callback for the request, after the filter returns."""
        if self.closed or self.reset_details is not None:
            return
        local = LocalResponse(status & 0xFFFF, details, headers, body, grpc_status)
        if self._response.complete:
            return
        if self._request.calling < 0:
            self._send(local)
        elif self._prepared is None:
            self._prepared = local
            self._request.aborted = True

    def _send_prepared(self) -> None:
        """Send the local response that waited for its filter to return, if any."""
        local, self._prepared = self._prepared, None
        if local is not None:
            self._send(local)

    def _send(self, local: LocalResponse) -> None:
        response = self._response
        if response.complete:
            return
        self.details = local.details
        if response.headers_sent:
            self._reset(local.details)
            return
        self.local = local
        self._request.aborted = True
        headers, body = self._complete_response(local)
        response.header_count, response.header_size = len(headers), measure(headers)[1]
        if response.started:
            response.aborted = True
            response = self._response = FilterChain(self, RESPONSE, [])
        elif self._request_header(b":method") == b"HEAD":
            body = b""
        response.on_headers(headers, not body)
        if body and not response.aborted:
            response.on_data(body, True)

    def _request_header(self, name: bytes) -> bytes:
        return next((value for key, value in self._request.headers if key == name), b"")

    def _complete_response(self, local: LocalResponse) -> tuple[HeaderList, bytes]:
        """Headers and body, as Envoy's ``Utility::prepareLocalReply`` makes them."""
        body = local.body
        if self._request_header(b"content-type").startswith((b"application/grpc;", b"application/grpc+")) or (
            self._request_header(b"content-type") == b"application/grpc"
        ):
            grpc_status = grpc_status_of(local.status) if local.grpc_status is None else local.grpc_status
            headers = local_headers(b"200", local.headers)
            replace(headers, b"content-type", b"application/grpc")
            replace(headers, b"grpc-status", b"%d" % grpc_status)
            if body:
                replace(headers, b"grpc-message", percent_encoded(body))
            return headers, b""
        headers = local_headers(b"%d" % local.status, local.headers)
        if body:
            names = [name for name, _ in headers]
            length = (b"content-length", b"%d" % len(body))
            if b"content-length" in names:
                headers[names.index(b"content-length")] = length
            else:
                headers.append(length)
            if b"content-type" not in names:
                headers.append((b"content-type", b"text/plain"))
        return headers, body

    def __repr__(self) -> str:
        state = "closed" if self.closed else "paused" if self.paused else "open"
        names = ", ".join(repr(context.plugin.name) for context in self._contexts) or "no filter"
        return f"<HttpStream {state}, through {names}>"


if NATIVE is not None:
    NATIVE.use(http_context=HttpContext, filter_chain=FilterChain, http_stream=HttpStream)
