"""An exchange in messages of ext_proc, without I/O.

Envoy sends a request and its response part by part, one message at a time, and continues when a message is answered:

    exchange.receive(message)
    for answer in exchange.answers():
        …

Rules of this module, from ``processor_state.cc`` of Envoy:

* An answer contains the filters' changes of a message. While a filter holds the message, the answer waits.
* A filter's own response becomes an ``ImmediateResponse``. So does a reset: if the response has begun, Envoy then
  resets the stream.
* A guest that failed is an error of the gRPC call, so that ``failure_mode_allow`` decides about the request.

The mode of a body decides how it is answered:

    ====================  =============================================================================================
    NONE                  no body arrives. A filter that waits for one makes us ask for BUFFERED, one that changes
                          bodies for STREAMED (``mode_override``)
    BUFFERED              one message, and one answer, which may still change the headers
    BUFFERED_PARTIAL      as BUFFERED, with the beginning of the body
    STREAMED              one answer to each part, at once; data that a filter holds comes with a later answer. The
                          answer to the last part waits for the filters
    FULL_DUPLEX_STREAMED  any number of answers, whenever something comes out
    ====================  =============================================================================================
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from proxywasm_host.abi.pairs import HeaderList
from proxywasm_host.abi.values import PropertyValue
from proxywasm_host.envoy.attributes import add_attributes, add_metadata, store_metadata
from proxywasm_host.envoy.messages import (
    BUFFERED,
    BUFFERED_PARTIAL,
    FULL_DUPLEX_STREAMED,
    GRPC,
    NONE,
    STREAMED,
    ProcessingResponse,
)
from proxywasm_host.envoy.mutation import mutate, pairs_of, received, sent_request, sent_response, set_all
from proxywasm_host.integrations.exchange import Exchange, RequestHead, ResponseHead, State
from proxywasm_host.integrations.exchange_base import Performer
from proxywasm_host.integrations.headers import LENGTH
from proxywasm_host.runtime import effects
from proxywasm_host.runtime.effects import Effect
from proxywasm_host.runtime.filter_chain import REQUEST, RESPONSE, FilterChain, IterationState
from proxywasm_host.runtime.http import HttpStream

__all__ = ["CallFailed", "CannotWork", "Direction", "GuestFailed", "OutOfOrder", "ProcessingExchange"]

SERVICE_UNAVAILABLE = 503
SEND = 1
logger = logging.getLogger("proxywasm_host.ext_proc")
HOLDS_HEADERS = (
    "a filter holds the {0}'s headers until it has seen the body, which Envoy does not send in this mode: "
    "set processing_mode.{0}_body_mode: BUFFERED in Envoy's configuration of ext_proc, or allow_mode_override: true"
)
HOLDS_BODY = (
    "a filter holds the {0}'s body until its trailers, when STREAMED can no longer send it: "
    "set processing_mode.{0}_body_mode: FULL_DUPLEX_STREAMED and {0}_trailer_mode: SEND in Envoy's configuration"
)
NO_BODY = (
    "filters can change the {0}'s body, but Envoy does not send it: set processing_mode.{0}_body_mode: STREAMED in "
    "Envoy's configuration of ext_proc, or allow_mode_override: true"
)
NO_TRAILERS = (
    "a filter holds the {0}'s body until its end, which is in trailers that Envoy does not send: "
    "set processing_mode.{0}_trailer_mode: SEND in Envoy's configuration of ext_proc"
)
NEW_TRAILERS = "a filter adds trailers to a {0} that has none, which ext_proc cannot do: they are left out"
NO_REQUEST = (
    "filters need the request's headers: set processing_mode.request_header_mode: SEND in Envoy's configuration"
)
NO_GRPC_MODE = "the body mode GRPC is not supported: set processing_mode.{0}_body_mode: FULL_DUPLEX_STREAMED"


class CallFailed(Exception):
    """A call that cannot continue. It ends with an error that Envoy receives."""


class CannotWork(CallFailed):
    """The filters cannot work in the mode that Envoy is configured with; the message says what to change there."""


class GuestFailed(CallFailed):
    """A guest failed at this request."""


class OutOfOrder(CallFailed):
    """A message that must not come at this point."""


@dataclass(slots=True)
class Asked:
    """A message from Envoy that waits for its answer."""

    kind: str
    """``headers``, ``body`` or ``trailers``"""
    data: bytes = b""
    last: bool = False


class Direction:
    """The request or the response: Envoy's messages that wait, and the parts that have come out of the filters."""

    def __init__(self, name: str, mode: int) -> None:
        self.name = name
        self.mode = mode
        """The mode of the body."""
        self.asked: deque[Asked] = deque()
        self.before: HeaderList = []
        """The headers as Envoy has them."""
        self.trailers_before: HeaderList = []
        self.head: HeaderList | None = None
        """The headers as they came out of the filters, once they have. Likewise `body`, `ended` and `trailers`."""
        self.body: list[bytes] = []
        self.ended = False
        self.trailers: HeaderList | None = None
        self.has_body = False
        """Whether the headers said that something follows."""
        self.body_came = False
        self.all_came = False
        self.head_due = False
        """Whether the headers were answered early: the answer to the body has the filters' changes of them."""
        self.added_trailers = False
        """Whether filters added trailers to a message that has none."""
        self.end_told = False
        """Whether the last answer to a body was sent."""
        self.cut_short = False
        """Whether the filters got an end where trailers, or more of the body, follow."""
        self.override = NONE
        """The mode that we asked for instead."""

    def take_body(self) -> bytes:
        """Take the data that came out."""
        data, self.body = b"".join(self.body), []
        return data

    def take_trailers(self, trailers: HeaderList) -> None:
        """Note trailers that came out. Envoy cannot add trailers to a message that has none."""
        if self.trailers_before or not self.all_came:
            self.trailers = trailers
        else:
            self.ended, self.added_trailers = True, True

    def comes(self, kind: str) -> None:
        """Check that Envoy may send a message of this kind now. Raises: OutOfOrder."""
        if self.all_came or bool(self.before) is (kind == "headers"):
            raise OutOfOrder(f"an unexpected message: the {self.name}'s {kind}")


class ProcessingExchange(Exchange):
    """The exchange of one call of ``ExternalProcessor.Process``.

    Args: those of `Exchange`, and
        properties: the stream's properties, to which Envoy's attributes and metadata are added.
        begins: called with method and path, before any filter.
    """

    observed = False
    """Whether Envoy only lets us observe, and waits for no answer."""
    processed = False
    """Whether the last answer was sent."""
    _local_head: ResponseHead | None = None
    _route_cleared = False
    _stored: dict[str, bytes] | None = None

    def __init__(
        self,
        driver: Performer,
        stream: HttpStream,
        properties: dict[str, PropertyValue],
        *,
        begins: Callable[[bytes, bytes], None],
        wake: Callable[[], None],
    ) -> None:
        super().__init__(driver, stream, fix_content_length=False, wake=wake, log=logger)
        self._begins = begins
        self._properties = properties
        self.sides = Direction("request", NONE), Direction("response", NONE)

    # -- What Envoy sends ----------------------------------------------------------------------------------------

    def receive(self, message: Any) -> None:
        """Feed a ``ProcessingRequest``. Raises: OutOfOrder, CannotWork."""
        kind = message.WhichOneof("request")
        if message.HasField("protocol_config") and not any(side.before for side in self.sides):
            modes = message.protocol_config
            self.sides = Direction("request", modes.request_body_mode), Direction("response", modes.response_body_mode)
        self.observed = self.observed or message.observability_mode
        add_attributes(self._properties, message.attributes)
        add_metadata(self._properties, "metadata", message.metadata_context)
        if kind is None:
            raise OutOfOrder("a message without content")
        name, _, part = kind.partition("_")
        side = self.sides[name == "response"]
        side.comes(part)
        getattr(self, f"_receive_{part}")(side, getattr(message, kind))
        if self.observed:
            side.asked.clear()

    def _receive_headers(self, side: Direction, content: Any) -> None:
        if side.mode == GRPC:
            raise CannotWork(NO_GRPC_MODE.format(side.name))
        pairs = pairs_of(content.headers)
        pseudo = dict(pair for pair in pairs if pair[0][:1] == b":")
        rest = [pair for pair in pairs if pair[0][:1] != b":"]
        side.has_body = not content.end_of_stream
        side.all_came = content.end_of_stream
        side.asked.append(Asked("headers"))
        if side.name == "request":
            method, path, scheme = (pseudo.get(name, b"") for name in (b":method", b":path", b":scheme"))
            authority = pseudo.get(b":authority", b"")
            side.before = [(b":method", method), (b":path", path), (b":scheme", scheme), (b":authority", authority)]
            side.before += received(rest)
            self._begins(method, path)
            self.begin(method, path, scheme, [(b"host", authority), *rest], content.end_of_stream)
            return
        request = self.sides[0]
        if not request.before:
            raise CannotWork(NO_REQUEST)
        if request.head_due and not request.body_came:
            raise CannotWork(HOLDS_HEADERS.format("request"))
        status = pseudo.get(b":status", b"")
        if not status.isdigit():
            raise OutOfOrder("a response without a status")
        side.before = [(b":status", status), *received(rest)]
        self.response(int(status), rest, content.end_of_stream, trailers=True)

    def _receive_body(self, side: Direction, content: Any) -> None:
        if side.body_came and side.mode in (BUFFERED, BUFFERED_PARTIAL):  # Envoy did not follow `mode_override`
            raise CannotWork(HOLDS_HEADERS.format(side.name))
        feed = self.request_body if side.name == "request" else self.response_body
        data, last = content.body, content.end_of_stream
        if side.mode == NONE:  # asked for, or not announced by an older Envoy
            side.mode = STREAMED
        side.body_came, side.all_came = True, last
        side.asked.append(Asked("body", data, last))
        feed(data, last)
        if not last and side.mode in (BUFFERED, BUFFERED_PARTIAL):
            self._collect()
            if self._chain(side).stopped:  # Envoy sends nothing more until this is answered
                side.cut_short = True
                feed(b"", True)

    def _receive_trailers(self, side: Direction, content: Any) -> None:
        side.all_came = True
        side.trailers_before = pairs_of(content.trailers)
        side.asked.append(Asked("trailers"))
        if not side.cut_short:
            feed = self.request_trailers if side.name == "request" else self.response_trailers
            feed(pairs_of(content.trailers))

    def _chain(self, side: Direction) -> FilterChain:
        return self.stream._chain(REQUEST if side.name == "request" else RESPONSE)

    def _take_in(self, effect: Effect) -> None:
        if isinstance(effect, effects.ClearRouteCache):
            self._route_cleared = True
        super()._take_in(effect)

    # -- Answers -------------------------------------------------------------------------------------------------

    @property
    def held(self) -> bool:
        """Whether something may come out without another message."""
        stream = self.stream
        return bool(
            stream._chain(REQUEST).stopped
            or stream._chain(RESPONSE).stopped
            or any(side.asked for side in self.sides)
            or stream.local is not None
        )

    @property
    def whole(self) -> bool:
        """Whether all that Envoy sent of the response was answered, so that the call may be complete.

        Envoy ends a complete call like one whose client has gone: by half-closing or resetting it.
        """
        response = self.sides[1]
        came = response.all_came or (bool(response.before) and not response.body_came)
        return self.processed or (came and not any(side.asked for side in self.sides))

    def answers(self) -> Iterator[Any]:
        """Yield each ``ProcessingResponse`` that can be sent now. Raises: GuestFailed, CannotWork."""
        self._collect()
        if self.local or self.state is State.CUT:
            if self.stream.failure is not None:
                raise GuestFailed(f"filter {self.stream.failure.plugin!r} failed: {self.stream.failure.kind}")
            if self.state is not State.BEGUN and self.state is not State.WAITING and not self.processed:
                self.processed = True
                yield self._immediate()
            return
        for side in self.sides:
            answers = self._full_duplex(side) if side.mode == FULL_DUPLEX_STREAMED else self._one_by_one(side)
            for answer in answers:
                if self.stream.filter_state and self.stream.filter_state != self._stored:
                    self._stored = dict(self.stream.filter_state)
                    store_metadata(self._stored, answer.dynamic_metadata)
                yield answer

    def _collect(self) -> None:
        """Take the parts that have come out."""
        request, response = self.sides
        for part in self.to_upstream:
            if isinstance(part, RequestHead):
                request.head, request.ended = sent_request(part), part.end_stream
            elif isinstance(part, effects.RequestTrailers):
                request.take_trailers(part.trailers)
            else:
                request.body.append(part.data)
                request.ended = part.end_stream
        self.to_upstream.clear()
        for piece in self.to_client:
            if isinstance(piece, ResponseHead):
                if self.local:
                    self._local_head, response.body = piece, []
                else:
                    response.head, response.ended = sent_response(piece), piece.end_stream
            elif isinstance(piece, effects.ResponseTrailers):
                response.take_trailers(piece.trailers)
            elif isinstance(piece, effects.ResponseBody):
                response.body.append(piece.data)
                response.ended = piece.end_stream
        self.to_client.clear()

    def _immediate(self) -> Any:
        answer = ProcessingResponse()
        immediate, head = answer.immediate_response, self._local_head
        immediate.details = self.stream.details or ""
        if head is None or self.state is State.CUT:
            immediate.status.code = SERVICE_UNAVAILABLE
            return answer
        immediate.status.code = head.status
        set_all((pair for pair in head.headers if pair[0] != LENGTH), immediate.headers.set_headers)
        immediate.body = self.sides[1].take_body()
        return answer

    def _one_by_one(self, side: Direction) -> Iterator[Any]:
        while side.asked:
            answer = ProcessingResponse()
            asked = side.asked[0]
            part: Any = getattr(answer, f"{side.name}_{asked.kind}")
            part.SetInParent()
            if not getattr(self, f"_answer_{asked.kind}")(side, asked, part, answer):
                return
            side.asked.popleft()
            yield answer

    def _answer_headers(self, side: Direction, asked: Asked, part: Any, answer: Any) -> bool:
        if side.head is None:
            if not self._waits_for_body(side):
                return False
            side.head_due = True
            if side.mode not in (BUFFERED, BUFFERED_PARTIAL):
                side.mode = side.override = BUFFERED
        else:
            self._change_headers(side, side.head, part.response)
            if side.mode == NONE and side.has_body and self.stream.changes_bodies:
                side.override = STREAMED
        if side.override:
            self._ask_for_modes(answer.mode_override)
        return True

    def _change_headers(self, side: Direction, after: HeaderList, common: Any) -> None:
        changed = mutate(side.before, after, common.header_mutation)
        if side.name == "request" and (self._route_cleared or (changed and not self._keeps_route)):
            common.clear_route_cache = True

    @property
    def _keeps_route(self) -> bool:
        return any(context.keeps_route for context in self.stream._contexts)

    def _waits_for_body(self, side: Direction) -> bool:
        """Whether a filter holds the headers, and must get the body meanwhile."""
        chain = self._chain(side)
        return side.has_body and bool(chain.stopped) and chain.stopped[min(chain.stopped)] is IterationState.STOP_SINGLE

    def _ask_for_modes(self, override: Any) -> None:
        for side in self.sides:
            setattr(override, f"{side.name}_body_mode", side.override or side.mode)
        for name in ("request_header", "response_header", "request_trailer", "response_trailer"):
            setattr(override, f"{name}_mode", SEND)

    def _answer_body(self, side: Direction, asked: Asked, part: Any, answer: Any) -> bool:
        if side.head is None or ((asked.last or side.cut_short) and not side.ended):
            return False
        if not asked.last and side.mode == STREAMED and self._full(side):
            return False
        data, common = side.take_body(), part.response
        changed = data != asked.data
        if side.mode in (BUFFERED, BUFFERED_PARTIAL):
            # Envoy refuses a body whose length differs from the header.
            length = any(name == LENGTH for name, _ in side.head) and changed
            if side.head_due:
                side.head_due = False
                after = [(name, b"%d" % len(data) if length and name == LENGTH else value) for name, value in side.head]
                self._change_headers(side, after, common)
            elif length:
                set_all([(LENGTH, b"%d" % len(data))], common.header_mutation.set_headers)
        if changed and data:
            common.body_mutation.body = data
        elif changed:
            common.body_mutation.clear_body = True
        return True

    def _full(self, side: Direction) -> bool:
        return self.stream.request_full if side.name == "request" else self.stream.response_full

    def _answer_trailers(self, side: Direction, asked: Asked, part: Any, answer: Any) -> bool:
        if side.cut_short:
            return True
        if side.trailers is None:
            return False
        if side.body:
            raise CannotWork(HOLDS_BODY.format(side.name))
        mutate(side.trailers_before, side.trailers, part.header_mutation)
        return True

    def _full_duplex(self, side: Direction) -> Iterator[Any]:
        if side.head is None:
            return
        if side.asked and side.asked[0].kind == "headers":
            side.asked.popleft()
            answer = ProcessingResponse()
            answer.SetInParent()
            part = getattr(answer, f"{side.name}_headers")
            part.SetInParent()
            self._change_headers(side, side.head, part.response)
            yield answer
        if side.body or (side.has_body and side.ended and not side.end_told):
            side.end_told = side.ended
            answer = ProcessingResponse()
            streamed = getattr(answer, f"{side.name}_body").response.body_mutation.streamed_response
            streamed.SetInParent()
            streamed.body, streamed.end_of_stream = side.take_body(), side.ended
            yield answer
        if side.trailers is not None and side.asked:
            answer = ProcessingResponse()
            part = getattr(answer, f"{side.name}_trailers")
            part.SetInParent()
            mutate(side.trailers_before, side.trailers, part.header_mutation)
            side.trailers = None
            side.asked.clear()
            yield answer
        side.asked = deque(asked for asked in side.asked if asked.kind == "trailers")  # parts of a body need no answers

    def complaints(self) -> Iterator[str]:
        """Yield a message, at the end of the call, for each thing that filters could not do in these modes."""
        if self.local or self.state is State.CUT or self.observed:
            return
        for side in self.sides:
            if side.added_trailers:
                yield NEW_TRAILERS.format(side.name)
            if not side.before or side.all_came or self.state is State.GONE:
                continue
            if side.override == STREAMED and not side.body_came:
                yield NO_BODY.format(side.name)
            elif side.body_came and self._chain(side).stopped:
                yield NO_TRAILERS.format(side.name)
