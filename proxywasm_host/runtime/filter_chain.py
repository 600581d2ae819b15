"""One direction of an HTTP stream: headers, body and trailers pass through the filters of a chain.

Rules, those of Envoy's filter manager (``filter_manager.cc``), which every filter is written against:

* Each filter is in one of three states, and its callbacks' results move it between them:

      =============  ==========================================  =====================================================
      state          what came of it                             what happens to what comes next
      =============  ==========================================  =====================================================
      CONTINUE       passed it on                                is given to it
      STOP_SINGLE    PAUSE on headers (where allowed), on a      body: is given to it, so that it may buffer;
                     body or on trailers                         what follows a body it lets pass goes on with it
      STOP_ALL       PAUSE on headers                            is held, and not given to it until it is resumed
      =============  ==========================================  =====================================================

* A direction has one buffer, with the data that a filter holds. No filter behind that one has seen it.
* A resumed filter's headers go on first, then the held body, then trailers. After STOP_ALL the body is first given to
  the filter itself.
* Holding more than the limit is an error to the client (413 or 500). If the filter asked for back-pressure (PAUSE on
  headers does), the error comes at 16 times the limit: the carrier did not stop reading.
* Once the direction is `aborted` (local response, reset), nothing moves any more.
"""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING

from proxywasm_host.abi.held_body import HeldBody
from proxywasm_host.abi.pairs import HeaderList
from proxywasm_host.abi.types import DataAction, HeadersAction
from proxywasm_host.runtime import effects
from proxywasm_host.runtime.fast_path import REQUEST, RESPONSE, FilterChainBase

if TYPE_CHECKING:
    from proxywasm_host.runtime.http_context import HttpContext

__all__ = ["REQUEST", "RESPONSE", "FilterChain"]

BACKPRESSURE_LIMITS = 16
"""How many limits a filter with back-pressure may hold if the carrier does not stop reading."""
LARGE = 1 << 20
"""Bytes of a part of a body."""
TRAILERS_OUT = (effects.RequestTrailers, effects.ResponseTrailers)
# Plain numbers, for members of an enumeration are slow to come by.
BUFFER, WATERMARK = (
    int(HeadersAction.STOP_ALL_ITERATION_AND_BUFFER),
    int(HeadersAction.STOP_ALL_ITERATION_AND_WATERMARK),
)


class IterationState(Enum):
    CONTINUE = 0
    STOP_SINGLE = 1
    STOP_ALL = 2


STOP_SINGLE, STOP_ALL = IterationState.STOP_SINGLE, IterationState.STOP_ALL


class FilterChain(FilterChainBase):
    """The request's way upstream, or the response's way to the client."""

    trailer_count = trailer_size = 0
    """Number of trailers that came in, and their bytes."""

    # -- Events --------------------------------------------------------------------------------------------------

    def on_trailers(self, trailers: HeaderList) -> None:
        """Trailers have come in, which end the message."""
        self.trailers = trailers
        self.ended = True
        self.resume_asked = 0
        self._trailers(0)

    def resume(self, context: HttpContext) -> None:
        """Resume a paused filter."""
        if context in self.filters:
            index = self.filters.index(context)
            if index == self.calling:
                self.resume_asked |= 1 << index
            elif index in self.stopped:
                self._resume(index)

    def inject(self, context: HttpContext, data: bytes, end_stream: bool) -> None:
        """Send data on behind a filter; its headers go first, if it holds them."""
        if context in self.filters:
            index = self.filters.index(context)
            if self.passed <= index:
                self.passed = index + 1
                self.pass_headers(index + 1, False)
            if not self.aborted:
                self.pass_data(index + 1, data, end_stream)

    @property
    def holding(self) -> HttpContext | None:
        """The first filter that holds something."""
        return self.filters[min(self.stopped)] if self.stopped else None

    # -- Through the filters -------------------------------------------------------------------------------------

    def stop(self, index: int, action: int) -> None:
        """A filter holds the headers; `action` is what its callback returned."""
        self._stop(index, STOP_ALL if action in (BUFFER, WATERMARK) else STOP_SINGLE)
        self.streaming = action == WATERMARK
        self._resume_if_asked(index)

    def pass_data(self, start: int, data: bytes | HeldBody, end_stream: bool) -> None:
        """Give a part of the body to the filters from `start` on, and out, unless one of them stops that.

        What one of them held, and a large part, is given on to be changed in place: bytes would be in memory beside
        what the next one puts there.
        """
        if len(data) > LARGE and isinstance(data, bytes):
            data = HeldBody(data)
        trailers_added_by = None
        for index in range(start, len(self.filters)):
            if self.stopped.get(index) is STOP_ALL:
                self._hold(data)
                return
            if self.was_given_end(index):
                return
            had_trailers = self.trailers is not None
            end = end_stream and not had_trailers
            if end:
                self.give_end(index)
            self.calling = index
            action, data = self.filters[index].on_data(self, data, end)
            self.calling = -1
            if self.aborted:
                self.stream._send_prepared()
                return
            if not had_trailers and self.trailers is not None:  # addDecodedTrailers: filters behind it see them
                trailers_added_by = index
            if not self._after_data(index, action, data):
                return
        self.out_data(bytes(data), end_stream and self.trailers is None)
        if trailers_added_by is not None:
            self._trailers(trailers_added_by + 1)

    def _after_data(self, index: int, action: int, data: bytes | HeldBody) -> bool:
        """Set the filter's state from the result of its callback on a body. Returns whether the data goes on."""
        self.resume_asked &= ~(1 << index)
        if action == DataAction.CONTINUE:
            if index in self.stopped:  # commonHandleAfterDataCallback: held data goes on first
                self._hold(data)
                self._resume(index)
                return False
            return True
        self._stop(index, STOP_SINGLE)
        if action == DataAction.STOP_ITERATION_NO_BUFFER:
            if self.ended and self.trailers is None and self.buffer is None:
                self.buffer = b""
        else:
            self.streaming = action == DataAction.STOP_ITERATION_AND_WATERMARK
            self._hold(data, self.filters[index] if action == DataAction.STOP_ITERATION_AND_BUFFER else None)
        return False

    def _trailers(self, start: int) -> None:
        for index in range(start, len(self.filters)):
            if self.stopped.get(index) is STOP_ALL:  # FilterManager::decodeTrailers: they wait
                return
            assert self.trailers is not None  # noqa: S101 - trailers never go away
            self.calling = index
            action = self.filters[index].on_trailers(self.direction, self.trailers)
            self.calling = -1
            if self.aborted:
                self.stream._send_prepared()
                return
            self.give_end(index)
            if action:
                if index not in self.stopped:
                    self._stop(index, STOP_SINGLE)
                self._resume_if_asked(index)
                return
            if index in self.stopped:
                self._resume(index)
                return
        self._out_trailers()

    def _stop(self, index: int, state: IterationState) -> None:
        self.stopped = {**self.stopped, index: state}

    def _resume_if_asked(self, index: int) -> None:
        if self.resume_asked >> index & 1:
            self.resume_asked &= ~(1 << index)
            self._resume(index)

    def _resume(self, index: int) -> None:
        if self.aborted:
            return
        again = index if self.stopped[index] is STOP_ALL else index + 1
        self.stopped = {other: state for other, state in self.stopped.items() if other != index}
        had_trailers = self.trailers is not None
        if self.passed <= index:
            self.passed = index + 1
            self.headers = list(self.headers)  # the filter keeps its copy: its changes have no effect any more
            self.pass_headers(index + 1, self.ended and self.buffer is None and not had_trailers)
            if self.aborted:
                return
        if self.buffer is not None:
            holder, held = self.holder, self.take_growing()
            if holder is not None:
                holder.buffers[self.direction] = bytes(held)  # likewise
            self.pass_data(again, held, self.ended and not had_trailers)
        if had_trailers and not self.aborted:
            self._trailers(again)

    # -- The buffer ----------------------------------------------------------------------------------------------

    def held(self) -> bytes:
        """What is held."""
        seen = None if self.holder is None else self.holder.buffers[self.direction]
        return bytes((self.buffer or b"") if seen is None else seen)

    def take_buffer(self) -> bytes:
        """Take the held data out of the buffer."""
        data = self.held()
        self.holder = None
        self.buffer = None
        return data

    def take_growing(self, more: bytes | HeldBody = b"") -> HeldBody:
        """Take the held data, with `more` at its end, out of the buffer, in a form that grows without copies."""
        seen = None if self.holder is None else self.holder.buffers[self.direction]
        found = self.buffer if seen is None else seen
        self.holder = None
        self.buffer = None
        if not found and isinstance(more, HeldBody):
            return more
        held = found if isinstance(found, HeldBody) else HeldBody(found or b"")
        held.append(bytes(more))
        return held

    def _hold(self, data: bytes | HeldBody, holder: HttpContext | None = None) -> None:
        self.buffer = held = self.take_growing(data)
        if holder is not None:
            self.holder = holder
            holder.buffers[self.direction] = held
        limit = self.stream.buffer_limit
        if len(held) > (limit * BACKPRESSURE_LIMITS if self.streaming else limit):
            self.stream._over_limit(self)

    @property
    def full(self) -> bool:
        """Whether more than the limit is held: the carrier should not read meanwhile."""
        return self.buffer is not None and len(self.buffer) > self.stream.buffer_limit

    # -- Out -----------------------------------------------------------------------------------------------------

    def _out_trailers(self) -> None:
        if self.complete:
            return
        self.complete = True
        self.stream.host._emit(TRAILERS_OUT[self.direction](self.trailers or [], self.stream))
