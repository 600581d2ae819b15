"""The common path of an exchange, which almost every request takes: heads and bodies pass unchanged.

`Exchange` adds the unusual cases. If the C extension is installed (``native/exchange.c``), its class replaces the one
here, and does the same.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from enum import Enum
from typing import TYPE_CHECKING, Any, Protocol, Union

from proxywasm_host.abi.native import NATIVE, check_constants
from proxywasm_host.integrations.heads import Informational, RequestHead, ResponseHead
from proxywasm_host.runtime import effects
from proxywasm_host.runtime.effects import Effect, StreamEffect
from proxywasm_host.runtime.http import HttpStream

if TYPE_CHECKING:
    from proxywasm_host.integrations.framing import WaitingHead

__all__ = ["CLIENT_GONE", "ExchangeBase", "Performer", "State", "ToClient", "ToUpstream", "logger"]

ToUpstream = Union[RequestHead, effects.RequestBody, effects.RequestTrailers]
ToClient = Union[Informational, ResponseHead, effects.ResponseBody, effects.ResponseTrailers]
CLIENT_GONE = "downstream_remote_disconnect"
"""Envoy's response code details for a client that disconnected."""
logger = logging.getLogger("proxywasm_host.exchange")


class State(Enum):
    """What the client has got, or will have got when `Exchange.to_client` is sent."""

    WAITING = "nothing"
    BEGUN = "the head of the response"
    ANSWERED = "all of it"
    CUT = "a part of it, and no more"
    GONE = "nothing more: it has gone away"


WAITING, BEGUN, ANSWERED, CUT, GONE = State
"""The same as globals: on Python 3.11, reading one from its class takes as long as a call."""
check_constants(**{state.name: place for place, state in enumerate(State)})


class Performer(Protocol):
    """Performs effects: a driver, which passes those of a stream to the attached sink."""

    def attach(self, stream: HttpStream, sink: Callable[[Any], None], /) -> None:
        """Pass the effects of a stream to `sink`, until `detach`."""
        ...

    def detach(self, stream: HttpStream, /) -> None:
        """Stop passing the effects of a stream to its sink."""
        ...

    def perform(self, todo: Iterable[Effect], /) -> None:
        """Perform effects."""
        ...


class ExchangeBase:
    """A request in progress, on the common path. `Exchange` adds the unusual cases."""

    state = State.WAITING
    """The state of the exchange."""
    _feeding = False
    _client_method = b""
    _upstream_method = b""
    _request_ended = False
    """Whether the end of the request has arrived."""
    _response_ended = False
    """Whether the end of the response has arrived."""
    _request_length: int | None = None
    """The length that the client gave for its body."""
    _response_length: int | None = None
    _client_clean = True
    """Whether HTTP can express all headers that the client sent."""
    _waiting_request: WaitingHead | None = None
    _waiting_response: WaitingHead | None = None

    def __init__(
        self,
        driver: Performer,
        stream: HttpStream,
        *,
        fix_content_length: bool = True,
        http_1_0: bool = False,
        wake: Callable[[], None] | None = None,
        log: logging.Logger = logger,
    ) -> None:
        self.stream = stream
        """The stream that it carries."""
        self.to_upstream: deque[ToUpstream] = deque()
        """Parts of the request, in order, the head first. Take them from the left."""
        self.to_client: deque[ToClient] = deque()
        """Parts of the response, in order. Take them from the left."""
        self._driver = driver
        self._fix_content_length = fix_content_length
        self._http_1_0 = http_1_0
        self.wake = wake
        """Called when an event from elsewhere (a callout's reply, a tick, a time-out, another stream's event) has
        changed the exchange. It must return at once, and must not feed anything."""
        self._log = log

    # -- Events --------------------------------------------------------------------------------------------------

    def begin(
        self,
        method: bytes,
        target: bytes,
        scheme: bytes,
        headers: Sequence[tuple[bytes, bytes]],
        end_stream: bool | None = None,
        server: bytes = b"",
    ) -> None:
        """Feed the request's head.

        Args:
            method: the request's method.
            target: as on the wire: path and query, an absolute URL, or ``*``.
            scheme: ``http`` or ``https``.
            headers: as received, names in lower case, including ``host`` (in HTTP/2 from ``:authority``).
            end_stream: nothing follows; ``None`` if the headers decide, as in HTTP/1 (RFC 9112, section 6.3).
            server: the authority if there is no ``host``.
        """
        self._client_method = method
        self._driver.attach(self.stream, self._take)
        self._begin_closely(method, target, scheme, headers, end_stream, server)

    def request_body(self, data: bytes, end_stream: bool) -> None:
        """Feed a part of the request's body. Ignored after its end."""
        if not self._request_ended:
            self._request_ended = end_stream
            if data or end_stream:
                self._feed(self.stream.request_body(data, end_stream))

    def response(
        self,
        status: int,
        headers: Iterable[tuple[bytes, bytes]],
        end_stream: bool = False,
        *,
        trailers: bool = False,
    ) -> None:
        """Feed the response's head.

        Args:
            status: the response's status.
            headers: as received.
            end_stream: nothing follows.
            trailers: something may follow a body of length 0.
        """
        if not (self._response_ended or self.over):
            self._response_closely(status, headers, end_stream, trailers)

    def response_body(self, data: bytes, end_stream: bool) -> None:
        """Feed a part of the response's body. Ignored after its end, and once upstream is ignored (`over`)."""
        if not (self._response_ended or self.over):
            self._response_ended = end_stream
            if data or end_stream:
                self._feed(self.stream.response_body(data, end_stream))

    # -- What to do ----------------------------------------------------------------------------------------------

    @property
    def over(self) -> bool:
        """Whether the rest of upstream's response is ignored, so that the carrier should break it off."""
        state = self.state
        return (state is not WAITING and state is not BEGUN) or self.stream.local is not None

    @property
    def finished(self) -> bool:
        """Whether `to_client` is empty and will stay empty."""
        return self.state is GONE or (self.state in (ANSWERED, CUT) and not self.to_client)

    def close(self, *, whole: bool = False) -> None:
        """End the exchange. Call it always, however the exchange ended.

        `whole`: the client gets the whole response, though not all of it passed the exchange.
        """
        self.wake = None  # its carrier refers to the exchange: break the cycle, instead of leaving it to the collector
        self._driver.detach(self.stream)
        whole = whole or self.state is ANSWERED or bool(self.stream.reset_details)
        if todo := self.stream.close("" if whole else CLIENT_GONE):
            self._driver.perform(todo)

    # -- Out of the stream ---------------------------------------------------------------------------------------

    def _feed(self, todo: list[Effect], /) -> None:
        """Take the effects of an event that the exchange fed, up to the first one that is not the stream's."""
        stream = self.stream
        for at, effect in enumerate(todo):
            if not isinstance(effect, StreamEffect) or effect.stream is not stream:
                self._leave_to_driver(todo[at:])
                return
            self._take_in(effect)

    # -- For `Exchange` to define --------------------------------------------------------------------------------

    def _begin_closely(
        self,
        method: bytes,
        target: bytes,
        scheme: bytes,
        headers: Sequence[tuple[bytes, bytes]],
        end_stream: bool | None,
        server: bytes,
        /,
    ) -> None:
        """`begin`, for any request."""
        raise NotImplementedError

    def _response_closely(
        self, status: int, headers: Iterable[tuple[bytes, bytes]], end_stream: bool, trailers: bool, /
    ) -> None:
        """`response`, for any response, unless upstream is ignored."""
        raise NotImplementedError

    def _take(self, effect: Effect, /) -> None:
        """Take an effect of the stream, and wake the carrier unless it is feeding an event."""
        raise NotImplementedError

    def _take_in(self, effect: Effect, /) -> None:
        """Take an effect of the stream, without waking the carrier."""
        raise NotImplementedError

    def _leave_to_driver(self, todo: list[Effect], /) -> None:
        """Let the driver perform effects of an event that the exchange fed."""
        raise NotImplementedError


PythonExchangeBase = ExchangeBase
if not TYPE_CHECKING and NATIVE is not None:
    NATIVE.use(states=tuple(State), request_head=RequestHead, response_head=ResponseHead, exchange_log=logger)
    ExchangeBase = NATIVE.ExchangeBase
