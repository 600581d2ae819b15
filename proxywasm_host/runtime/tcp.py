"""A TCP stream: the data of one connection passes through a chain of plugins.

    downstream → downstream_data   → DownstreamData → upstream
    upstream   → upstream_data     → UpstreamData   → downstream

Upstream's data passes the plugins in reverse order. A filter that returns PAUSE holds its data: its next callback gets
the held and the new data together, until the filter lets them pass. The carrier should not read while more than the
limit is held (`downstream_full`, `upstream_full`); at 16 times the limit the connection is closed.

Source: Envoy's network filter manager and ``context.cc``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from proxywasm_host.abi.context import READ_ONLY, Context
from proxywasm_host.abi.marshal import Refusal
from proxywasm_host.abi.types import BufferType, PeerType, Status, StreamType
from proxywasm_host.abi.values import PropertyValue
from proxywasm_host.runtime import effects
from proxywasm_host.runtime.arguments import as_body
from proxywasm_host.runtime.effects import Effect
from proxywasm_host.runtime.failure import Failure
from proxywasm_host.runtime.fast_path import BUFFER_LIMIT
from proxywasm_host.runtime.filter_chain import BACKPRESSURE_LIMITS
from proxywasm_host.runtime.properties import Stored, lookup

if TYPE_CHECKING:
    from proxywasm_host.runtime.host import Host
    from proxywasm_host.runtime.plugin import Plugin

__all__ = ["TcpStream"]

ON_DATA = {
    BufferType.DOWNSTREAM_DATA: "on_downstream_data",
    BufferType.UPSTREAM_DATA: "on_upstream_data",
}
DIRECTIONS = tuple(ON_DATA)


@dataclass(frozen=True, slots=True)
class ConnectionFilter:
    """One filter of a connection, in its state when `TcpStream.filters` was read."""

    plugin: Plugin
    context_id: int
    """The id of the connection in its guest."""
    downstream: bytes | None
    """The data from downstream that it holds, or ``None``."""
    upstream: bytes | None
    """The data from upstream that it holds, or ``None``."""


class TcpContext(Context):
    """One filter on one connection."""

    def __init__(self, stream: TcpStream, plugin: Plugin) -> None:
        super().__init__(plugin._vm.new_context_id(), plugin._root)
        self.stream = stream
        self.plugin = plugin
        self.vm = plugin._vm
        self.created = False
        self.closed = False
        self.held: dict[BufferType, tuple[bytes, bool] | None] = dict.fromkeys(DIRECTIONS)
        """Data that the filter holds in each direction, and whether the end follows."""
        self.vm.contexts[self.id] = self

    @property
    def name(self) -> str:
        return self.plugin.name

    def on_new_connection(self) -> bool:
        """Call on_context_create and on_new_connection. Returns whether the connection passes to the next filter."""
        self.created = True
        self.vm.call(self, "on_context_create", self.id, self.root.id)
        return self._passes(self.vm.call(self, "on_new_connection", self.id))

    def on_data(self, direction: BufferType, data: bytes, end_stream: bool) -> bytes | None:
        """Call the guest with data. Returns the data for the next filter, or ``None`` if this one holds it."""
        if not self.created:
            return data
        self.buffers[direction] = data
        passes = self._passes(self.vm.call(self, ON_DATA[direction], self.id, len(data), int(end_stream)))
        data = bytes(self.buffers[direction] or b"")
        if passes:
            self.held[direction] = self.buffers[direction] = None
            return data
        self.held[direction] = data, end_stream
        return None

    def _passes(self, action: int | None) -> bool:
        """Whether data passes: any action but CONTINUE pauses (``onNetworkNewConnection`` in ``context.cc``)."""
        if self.vm.failure is None:
            return not action
        if self.plugin._bypassed and self.vm.profile.fail_open_spares_stream:
            return True
        self.stream._fail(self.vm.failure)
        return False

    def vm_failed(self) -> None:
        """Close the connection, or pass on the held data without the filter."""
        if self.created and not self.stream.closed and self._passes(None):
            self.stream._resume(self)
            self.stream._release(self, BufferType.UPSTREAM_DATA)

    def close(self, peer: PeerType) -> None:
        """Call on_downstream_connection_close, then on_done, on_log, on_delete (``onCloseTCP`` in ``context.cc``)."""
        if self.created and not self.closed:
            self.closed = True
            self.vm.call(self, "on_downstream_connection_close", self.id, int(peer))
            self.vm.call(self, "on_done", self.id)
            self.read_only = True
            self.vm.call(self, "on_log", self.id)
            self.vm.call(self, "on_delete", self.id)
        self.vm.contexts.pop(self.id, None)
        if self.plugin.closed:
            self.plugin._stream_gone()

    # -- Hostcalls -----------------------------------------------------------------------------------------------

    def writable_size(self, buffer: int) -> int:
        return BACKPRESSURE_LIMITS * max(self.stream.buffer_limit, BUFFER_LIMIT) if buffer in DIRECTIONS else 0

    def continue_stream(self, stream: int) -> Refusal | None:
        if stream == StreamType.DOWNSTREAM:
            self.vm.reserve_effect()
            self.vm.defer(self.stream._resume, self)
        return super().continue_stream(stream)

    def close_stream(self, stream: int) -> Refusal | None:
        if stream in (StreamType.DOWNSTREAM, StreamType.UPSTREAM):
            self.vm.reserve_effect()
            which = "downstream" if stream == StreamType.DOWNSTREAM else "upstream"
            self.vm.defer(self.stream._close_connection, f"wasm_{which}_close")
        return None

    def get_property(self, path: Sequence[str]) -> PropertyValue:
        try:
            return lookup(self.stream.properties, path)
        except LookupError:
            pass
        if path[0] in self.stream.filter_state:
            return self.stream.filter_state[path[0]]
        return self.plugin._get_property(path)

    def set_filter_state(self, name: str, value: bytes) -> Refusal | None:
        self.stream._stored.put(self.stream.filter_state, name, value, self)
        return None

    def set_property(self, name: str, value: bytes) -> Refusal | None:
        if name in self.root.set_once and name in self.stream.filter_state:
            return Refusal(Status.BAD_ARGUMENT, READ_ONLY, name)
        self.stream._stored.put(self.stream.filter_state, name, value, self)
        return None


class TcpStream:
    """One connection. Made by `Host.tcp_stream`."""

    def __init__(
        self, host: Host, plugins: Sequence[Plugin], properties: Mapping[str, PropertyValue], buffer_limit: int
    ) -> None:
        self.host = host
        self.properties = properties
        self.buffer_limit = buffer_limit
        """Bytes that filters may hold in each direction before the carrier should stop reading."""
        self.failure: Failure | None = None
        """The failure of a plugin that closed the connection, if one did."""
        self.closed = False
        self.close_details: str | None = None
        """The reason for which the connection must be closed, if there is one."""
        self.filter_state: dict[str, bytes] = {}
        self._stored = Stored()
        self._contexts = [TcpContext(self, plugin) for plugin in plugins]
        self._connected = False
        self._waiting: TcpContext | None = None
        """The filter that paused the new connection."""

    # -- Events --------------------------------------------------------------------------------------------------

    def new_connection(self) -> list[Effect]:
        """Start the stream, because the downstream peer has connected."""
        self._connected = True
        self._connect(0)
        return self.host.drain()

    def downstream_data(self, data: bytes, end_stream: bool = False) -> list[Effect]:
        """Feed data of the downstream peer; `end_stream`: it will send no more.

        Raises: RuntimeError, before `new_connection`.
        """
        self._pass(BufferType.DOWNSTREAM_DATA, 0, data, end_stream)
        return self.host.drain()

    def upstream_data(self, data: bytes, end_stream: bool = False) -> list[Effect]:
        """Feed data of the upstream peer; `end_stream`: it will send no more. Raises as `downstream_data`."""
        self._pass(BufferType.UPSTREAM_DATA, 0, data, end_stream)
        if end_stream:  # onWrite in context.cc: Envoy has no other event for the end of upstream's connection
            for context in self._contexts:
                if context.created and not context.closed:
                    context.vm.call(context, "on_upstream_connection_close", context.id, int(PeerType.UNKNOWN))
        return self.host.drain()

    def close(self, peer: PeerType = PeerType.REMOTE) -> list[Effect]:
        """End the connection, which `peer` has closed on the downstream side. Closing again does nothing."""
        if not self.closed:
            self.closed = True
            for context in self._contexts:
                context.close(peer)
        return self.host.drain()

    @property
    def filters(self) -> tuple[ConnectionFilter, ...]:
        """The current state of the filters, in the order of downstream's data."""

        def held(context: TcpContext, direction: BufferType) -> bytes | None:
            data = context.held[direction]
            return None if data is None else data[0]

        return tuple(
            ConnectionFilter(each.plugin, each.id, *(held(each, direction) for direction in DIRECTIONS))
            for each in self._contexts
        )

    # -- Through the filters -------------------------------------------------------------------------------------

    def _connect(self, start: int) -> None:
        for context in self._contexts[start:]:
            if not context.on_new_connection():
                self._waiting = context
                return

    def _order(self, direction: BufferType) -> list[TcpContext]:
        return self._contexts if direction == BufferType.DOWNSTREAM_DATA else self._contexts[::-1]

    def _pass(self, direction: BufferType, start: int, data: bytes, end_stream: bool) -> None:
        if data.__class__ is not bytes:
            data = as_body(data)
        if not self._connected:
            raise RuntimeError("call new_connection() first")
        for context in self._order(direction)[start:]:
            if self.closed or self.close_details is not None:
                return
            held = context.held[direction]
            if held:
                data = held[0] + data
            if context is self._waiting:
                context.held[direction] = data, end_stream
                passed = None
            else:
                passed = context.on_data(direction, data, end_stream)
            if passed is None:
                if self._held(direction) > BACKPRESSURE_LIMITS * self.buffer_limit:
                    self._close_connection("wasm_buffer_overflow")
                return
            data = passed
        kind = effects.DownstreamData if direction == BufferType.DOWNSTREAM_DATA else effects.UpstreamData
        self.host._emit(kind(data, end_stream, self))

    def _held(self, direction: BufferType) -> int:
        return sum(len(held[0]) for context in self._contexts if (held := context.held[direction]))

    @property
    def established(self) -> bool:
        """Whether all filters have let the new connection pass, so that the carrier should connect to upstream.

        If a filter does so after a pause, the stream emits a `DownstreamData`, which may be empty.
        """
        return self._connected and self._waiting is None

    @property
    def downstream_full(self) -> bool:
        """Whether filters hold more from downstream than the limit; if so, do not read from there."""
        return self._held(BufferType.DOWNSTREAM_DATA) > self.buffer_limit

    @property
    def upstream_full(self) -> bool:
        """Whether filters hold more from upstream than the limit; if so, do not read from there."""
        return self._held(BufferType.UPSTREAM_DATA) > self.buffer_limit

    # -- What filters do -----------------------------------------------------------------------------------------

    def _resume(self, context: TcpContext) -> None:
        """Resume a filter that holds data from downstream."""
        index = self._contexts.index(context)
        if self._waiting is context:
            self._waiting = None
            self._connect(index + 1)
            came = context.held[BufferType.DOWNSTREAM_DATA] is not None
            for direction in DIRECTIONS:  # the filter itself gets the data that has arrived meanwhile
                held, context.held[direction] = context.held[direction], None
                if held is not None:
                    self._pass(direction, self._order(direction).index(context), *held)
            holds = any(each.held[BufferType.DOWNSTREAM_DATA] is not None for each in self._contexts[index:])
            if self.established and not self.closed and (holds or not came):
                self.host._emit(effects.DownstreamData(b"", False, self))  # the connection continues
            return
        self._release(context, BufferType.DOWNSTREAM_DATA)

    def _release(self, context: TcpContext, direction: BufferType) -> None:
        """Pass the data that a filter holds in one direction to the filters after it."""
        held, context.held[direction] = context.held[direction], None
        if held is not None:
            self._pass(direction, self._order(direction).index(context) + 1, *held)

    def _fail(self, failure: Failure) -> None:
        """Close the connection, because a plugin's guest has failed (``failStream`` in ``context.cc``)."""
        self.failure = self.failure or failure
        self._close_connection("wasm_fail_stream")

    def _close_connection(self, details: str) -> None:
        """Emit the effect that closes the connection, once."""
        if not self.closed and self.close_details is None:
            self.close_details = details
            self.host._emit(effects.CloseConnection(details, self))

    def __repr__(self) -> str:
        state = "closed" if self.closed else "closing" if self.close_details else "open"
        names = ", ".join(repr(context.plugin.name) for context in self._contexts) or "no filter"
        return f"<TcpStream {state}, through {names}>"
