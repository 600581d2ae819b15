"""The common path of a request: headers pass a chain of filters, contexts begin and end.

These are the hot parts of `Host`, `Plugin`, `HttpStream`, `FilterChain` and `HttpContext`, which add the rare cases.
With the C extension (``native/``), its types replace these and behave the same.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar, Final, cast

from proxywasm_host.abi.context import Context, ContextState
from proxywasm_host.abi.native import NATIVE, check_constants
from proxywasm_host.abi.pairs import HeaderList
from proxywasm_host.abi.types import HeadersAction, MapType
from proxywasm_host.abi.values import check_properties
from proxywasm_host.runtime import effects
from proxywasm_host.runtime.header_limits import HeaderLimits
from proxywasm_host.runtime.outbox import Outbox

if TYPE_CHECKING:
    from proxywasm_host.abi.held_body import HeldBody
    from proxywasm_host.abi.values import PropertyValue
    from proxywasm_host.runtime.effects import Effect
    from proxywasm_host.runtime.filter_chain import FilterChain
    from proxywasm_host.runtime.host import Host
    from proxywasm_host.runtime.http import HttpStream, LocalResponse
    from proxywasm_host.runtime.http_context import HttpContext
    from proxywasm_host.runtime.plugin import Plugin
    from proxywasm_host.runtime.vm import Vm
    from proxywasm_host.services import Services

__all__ = [
    "BUFFER_LIMIT",
    "HEADERS_MAP",
    "HEADER_LIMITS",
    "REQUEST",
    "RESPONSE",
    "STOP_ALL",
    "WORDS",
    "FilterChainBase",
    "HostBase",
    "HttpContextBase",
    "HttpStreamBase",
    "PluginBase",
]

REQUEST, RESPONSE = range(2)
STOP_ALL: Final = int(HeadersAction.STOP_ALL_ITERATION_AND_WATERMARK)
HEADERS_MAP: Final = (int(MapType.REQUEST_HEADERS), int(MapType.RESPONSE_HEADERS))
WORDS: Final = ("request", "response")
BUFFER_LIMIT: Final = 1024 * 1024
"""Most bytes of a body that filters may hold (Envoy's default of ``per_connection_buffer_limit_bytes``)."""
HEADER_LIMITS: Final = HeaderLimits()
check_constants(REQUEST=REQUEST, RESPONSE=RESPONSE, STOP_ALL=STOP_ALL, BUFFER_LIMIT=BUFFER_LIMIT)
NOTHING: Final[Mapping[str, Any]] = MappingProxyType({})
ON_HEADERS: Final = ("on_request_headers", "on_response_headers")


class HttpContextBase(ContextState):
    """A stream context. `HttpContext` adds `headers_action`, `failed` and `hold`."""

    request_action = -1
    """Result of the filter's last callback for the request, for `FilterSide`; -1 before the first."""
    response_action = -1
    created = False
    deleted = False
    pending_done = False
    """Whether on_done returned false and the context waits for ``proxy_done``."""

    def __init__(self, stream: HttpStream, plugin: Plugin) -> None:
        vm = plugin._vm
        super().__init__(vm.new_context_id(), plugin._root)
        self.stream: HttpStream = stream
        self.plugin = plugin
        self.vm: Vm = vm
        vm.contexts[self.id] = self  # type: ignore[assignment]

    def create(self) -> None:
        """Call on_context_create, once."""
        if not self.created:
            self.created = True
            try:
                self.vm.call(self, "on_context_create", self.id, self.root.id)
            except RuntimeError:  # the guest is busy, so it has not got this context
                self.created = False
                raise

    def on_headers(self, direction: int, headers: HeaderList, end_stream: bool, /) -> int:
        """Call the guest with headers. Returns its action, a `HeadersAction`; 0 is CONTINUE."""
        if not self.created:
            if direction == RESPONSE:
                return 0
            self.create()
        vm = self.vm
        if vm.failure is not None:
            return self.failed(direction, STOP_ALL)
        at = HEADERS_MAP[direction]
        self.maps[at] = headers
        callback = vm.callbacks.get(ON_HEADERS[direction])
        action = 0
        if callback is not None:
            if vm.tells_end:
                action = vm.enter(self, callback, self.id, len(headers), int(end_stream))
            else:
                action = vm.enter(self, callback, self.id, len(headers))
            if vm.failure is not None:
                return self.failed(direction, STOP_ALL)
            if direction:
                self.response_action = action
            else:
                self.request_action = action
            if action:
                action = self.headers_action(action)
        if not action:
            self.maps[at] = None
        return action

    def log(self) -> None:
        """Call on_log, in which everything can be read, but nothing changed."""
        self.create()
        self.buffers[:2] = None, None
        self.maps = maps_for_log(self.stream)
        self.read_only = True
        try:
            self.vm.call(self, "on_log", self.id)
        finally:
            self.read_only = False
            self.maps = [None, None, None, None]

    def finish(self) -> None:
        """Call on_done and on_delete, with on_log between them unless the profile has `log_before_done`."""
        if self.deleted:
            return
        vm = self.vm
        if vm.call(self, "on_done", self.id) == 0 and vm.await_done and vm.failure is None:
            self.hold()
        else:
            self.delete()

    def delete(self) -> None:
        """Call on_delete, after on_log unless the profile has `log_before_done`. The context ends."""
        vm = self.vm
        if not vm.log_before_done:
            self.log()
        self.deleted = True
        vm.call(self, "on_delete", self.id)
        vm.contexts.pop(self.id, None)
        del self.stream
        if self.plugin.closed:
            self.plugin._stream_gone()

    def headers_action(self, action: int, /) -> int:
        """Convert an action other than CONTINUE to the one that the profile has for it."""
        raise NotImplementedError

    def failed(self, direction: int, stop: int, /) -> int:
        """The action for a stream whose VM has failed."""
        raise NotImplementedError

    def hold(self) -> None:
        """Wait for ``proxy_done``, because on_done returned false."""
        raise NotImplementedError


class FilterChainBase:
    """One direction of a stream through its filters. `FilterChain` adds `stop` and `pass_data`."""

    headers: HeaderList = []  # noqa: RUF012 - never changed, only replaced
    started = False
    """Whether headers have arrived."""
    passed = 0
    """Number of filters that the headers have passed."""
    headers_sent = False
    """Whether headers were sent."""
    stopped: Mapping[int, Any] = MappingProxyType({})
    """The states other than CONTINUE, by the filter's place in the chain."""
    buffer: bytes | HeldBody | None = None
    holder: HttpContext | None = None
    """The filter that holds the buffer and may still read and change it."""
    streaming = False
    """Whether the filter that holds the body requested back-pressure instead of a limit."""
    trailers: HeaderList | None = None
    received = 0
    """Bytes of the body that have arrived."""
    header_count = header_size = 0
    """Number of headers that arrived, including pseudo headers, and their bytes."""
    ended = False
    """Whether the end of the message has arrived."""
    complete = False
    """Whether the end of the message was sent."""
    aborted = False
    calling = -1
    """The place in the chain of the filter whose callback runs; -1 if none runs."""
    resume_asked = 0
    """A bit for each filter that resumed within its callback on headers or trailers, which counts if that pauses."""

    def __init__(self, stream: HttpStream, direction: int, filters: list[HttpContext]) -> None:
        self.stream = stream
        self.direction = direction
        self.filters = filters
        self._given_end = bytearray(len(filters))

    def give_end(self, index: int, /) -> None:
        """Record that the filter at this place in the chain gets the end of the message."""
        self._given_end[index] = 1

    def was_given_end(self, index: int, /) -> bool:
        """Whether the filter at this place in the chain has got the end of the message."""
        return bool(self._given_end[index])

    def on_headers(self, headers: HeaderList, end_stream: bool, /) -> None:
        """Handle the received headers."""
        self.headers = headers
        self.started = True
        self.ended = end_stream
        self.pass_headers(0, end_stream)

    def pass_headers(self, start: int, end_stream: bool, /) -> None:
        """Pass the headers through the filters from `start` on, and send them unless a filter stops them."""
        filters = self.filters
        for index in range(start, len(filters)):
            if end_stream:
                self.give_end(index)
            self.calling = index
            action = filters[index].on_headers(self.direction, self.headers, end_stream)
            self.calling = -1
            if self.aborted:
                self.stream._send_prepared()
                return
            if action:
                self.stop(index, action)
                return
            if self.passed > index:
                return  # the filter has injected data, before which its headers were passed on
            self.passed = index + 1
        self._out_headers(end_stream)

    def stop(self, index: int, action: int, /) -> None:
        """Hold the headers at a filter."""
        raise NotImplementedError

    def on_data(self, data: bytes, end_stream: bool, /) -> None:
        """Handle a received part of the body."""
        self.received += len(data)
        self.ended = end_stream
        self.resume_asked = 0
        self.pass_data(0, data, end_stream)

    def pass_data(self, start: int, data: bytes | HeldBody, end_stream: bool, /) -> None:
        """Pass a part of the body through the filters from `start` on, and send it unless a filter stops it."""
        raise NotImplementedError

    def out_data(self, data: bytes, end_stream: bool, /) -> None:
        """Send a part of the body, which has passed all filters."""
        if not self.complete and (data or end_stream):
            self.complete = end_stream
            self.stream.host._emit(effects.body_out(self.direction, data, end_stream, self.stream))

    def _out_headers(self, end_stream: bool) -> None:
        """Send the headers, which have passed all filters."""
        stream = self.stream
        headers = stream._for_wire(self.direction, self.headers)
        if headers is not None:
            self.complete = end_stream
            self.headers_sent = True
            stream.host._emit(effects.headers_out(self.direction, headers, end_stream, stream))


class HttpStreamBase:
    """One request and its response. `HttpStream` adds the other methods."""

    _context_type: ClassVar[type[HttpContext]]
    _chain_type: ClassVar[type[FilterChain]]
    local: LocalResponse | None = None
    """The local response, if there was one."""
    details: str | None = None
    """Envoy's response code details: the origin of the response or of the stream's end, and the reason."""
    closed = False
    """Whether `close` was called."""

    def __init__(
        self,
        host: Host,
        plugins: Sequence[Plugin],
        properties: Mapping[str, PropertyValue],
        buffer_limit: int,
        header_limits: HeaderLimits | None,
    ) -> None:
        self._host = host
        self.properties = properties
        """The embedder's properties, by dotted name."""
        limit: Any = buffer_limit
        if not isinstance(limit, int) or limit < 0:
            raise TypeError(f"buffer_limit is a number of bytes, 0 or more, such as 1 << 20, not {limit!r}")
        self.buffer_limit = buffer_limit
        """Most bytes of a body that filters may hold, in each direction."""
        if header_limits is not None and header_limits.__class__ is not HeaderLimits:
            raise TypeError(f"header_limits are HeaderLimits or None, not {header_limits!r}")
        self._header_limits = header_limits
        self._started_ns: int = host.services.clock.time_ns()
        this = cast("HttpStream", self)
        self._contexts = contexts = [self._context_type(this, plugin) for plugin in plugins]
        self._request = self._chain_type(this, REQUEST, contexts)
        self._response = self._chain_type(this, RESPONSE, contexts[::-1])

    @property
    def host(self) -> Host:
        """The host that made it."""
        return self._host

    @property
    def header_limits(self) -> HeaderLimits | None:
        """Limits on the number and the bytes of received headers; ``None`` for no limit."""
        return self._header_limits

    @property
    def changes_bodies(self) -> bool:
        """Whether a filter can change a body, and so make ``content-length`` wrong."""
        return any(context.vm.changes_bodies for context in self._contexts)

    @property
    def request_full(self) -> bool:
        """Whether filters hold more of the request's body than the limit; if so, do not read from the client."""
        return self._request.full

    @property
    def response_full(self) -> bool:
        """Whether filters hold more of the response's body than the limit; if so, do not read from upstream."""
        return self._response.full

    def request_headers(self, headers: HeaderList, end_stream: bool = False, *, owned: bool = False) -> list[Effect]:
        """Feed the client's headers: ``:method``, ``:path``, ``:authority``, ``:scheme`` first, names in lower case.

        `end_stream`: nothing follows. `owned`: the stream uses the list without a copy, and filters change it.

        Raises: RuntimeError, if the stream has headers already or is closed; TypeError or ValueError, for wrong ones.
        """
        if self.closed:
            raise RuntimeError("the stream is closed")
        return self._feed_headers(self._request, headers, end_stream, owned)

    def response_headers(self, headers: HeaderList, end_stream: bool = False, *, owned: bool = False) -> list[Effect]:
        """Feed upstream's headers, ``:status`` first. Ignored after a local response. Raises as `request_headers`."""
        response = self._response
        if self.local is not None or response.aborted:
            return self.host.drain()
        if not self._request.started:
            raise RuntimeError("the request's headers must be given first")
        if not response.started:
            self.details = "via_upstream"
        return self._feed_headers(response, headers, end_stream, owned)

    def _feed_headers(self, chain: FilterChain, headers: HeaderList, end_stream: bool, owned: bool) -> list[Effect]:
        if chain.started:
            raise RuntimeError(f"the {WORDS[chain.direction]}'s headers were given before")
        if not chain.aborted:
            checked = cast("HttpStream", self)._checked(headers, HEADERS_MAP[chain.direction], owned)
            if checked is not None:
                chain.on_headers(checked, end_stream)
        return self.host.drain()

    def request_body(self, data: bytes, end_stream: bool = False) -> list[Effect]:
        """Feed a part of the client's body. Raises: RuntimeError, before the headers or after the end; TypeError."""
        return self._feed_body(self._request, data, end_stream)

    def response_body(self, data: bytes, end_stream: bool = False) -> list[Effect]:
        """Feed a part of upstream's body. Ignored after a local response. Raises as `request_body`."""
        return self.host.drain() if self.local else self._feed_body(self._response, data, end_stream)

    def _feed_body(self, chain: FilterChain, data: bytes, end_stream: bool, /) -> list[Effect]:
        """Feed a part of the body of one direction. `data` may be anything. Raises as `request_body`."""
        raise NotImplementedError

    def close(self, details: str = "") -> list[Effect]:
        """End the stream, after both sides have finished: on_log, on_done, on_delete. Closing again does nothing.

        `details` are the reason for an early end; Envoy's for a client that disconnected are
        ``downstream_remote_disconnect``.
        """
        if not self.closed:
            self.closed = True
            self.details = details or self.details
            self._request.aborted = self._response.aborted = True
            end(self._contexts)
            # Without these references, the stream is in no cycle: it is freed at once, not by the garbage collector.
            del self._request.stream, self._response.stream
        return self.host.drain()


def maps_for_log(stream: HttpStream) -> list[HeaderList | None]:
    """The header maps that on_log can read, by `MapType`."""
    request, response = stream._request, stream._response
    return [request.headers or None, None, response.headers or None, response.trailers]


def end(contexts: Sequence[HttpContext]) -> None:
    """End a stream's contexts: on_log, on_done, on_delete, in the order of each filter's profile.

    Envoy logs a stream before it destroys its filters; the specification has on_done first (`log_before_done`).
    """
    for context in contexts:
        if context.vm.log_before_done:
            context.log()
    for context in contexts:
        context.finish()


class PluginBase:
    """The part of a plugin that streams use."""

    host: Host
    """The host that loaded it."""
    _vm: Vm
    _root: Context
    closed = False
    """Whether `close` was called."""


class HostBase:
    """The part of a host that streams use."""

    _stream_type: type[HttpStream]

    def __init__(self, services: Services) -> None:
        self.services = services
        """The services that hostcalls use."""
        self._own_outbox = Outbox()

    @property
    def _outbox(self) -> Outbox:
        """The effects of all streams and plugins."""
        return self._own_outbox

    def http_stream(
        self,
        plugins: Sequence[Plugin],
        *,
        properties: Mapping[str, PropertyValue] | None = None,
        buffer_limit: int = BUFFER_LIMIT,
        header_limits: HeaderLimits | None = HEADER_LIMITS,
        router: bool = True,
    ) -> HttpStream:
        """Make an HTTP stream through these plugins, in the order of the request.

        `properties` are those of this stream, by dotted name (``"source.address"``). `buffer_limit` is the number of
        bytes of a body that filters may hold. Beyond `header_limits`, a request is answered with 431, a response is
        replaced by a 502; ``None`` means no limit. `router`: if filters leave headers without ``:path``, ``:method``
        or ``:status``, answer as Envoy's router does (404, 503, 502); without it, the headers are sent as they are.

        Raises: TypeError or ValueError, for plugins of another host, and for properties that no filter could read.
        """
        if properties is not None:
            check_properties(properties)
        stream = self._stream_type(
            cast("Host", self),
            self._ready(plugins),
            NOTHING if properties is None else properties,
            buffer_limit,
            header_limits,
        )
        if not router:
            stream._router = False
        return stream

    def _ready(self, plugins: Sequence[Plugin], /) -> list[Plugin]:
        """The plugins that a new stream passes. Raises: RuntimeError, if one was closed."""
        raise NotImplementedError

    def _emit(self, effect: Effect) -> None:
        """Add an effect; the current event, or the next one, returns it."""
        self._outbox.put(effect)

    def drain(self) -> list[Effect]:
        """Remove and return all effects, in order."""
        return self._outbox.drain()


PythonHttpContextBase, PythonFilterChainBase, PythonHttpStreamBase = HttpContextBase, FilterChainBase, HttpStreamBase
PythonPluginBase, PythonHostBase = PluginBase, HostBase
if not TYPE_CHECKING and NATIVE is not None:
    NATIVE.use(
        request_headers=effects.RequestHeaders,
        response_headers=effects.ResponseHeaders,
        request_body=effects.RequestBody,
        response_body=effects.ResponseBody,
        check_properties=check_properties,
        header_limits=HEADER_LIMITS,
    )
    HttpContextBase, FilterChainBase, HttpStreamBase = (
        NATIVE.HttpContextBase,
        NATIVE.FilterChainBase,
        NATIVE.HttpStreamBase,
    )
    PluginBase, HostBase = NATIVE.PluginBase, NATIVE.HostBase
