"""One direction of an HTTP stream: headers, body and trailers pass through the filters of a chain.

Rules, from Envoy's filter manager (``filter_manager.cc``), for which all filters are written:

* Each filter is in one of three states, which the results of its callbacks change:

      =============  ==========================================  =====================================================
      state          the filter returned                         the next part of the message
      =============  ==========================================  =====================================================
      CONTINUE       CONTINUE                                    goes to the filter
      STOP_SINGLE    PAUSE on headers (where allowed), on a      goes to the filter, which may buffer a body; when it
                     body or on trailers                         returns CONTINUE for a body, all that it holds passes
      STOP_ALL       PAUSE on headers                            is held, and goes to the filter when it is resumed
      =============  ==========================================  =====================================================

* A direction has one buffer for held data. No filter after the one that holds it has got this data.
* When a filter is resumed, its headers pass first, then the held body, then trailers. After STOP_ALL, the filter itself
  gets the body first.
* If more than the limit is held, the client gets an error (413 or 500). If the filter requested back-pressure (PAUSE on
  headers does), it gets the error at 16 times the limit, because the carrier has not stopped reading.
* After the direction is `aborted` (local response, reset), nothing passes.
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
"""The multiple of the limit that a filter with back-pressure may hold, if the carrier does not stop reading."""
LARGE = 1 << 20
"""Most bytes of a part of a body that is copied when a filter changes it."""
TRAILERS_OUT = (effects.RequestTrailers, effects.ResponseTrailers)
# Plain numbers, because members of an enumeration are slow to look up.
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
    """One direction of a stream through its filters: the request to upstream, or the response to the client."""

    trailer_count = trailer_size = 0
    """Number of trailers that arrived, and their bytes."""

    # -- Events --------------------------------------------------------------------------------------------------

    def on_trailers(self, trailers: HeaderList) -> None:
        """Handle the received trailers, which end the message."""
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
        """Pass data to the filters after one filter, which first releases the headers that it holds."""
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
        """Hold the headers at a filter; `action` is the result of its callback."""
        self._stop(index, STOP_ALL if action in (BUFFER, WATERMARK) else STOP_SINGLE)
        self.streaming = action == WATERMARK
        self._resume_if_asked(index)

    def pass_data(self, start: int, data: bytes | HeldBody, end_stream: bool) -> None:
        """Pass a part of the body through the filters from `start` on, and send it unless a filter stops it.

        Held data, and a large part, are passed as a `HeldBody`, which the next filter changes in place. If they were
        ``bytes``, memory would contain them together with their changed copy.
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
            if not had_trailers and self.trailers is not None:  # addDecodedTrailers: the filters after it get them
                trailers_added_by = index
            if not self._after_data(index, action, data):
                return
        self.out_data(bytes(data), end_stream and self.trailers is None)
        if trailers_added_by is not None:
            self._trailers(trailers_added_by + 1)

    def _after_data(self, index: int, action: int, data: bytes | HeldBody) -> bool:
        """Set the filter's state from the result of its callback on a body. Returns whether the data passes."""
        self.resume_asked &= ~(1 << index)
        if action == DataAction.CONTINUE:
            if index in self.stopped:  # commonHandleAfterDataCallback: held data passes first
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
            self.headers = list(self.headers)  # the filter keeps the old list, so its changes have no effect
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
        """The held data."""
        seen = None if self.holder is None else self.holder.buffers[self.direction]
        return bytes((self.buffer or b"") if seen is None else seen)

    def take_buffer(self) -> bytes:
        """Remove the held data from the buffer and return it."""
        data = self.held()
        self.holder = None
        self.buffer = None
        return data

    def take_growing(self, more: bytes | HeldBody = b"") -> HeldBody:
        """Remove the held data from the buffer. Returns it with `more` added, in a form that grows without copies."""
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
        """Whether more than the limit is held; if so, the carrier should not read."""
        return self.buffer is not None and len(self.buffer) > self.stream.buffer_limit

    # -- Out -----------------------------------------------------------------------------------------------------

    def _out_trailers(self) -> None:
        if self.complete:
            return
        self.complete = True
        self.stream.host._emit(TRAILERS_OUT[self.direction](self.trailers or [], self.stream))
