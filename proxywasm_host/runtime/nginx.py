"""An HTTP stream with the phases of ngx_wasm_module: the profile's flag ``nginx_phases``.

Rules, from that module's documentation and tests, where they differ from Envoy's:

* The response passes the filters in the order of the request.
* ``end_of_stream`` is always false in callbacks on headers.
* Filters get the whole body of the request at once, after all of them have got the headers and before the request is
  sent upstream; until then its headers can be changed. An empty body has no callback.
* PAUSE from any callback holds the request: the next filter is called after the request is resumed.
* The headers of a response cannot be held. After PAUSE on a part of its body, the filter gets the whole body at once,
  if that fits into the stream's buffer. This works once in each response.
* All filters get a local response, even those that the request has not reached.
* If a guest fails on a request, the client gets 500; if it fails on a response, the response continues without it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from proxywasm_host.abi.held_body import HeldBody
from proxywasm_host.abi.pairs import HeaderList
from proxywasm_host.abi.types import LogLevel
from proxywasm_host.abi.values import PropertyValue
from proxywasm_host.runtime import effects
from proxywasm_host.runtime.failure import Failure, PluginError
from proxywasm_host.runtime.fast_path import HEADERS_MAP, PythonFilterChainBase, PythonHttpStreamBase
from proxywasm_host.runtime.filter_chain import REQUEST, RESPONSE, FilterChain
from proxywasm_host.runtime.header_limits import HeaderLimits
from proxywasm_host.runtime.http import HttpStream
from proxywasm_host.runtime.http_context import HttpContext
from proxywasm_host.runtime.isolation import StreamVms
from proxywasm_host.services import GuestLog

if TYPE_CHECKING:
    from proxywasm_host.runtime.host import Host
    from proxywasm_host.runtime.plugin import Plugin

__all__ = ["NginxStream"]

WITHOUT_BODY = (b"204", b"304")
TAKEN_FOR_CONTINUE = "{} returned PAUSE, which counts as CONTINUE: {}"


def warn(context: HttpContext, callback: str, why: str) -> None:
    """Log a warning for a filter whose PAUSE held nothing."""
    line = GuestLog(context.name, LogLevel.WARN, TAKEN_FOR_CONTINUE.format(callback, why), context.id)
    context.vm.services.log.log(line)


class RequestChain(FilterChain):
    """The request: headers through all filters, then its body through all filters, then upstream."""

    stream: NginxStream

    _out_headers = PythonFilterChainBase._out_headers
    _steps = 0
    """Number of callbacks that have begun: those on headers, then those on the body."""

    def on_headers(self, headers: HeaderList, end_stream: bool) -> None:
        """Handle the received headers."""
        self.headers, self.started, self.ended = headers, True, end_stream
        if self.stream._refused is not None:
            self.stream._failed_by(self.stream._refused)
        else:
            self._go_on()

    def on_data(self, data: bytes, end_stream: bool) -> None:
        """Handle a received part of the body."""
        self.received += len(data)
        self.ended = end_stream
        if self.headers_sent:
            self.out_data(data, end_stream)
            return
        held = self.take_growing()
        held.append(data)
        self.buffer = held
        if self._is_read and len(held) > self.stream.buffer_limit:
            self.stream._over_limit(self)
        else:
            self._go_on()

    def on_trailers(self, trailers: HeaderList) -> None:
        """Handle the received trailers, which filters do not get."""
        self.trailers, self.ended = trailers, True
        if self.headers_sent:
            self._out_trailers()
        else:
            self._go_on()

    def resume(self, context: HttpContext) -> None:
        """Resume a paused filter, unless it has callouts under way."""
        index = self.filters.index(context)
        if context.callouts:
            return
        if index == self.calling:
            self.resume_asked |= 1 << index
        elif index in self.stopped:
            self.stopped = {}
            self._go_on()

    @property
    def _is_read(self) -> bool:
        """Whether a filter gets the body."""
        return any("on_request_body" in context.vm.callbacks for context in self.filters)

    def _go_on(self) -> None:
        filters = self.filters
        while not (self.aborted or self.stopped or self.headers_sent or self.calling >= 0):
            if self._steps < len(filters):
                self._step(self._steps, None)
            elif self._is_read and not self.ended:
                return
            elif self.buffer and self._steps < 2 * len(filters) and self._is_read:
                self._step(self._steps - len(filters), bytes(self.buffer))
            else:
                self._out()

    def _step(self, index: int, body: bytes | None) -> None:
        """Call one filter, for the headers or for the body."""
        context = self.filters[index]
        self._steps += 1
        self.calling = index
        if body is None:
            action = context.on_headers(REQUEST, self.headers, False)
        else:
            context.maps[HEADERS_MAP[REQUEST]] = self.headers
            action, left = context.on_whole_body(REQUEST, body, True)
            self.buffer = HeldBody(left)
        self.calling = -1
        context.maps[HEADERS_MAP[REQUEST]] = self.headers  # until the request is sent upstream
        if self.aborted:
            self.stream._send_prepared()
        elif action and not self.resume_asked >> index & 1:
            self.stopped = {index: None}
        self.resume_asked &= ~(1 << index)

    def _out(self) -> None:
        for context in self.filters:
            context.maps[HEADERS_MAP[REQUEST]] = None
        body = bytes(self.take_buffer())
        end = self.ended and self.trailers is None
        self.headers = list(self.headers)  # later changes by filters have no effect
        self._out_headers(end and not body)
        if self.headers_sent and not self.aborted:
            if body:
                self.out_data(body, end)
            if self.trailers is not None:
                self._out_trailers()


class ResponseChain(FilterChain):
    """The response, which no filter can hold."""

    stream: NginxStream

    _out_headers = PythonFilterChainBase._out_headers
    _whole = -1
    """The place of the filter that gets the whole body at once; -1 for none."""
    _has_paused = False

    def on_headers(self, headers: HeaderList, end_stream: bool) -> None:
        """Handle the received headers."""
        self.headers, self.started, self.ended = headers, True, end_stream
        for index, context in enumerate(self.filters):
            if context.vm.failure is None:
                context.create()
            self.calling = index
            action = context.on_headers(RESPONSE, headers, False)
            self.calling = -1
            if self.aborted:
                return
            context.maps[HEADERS_MAP[RESPONSE]] = None
            if action and context.vm.failure is None:
                warn(context, "proxy_on_response_headers", "the headers of a response cannot be held")
        data = None
        if end_stream and headers[:1] and headers[0][1] not in WITHOUT_BODY and not self.stream._is_head:
            data = self._filtered(b"", True)
            if self.aborted:
                return
        self._out_headers(end_stream and not data)
        if data:
            self.out_data(data, True)

    def on_data(self, data: bytes, end_stream: bool) -> None:
        """Handle a received part of the body."""
        self.received += len(data)
        self.ended = end_stream
        left = self._filtered(data, end_stream)
        if left is not None and not self.aborted:
            self.out_data(left, end_stream)

    def on_trailers(self, trailers: HeaderList) -> None:
        """Handle the received trailers, which filters do not get."""
        self.trailers, self.ended = trailers, True
        left = self._filtered(b"", True)
        if not self.aborted:
            self.out_data(left or b"", False)
            self._out_trailers()

    def resume(self, context: HttpContext) -> None:
        """Do nothing: a response is never held until it is resumed."""

    def _filtered(self, data: bytes, end_stream: bool) -> bytes | None:
        """A part of the body after the filters' changes; ``None`` if one waits for the whole body."""
        for index, context in enumerate(self.filters):
            if index == self._whole:
                held = self.take_growing()
                held.append(data)
                if not end_stream and len(held) <= self.stream.buffer_limit:
                    self.buffer = held
                    return None
                data, self._whole = bytes(held), -1
            if not data and not end_stream:
                continue
            self.calling = index
            action, data = context.on_whole_body(RESPONSE, data, end_stream)
            self.calling = -1
            if self.aborted:
                return None
            if action and not end_stream and context.vm.failure is None:
                if self._has_paused:
                    warn(context, "proxy_on_response_body", "it was returned earlier in this response")
                    continue
                self._has_paused, self._whole = True, index
                self.buffer = HeldBody(data)
                return None
        return data


class NginxStream(HttpStream):
    """An `HttpStream` with the phases of ngx_wasm_module."""

    _vms: StreamVms | None = None
    """The VMs of this stream, if filters are isolated."""
    _refused: Failure | None = None
    """The failure because of which they could not be made."""

    def __init__(
        self,
        host: Host,
        plugins: Sequence[Plugin],
        properties: Mapping[str, PropertyValue],
        buffer_limit: int,
        header_limits: HeaderLimits | None,
    ) -> None:
        super().__init__(host, [], properties, buffer_limit, header_limits)
        if plugins:
            self._use(plugins)

    def _use(self, plugins: Sequence[Plugin]) -> None:
        """Give the stream its filters, before any of them is called."""
        if any(plugin.config.isolation != "none" for plugin in plugins):
            try:
                self._vms = StreamVms(self.host, plugins)
                plugins = self._vms.plugins
            except PluginError as error:
                plugins, self._refused = [], error.failure
        self._contexts[:] = [HttpContext(self, plugin) for plugin in plugins]
        self._request = RequestChain(self, REQUEST, self._contexts)
        self._response = ResponseChain(self, RESPONSE, self._contexts)

    # The C forms of these methods use the chains that a stream in C makes, not those of `_use`.
    request_headers = PythonHttpStreamBase.request_headers
    response_headers = PythonHttpStreamBase.response_headers
    request_body = PythonHttpStreamBase.request_body
    response_body = PythonHttpStreamBase.response_body
    _feed_headers = PythonHttpStreamBase._feed_headers

    def close(self, details: str = "") -> list[effects.Effect]:
        """As `HttpStream.close`; cancels callouts of its filters that are under way."""
        if not self.closed:
            self._cancel_callouts()
        done = super().close(details)
        if self._vms is not None:
            self._vms.end()
            self._vms = None
            done += self.host.drain()
        return done

    @property
    def _is_head(self) -> bool:
        return self._request_header(b":method") == b"HEAD"

    def _cancel_callouts(self) -> None:
        for context in self._contexts:
            if context.callouts:
                context.plugin._root.cancel_callouts_of(context)

    def _place(self, context: HttpContext, direction: int) -> int:
        return self._contexts.index(context) + 1

    def _fail(self, context: HttpContext) -> None:
        """Answer 500 if a guest fails on a request; continue a response without it."""
        self._failed_by(context.vm.failure)

    def _failed_by(self, failure: Failure | None) -> None:
        self.failure = failure
        if not self._response.started:
            self.failed = True
            self._local_response(500, [], b"", "wasm_fail_stream", None)

    def _local_response(
        self, status: int, headers: HeaderList, body: bytes, details: str, grpc_status: int | None
    ) -> None:
        self._cancel_callouts()
        super()._local_response(status, headers, body, details, grpc_status)
