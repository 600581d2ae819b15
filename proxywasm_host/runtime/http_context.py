"""One filter on one HTTP stream: its callbacks, the maps and buffers that it can read, and the meaning of its results.

Rules of this module, from ``context.cc`` of Envoy and of its host:

* The context is made in the guest when the request's headers reach the filter. If they never do (an earlier filter
  answered), the filter gets no callback for the response either.
* A map or a buffer is readable from its callback on, until the guest lets it pass; a pause keeps it readable.
* An unknown action stops the iteration: on headers like STOP_ALL, on a body like NO_BUFFER, on trailers like PAUSE.
* A part for which the guest has no callback passes.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from proxywasm_host.abi.context import READ_ONLY, Context
from proxywasm_host.abi.held_body import HeldBody
from proxywasm_host.abi.marshal import Refusal, RestrictedCall
from proxywasm_host.abi.pairs import MAX_ENTRIES, MAX_SIZE, HeaderList
from proxywasm_host.abi.types import AbiVersion, DataAction, HeadersAction, MapType, Status, StreamType
from proxywasm_host.abi.values import PropertyValue
from proxywasm_host.runtime import effects
from proxywasm_host.runtime.fast_path import BUFFER_LIMIT, HEADERS_MAP, REQUEST, RESPONSE, STOP_ALL, HttpContextBase
from proxywasm_host.runtime.filter_chain import BACKPRESSURE_LIMITS, FilterChain
from proxywasm_host.runtime.properties import stream_property
from proxywasm_host.runtime.vm import kept_bytes

__all__ = ["HttpContext"]

ON_BODY = ("on_request_body", "on_response_body")
ON_TRAILERS = ("on_request_trailers", "on_response_trailers")
# Plain numbers, because members of an enumeration are slow in code that every request runs.
TRAILERS_MAP = (int(MapType.REQUEST_TRAILERS), int(MapType.RESPONSE_TRAILERS))
WHITE_SPACE = bytes.maketrans(b" \t\n\v\f\r", b"______")
"""Response code details have no white space (``sendLocalResponse`` in ``context.cc``)."""
DIRECTIONS = (int(StreamType.REQUEST), int(StreamType.RESPONSE))
"""Numbers of a direction: `REQUEST` and `RESPONSE`."""
PAUSE = int(HeadersAction.STOP_ITERATION)
END_STREAM = int(HeadersAction.CONTINUE_AND_END_STREAM)
NO_BUFFER = int(DataAction.STOP_ITERATION_NO_BUFFER)
BUFFER = int(DataAction.STOP_ITERATION_AND_BUFFER)
CONTEXT = 8 * 1024
"""Bytes of a context that waits for ``proxy_done``, in addition to the kept part of its stream."""
BODY, TRAILERS, PART = 1, 2, 32
"""The callback that an action belongs to, as bits above it; callbacks on headers have no bit."""
V0_2_100 = AbiVersion.V0_2_100  # looking up a member runs Python code
SPAN_TAG = "trace_span_tag."
BUFFER_LIMITS = ("set_decoder_buffer_limit", "set_encoder_buffer_limit")
"""Each sets the limit of the whole stream, because Envoy has one for both directions. A limit above that of the
guest's memory is lowered to it."""
MAX_BUFFER_LIMIT = 0xFFFFFFFF


class HttpContext(HttpContextBase, Context):
    """A stream context."""

    _buffering = 0
    """A bit for each direction whose body the filter holds and gets as a whole."""
    _in_body: FilterChain | None = None
    """The direction whose last callback on a body runs, in which trailers may be added."""
    _held = 0
    """Bytes of the context while it waits for ``proxy_done``."""
    keeps_route = False
    """Whether the guest has switched off ``clear_route_cache`` (Higress)."""
    callouts = 0
    """Number of HTTP callouts of this stream under way, for profiles in which the last reply resumes it."""

    @property
    def name(self) -> str:
        """The name of its plugin."""
        return self.plugin.name

    # -- Callbacks -----------------------------------------------------------------------------------------------

    def headers_action(self, action: int) -> int:
        """Convert an action: CONTINUE_AND_END_STREAM to CONTINUE, most PAUSEs and unknown actions to STOP_ALL.

        Source: ``convertVmCallResultToFilterHeadersStatus`` in ``context.cc`` of Envoy's host.
        """
        if action > STOP_ALL or (action == PAUSE and self._pause_holds_body()):
            return STOP_ALL
        return 0 if action == END_STREAM else action

    def _pause_holds_body(self) -> bool:
        """Whether PAUSE on headers is STOP_ALL, as in Envoy's host, but not in Higress's."""
        vm = self.vm
        return (
            vm.profile.pause_holds_body
            and vm.version < V0_2_100
            and not self.plugin.config.allow_on_headers_stop_iteration
        )

    def on_data(self, chain: FilterChain, data: bytes | HeldBody, end_stream: bool) -> tuple[int, bytes | HeldBody]:
        """Call the guest with a part of a body. Returns its action, a `DataAction`, and the data after its changes.

        Source: ``decodeData`` in ``context.cc`` of Envoy. An unknown action becomes NO_BUFFER
        (``convertVmCallResultToFilterDataStatus`` in ``context.cc`` of Envoy's host).
        """
        if not self.created:
            return DataAction.CONTINUE, data
        vm, direction = self.vm, chain.direction
        if vm.failure is not None:
            return self.failed(direction, NO_BUFFER), data
        bit = 1 << direction
        buffered = self._buffering & bit
        shown = data
        if buffered:
            held = chain.take_growing(data)
            if direction == RESPONSE and len(held) > self.stream.buffer_limit:
                self.stream._over_limit(chain)
                return NO_BUFFER, bytes(held)
            shown = held
        self.buffers[direction] = shown
        action = 0
        callback = vm.callbacks.get(ON_BODY[direction])
        if callback is not None:
            self._in_body = chain if end_stream else None
            action = vm.enter(self, callback, self.id, len(shown), int(end_stream))
            self._in_body = None
            if vm.failure is not None:
                return self.failed(direction, NO_BUFFER), bytes(shown)
            self.returned(direction, BODY, action)
            action = min(action, NO_BUFFER)
        left = self.buffers[direction] or b""
        if buffered:
            chain.buffer, data = left, b""
        else:
            data = left
        self._buffering = self._buffering | bit if action == BUFFER else self._buffering & ~bit
        if not action:
            self.buffers[direction] = None
        elif action != BUFFER and isinstance(data, HeldBody):
            self.buffers[direction] = bytes(data)  # a copy, so that changes in a later callback have no effect
        return action, data

    def on_whole_body(self, direction: int, data: bytes, end_stream: bool) -> tuple[int, bytes]:
        """Call the guest with a whole body. Returns its action, and the data after its changes."""
        vm = self.vm
        callback = vm.callbacks.get(ON_BODY[direction])
        if not self.created or (callback is None and vm.failure is None):
            return 0, data
        if callback is None or vm.failure is not None:
            return self.failed(direction, NO_BUFFER), data
        self.buffers[direction] = data
        action = vm.enter(self, callback, self.id, len(data), int(end_stream))
        left, self.buffers[direction] = self.buffers[direction], None
        if vm.failure is not None:
            return self.failed(direction, NO_BUFFER), data
        self.returned(direction, BODY, action)
        return action, bytes(left or b"")

    def callout_ended(self) -> None:
        """Count the end of a callout, and resume the stream after its last one."""
        self.callouts -= 1
        if not self.callouts and not self.deleted:
            self._resume(REQUEST)

    def on_trailers(self, direction: int, trailers: HeaderList) -> int:
        """Call the guest with trailers. Returns its action; 0 is CONTINUE, any other one pauses.

        Source: ``convertVmCallResultToFilterTrailersStatus`` in ``context.cc`` of Envoy's host.
        """
        if not self.created:
            return 0
        vm = self.vm
        if vm.failure is not None:
            return self.failed(direction, 1)
        at = TRAILERS_MAP[direction]
        self.maps[at] = trailers
        action = 0
        callback = vm.callbacks.get(ON_TRAILERS[direction])
        if callback is not None:
            action = vm.enter(self, callback, self.id, len(trailers))
            if vm.failure is not None:
                return self.failed(direction, 1)
            self.returned(direction, TRAILERS, action)
        if not action:
            self.maps[at] = None
        return action

    def returned(self, direction: int, part: int, action: int) -> None:
        """Record the result of a callback on a body or on trailers."""
        if direction == RESPONSE:
            self.response_action = part << PART | action
        else:
            self.request_action = part << PART | action

    def failed(self, direction: int, stop: int) -> int:
        """The action for a stream whose VM has failed, which is answered once (``CHECK_FAIL`` in Envoy's host)."""
        if self._spared:
            return 0
        if self.stream.failed:
            return 0 if direction == RESPONSE else stop
        self.stream._fail(self)
        return stop

    def vm_failed(self) -> None:
        """End the stream, or continue it without the filter. Does nothing if the guest has not got the stream yet."""
        if not self.created or self.deleted or self.stream.closed:
            return
        if self._spared:
            self._resume(REQUEST)
            self._resume(RESPONSE)
        elif not self.stream.failed:
            self.stream._fail(self)

    @property
    def _spared(self) -> bool:
        """Whether the stream continues without the filter, whose guest has failed."""
        return self.plugin._bypassed and self.vm.profile.fail_open_spares_stream

    # -- The end -------------------------------------------------------------------------------------------------

    def done(self) -> Refusal | None:
        """``proxy_done``."""
        if not self.pending_done:
            return super().done()
        self.pending_done = False
        self.vm.unfinished_quota.release(self._held)
        self.vm.defer(self.delete)
        return None

    def hold(self) -> None:
        """Wait for ``proxy_done``, unless too many contexts wait: a guest may never call it."""
        stream = self.stream
        size = CONTEXT + stream._stored.used
        for chain in map(stream._chain, (REQUEST, RESPONSE)):
            size += kept_bytes(chain.headers, chain.trailers or [], chain.buffer or b"")
        if not self.vm.unfinished_quota.has(size):
            self.delete()
            return
        self.vm.unfinished_quota.reserve(size)
        self._held = size
        self.pending_done = True

    def drop(self) -> None:
        """End the context without a callback, because the guest has not got the stream."""
        self.deleted = True
        self.vm.contexts.pop(self.id, None)
        del self.stream
        if self.plugin.closed:
            self.plugin._stream_gone()

    # -- Hostcalls -----------------------------------------------------------------------------------------------

    def map_limits(self, map: int) -> tuple[int, int]:
        """Each filter may add as much as one message of a guest can contain. Headers of the client and of other filters
        do not count, so these cannot use up a filter's share."""
        direction = int(map >= MapType.RESPONSE_HEADERS)
        chain, place = self.stream._chain(direction), self.stream._place(self, direction)
        if map == TRAILERS_MAP[direction]:
            return chain.trailer_count + place * MAX_ENTRIES, chain.trailer_size + place * MAX_SIZE
        return chain.header_count + place * MAX_ENTRIES, chain.header_size + place * MAX_SIZE

    def add_trailers(self, map: int) -> HeaderList | None:
        """Trailers to which a filter may add in its last callback on a body; ``None`` elsewhere.

        Source: ``addDecodedTrailers`` and ``addEncodedTrailers`` in ``context.cc``.
        """
        chain = self._in_body
        if chain is None or map != TRAILERS_MAP[chain.direction]:
            return None
        if chain.trailers is None:
            chain.trailers = []
        self.maps[map] = chain.trailers
        return chain.trailers

    def past_headers(self, map: int) -> HeaderList | None:
        """A header map that was passed on, for profiles in which it can still be read."""
        return self.stream._chain(HEADERS_MAP.index(map)).headers or None if map in HEADERS_MAP else None

    def writable_size(self, buffer: int) -> int:
        """For a body: the received bytes, and 16 limits for this filter and for each one before it."""
        if buffer > RESPONSE:
            return 0
        stream = self.stream
        share = BACKPRESSURE_LIMITS * max(stream.buffer_limit, BUFFER_LIMIT)
        return stream._chain(buffer).received + stream._place(self, buffer) * share

    def send_local_response(
        self, status: int, details: bytes, body: bytes, headers: HeaderList, grpc_status: int | None
    ) -> None:
        """``proxy_send_local_response``."""
        self.vm.reserve_effect(kept_bytes(details, body, headers))
        if self.vm.profile.misuse_fails:
            self._check_local_response()
        if self.vm.running:
            self.vm.stop_iteration = True
        text = details.translate(WHITE_SPACE).decode("utf-8", "replace")
        self.vm.defer(self.stream._local_response, status, headers, body, text, grpc_status)

    def _check_local_response(self) -> None:
        """Raises: RestrictedCall, if the response was sent, or another local response waits (as ngx_wasm_module)."""
        stream = self.stream
        if self.read_only or stream._chain(RESPONSE).headers_sent:
            raise RestrictedCall("response already sent")
        if self.vm.stop_iteration or stream.local is not None:
            raise RestrictedCall("local response already stashed")

    def continue_stream(self, stream: int) -> Refusal | None:
        """``proxy_continue_stream``. The headers can no longer be accessed (``continueStream`` in ``context.cc``)."""
        if stream not in DIRECTIONS:
            return super().continue_stream(stream)
        vm = self.vm
        vm.reserve_effect()
        self.maps[HEADERS_MAP[stream]] = None
        vm.defer(self._resume, stream)
        return None

    def _resume(self, direction: int) -> None:
        self._buffering &= ~(1 << direction)
        self.stream._resume(self, direction)

    def close_stream(self, stream: int) -> Refusal | None:
        """``proxy_close_stream`` (``closeStream`` in ``context.cc``)."""
        if stream in DIRECTIONS:
            self.vm.reserve_effect()
            self.vm.defer(self.stream._reset, "wasm_close_stream")
        return None

    def clear_route_cache(self) -> None:
        """``clear_route_cache``, of Envoy."""
        if self.keeps_route:
            return
        self.vm.reserve_effect()
        self.stream._emit(effects.ClearRouteCache(self.stream))

    def inject_response_body(self, data: bytes, end_stream: bool) -> Refusal | None:
        """``proxy_inject_encoded_data_to_filter_chain``, of Higress."""
        if not self.stream._response_started:
            return Refusal(Status.BAD_ARGUMENT, "the response has not begun")
        self.vm.reserve_effect(kept_bytes(data))
        self.vm.defer(self.stream._inject, self, data, end_stream)
        return None

    def override_upstream_host(self, address: bytes) -> Refusal | None:
        """``proxy_set_upstream_override_host``, of Higress."""
        self.vm.reserve_effect(kept_bytes(address))
        self.stream._emit(effects.OverrideUpstreamHost(address.decode("utf-8", "replace"), self.stream))
        return None

    def get_property(self, path: Sequence[str]) -> PropertyValue:
        """``proxy_get_property``. Raises: LookupError."""
        stream = self.stream
        if stream._namespaces and path[0].partition(".")[0] in stream._namespaces:
            return stream._own_property(".".join(path))
        return stream_property(self, path)

    def set_filter_state(self, name: str, value: bytes) -> Refusal | None:
        """The foreign function ``set_envoy_filter_state``."""
        self.stream._stored.put(self.stream.filter_state, name, value, self)
        return None

    def set_property(self, name: str, value: bytes) -> Refusal | None:
        """Store a property. Plugins of Higress control the host with certain properties."""
        stream = self.stream
        if stream._namespaces and re.split(r"[.\0]", name, maxsplit=1)[0] in stream._namespaces:
            return stream._set_own(name.strip("\0").replace("\0", "."), value)
        if name in self.root.set_once and name in stream.filter_state:
            return Refusal(Status.BAD_ARGUMENT, READ_ONLY, name)
        if self.vm.version < V0_2_100:
            stream._stored.put(stream.filter_state, name, value, self)
            return None
        if name.startswith(SPAN_TAG):
            stream._stored.put(stream.span_tags, name.removeprefix(SPAN_TAG), value, self)
            return None
        stream._stored.put(stream.filter_state, name, value, self)
        if name == "clear_route_cache":
            self.keeps_route = value == b"off"
        elif name in BUFFER_LIMITS and value.isdigit() and int(value) <= MAX_BUFFER_LIMIT:
            memory = self.vm.config.limits.memory
            stream.buffer_limit = int(value) if memory is None else min(int(value), memory)
        return None
