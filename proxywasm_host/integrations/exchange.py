"""One request and its response, between an `HttpStream` and a carrier of bytes. No I/O happens here.

A carrier feeds each part that arrives. Two queues hold the parts to send, and properties say what to do next:

    exchange = Exchange(driver, driver.host.http_stream(plugins))
    exchange.begin(b"GET", b"/", b"http", [(b"host", b"example.com")], end_stream=True)
    exchange.to_upstream    # deque([RequestHead(b"GET", b"/", b"http", [(b"host", b"example.com"), …], True)])
    exchange.response(200, [(b"content-length", b"6")], False)
    exchange.response_body(b"Hello.", True)
    exchange.to_client      # deque([ResponseHead(200, …), ResponseBody(b"Hello.", True)])
    exchange.close()

The state (`State`) of an exchange is how much of the response the client has got. It decides what an event does:

    ==========  ====================  ============  ================  ============================  ============
    state       head comes out        end comes     broken off        cannot be sent                client gone
    ==========  ====================  ============  ================  ============================  ============
    WAITING     BEGUN, or ANSWERED    –             answered 503      answered 503 (400 if it came  GONE
                if nothing follows                                    from the client like this)
    BEGUN       –                     ANSWERED      CUT               –                             GONE
    ANSWERED    dropped               dropped       nothing           –                             GONE
    CUT, GONE   dropped               dropped       nothing           –                             –
    ==========  ====================  ============  ================  ============================  ============

A head that is still in the queue has not been sent: if the response is broken off then, an answer replaces it.

Rules, with their sources:

* An ambiguous message is refused before a filter sees it (`headers`; RFC 9112). If a filter makes a head that HTTP
  cannot express, the client gets 503 (`heads`). A wrong ``content-length`` is corrected (`framing`).
* A response to HEAD, or with status 204 or 304, ends with its head, whatever follows (RFC 9112, section 6.3).
* Heads with status 1xx bypass the filters, as with ``encode1xxHeaders`` of Envoy's Proxy-Wasm filter.
* A response that comes out before upstream's went in is local; from then on upstream is ignored (`over`).
* If upstream disconnects before its response begins, the client gets 502 through the filters. Later, the response is
  cut, as by Envoy's router (``UpstreamRequest::onResetStream``).
* A carrier reads no more than one part ahead, and nothing while filters hold more than their limit (`wants_request`,
  `wants_response`), so a slow side slows down the other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from proxywasm_host.abi.pairs import HeaderList
from proxywasm_host.errors import ProxyWasmError
from proxywasm_host.integrations.exchange_base import CLIENT_GONE, CUT, ExchangeBase, State, ToClient, ToUpstream
from proxywasm_host.integrations.framing import Head, WaitingHead, content_length, set_length
from proxywasm_host.integrations.headers import Refused, received_request, received_response
from proxywasm_host.integrations.heads import (
    NO_BODY,
    UNSENDABLE,
    Informational,
    RequestHead,
    ResponseHead,
    request_head,
    response_head,
    trailers_for_wire,
    unsendable_headers,
)
from proxywasm_host.runtime import effects
from proxywasm_host.runtime.effects import Effect
from proxywasm_host.runtime.filter_chain import REQUEST, RESPONSE

__all__ = [
    "Exchange",
    "Informational",
    "RequestHead",
    "ResponseHead",
    "State",
    "StreamReset",
    "ToClient",
    "ToUpstream",
]

UPSTREAM_GONE = "upstream_reset_{}_response_started{{connection_termination}}"


class StreamReset(ProxyWasmError):
    """The response was broken off after a part of it was sent: the server must cut the connection."""

    code = "stream_reset"


class Exchange(ExchangeBase):
    """A request in progress.

    Args:
        driver: performs effects; the stream is attached to it until `close`.
        stream: the request's stream; only the exchange feeds it.
        fix_content_length: correct or remove a ``content-length`` that filters may have invalidated.
        http_1_0: the client can find the end of a body only by its length.
        wake: called when an event from elsewhere (a callout's reply, a tick, a time-out, another stream's event) has
            changed the exchange. It must return at once, and must not feed anything.
        log: logger for messages that cannot be sent.
    """

    _answered_here = False

    # -- From the client -----------------------------------------------------------------------------------------

    def _begin_closely(
        self,
        method: bytes,
        target: bytes,
        scheme: bytes,
        headers: Sequence[tuple[bytes, bytes]],
        end_stream: bool | None,
        server: bytes,
    ) -> None:
        try:
            shown, length, chunked, self._client_clean = received_request(headers, method, target, scheme, server)
        except Refused as refused:
            self._request_ended = True
            self.stream._abandon()
            self._answer(refused.status, refused.why.encode())
            return
        self._request_length = length
        if end_stream is None:
            end_stream = not (length or chunked)
        self._request_ended = end_stream
        self._feed(self.stream.request_headers(shown, end_stream, owned=True))

    def request_trailers(self, trailers: HeaderList) -> None:
        """Feed the request's trailers, which end it."""
        if not self._request_ended:
            self._request_ended = True
            self._feed(self.stream.request_trailers(trailers))

    def request_cut(self) -> None:
        """Handle a request that ended before its length: the client gets 400, or its response is cut, so that nobody
        takes the request for complete."""
        self._feed(self.stream.close(CLIENT_GONE))
        self._break_off(400)

    def client_gone(self) -> None:
        """Handle a client that disconnected: nothing more is sent to it."""
        self.to_client.clear()
        if self.state is not State.GONE:
            self.state = State.GONE
            self._feed(self.stream.close(CLIENT_GONE))

    # -- From upstream -------------------------------------------------------------------------------------------

    def informational(self, status: int, headers: HeaderList) -> None:
        """Pass on a head with status 1xx, before the response's."""
        if self.state is State.WAITING and not self.over:
            self.to_client.append(Informational(status, trailers_for_wire(headers)))

    def _response_closely(
        self, status: int, headers: Iterable[tuple[bytes, bytes]], end_stream: bool, trailers: bool
    ) -> None:
        shown, length = received_response(status, headers)
        bodiless = self._client_method == b"HEAD" or self._upstream_method == b"HEAD" or status in NO_BODY
        end_stream = end_stream or bodiless or (length == 0 and not trailers)
        self._response_length = length
        self._response_ended = end_stream
        self._feed(self.stream.response_headers(shown, end_stream, owned=True))

    def response_trailers(self, trailers: HeaderList) -> None:
        """Feed the response's trailers, which end it."""
        if not (self._response_ended or self.over):
            self._response_ended = True
            self._feed(self.stream.response_trailers(trailers))

    def upstream_gone(self, status: int = 502, body: bytes = b"", details: str | None = None) -> None:
        """Handle an upstream that disconnected before its response ended: the client gets this status, or its response
        is cut.

        `details` are Envoy's response code details.
        """
        if self._response_ended or self.over:
            return
        self._response_ended = True
        started = self.stream._response_started
        details = UPSTREAM_GONE.format("after" if started else "before") if details is None else details
        if started:
            self.stream._reset(details)
        else:
            self.stream._local_response(status, [], body, details, None)
        self._feed(self.stream.host.drain())

    # -- What to do ----------------------------------------------------------------------------------------------

    @property
    def local(self) -> bool:
        """Whether a filter, the host or the exchange made the response, not upstream."""
        return self._answered_here or self.stream.local is not None

    @property
    def answered(self) -> bool:
        """Whether the end of the response has come out."""
        return self.state is State.ANSWERED

    @property
    def wants_request(self) -> bool:
        """Whether to read the next part of the request's body."""
        return not (self._request_ended or self.to_upstream or self.stream.request_full or self.over)

    @property
    def listens(self) -> bool:
        """Whether to wait for the client: for the next part of its request, or for it to leave."""
        if self.state is not State.WAITING and self.state is not State.BEGUN:
            return False
        return self._request_ended or not (self.to_upstream or self.stream.request_full)

    @property
    def wants_response(self) -> bool:
        """Whether to read the next part of the response."""
        return not (self._response_ended or self.stream.response_full or self.over)

    @property
    def request_held(self) -> bool:
        """Whether a filter holds the request. A reply, a tick or another stream may have to release it."""
        return bool(self.stream._chain(REQUEST).stopped)

    @property
    def request_ended(self) -> bool:
        """Whether the end of the request has arrived."""
        return self._request_ended

    @property
    def response_ended(self) -> bool:
        """Whether the end of the response has arrived."""
        return self._response_ended

    def request_head(self) -> RequestHead:
        """Take the request's head, which is first in the queue."""
        head = self.to_upstream.popleft()
        assert isinstance(head, RequestHead)  # noqa: S101 - it comes first
        return head

    def raise_if_cut(self) -> None:
        """Raise StreamReset if the client has a part of the response and will not get the rest."""
        if self.state is CUT:
            raise StreamReset(self.stream.reset_details or CLIENT_GONE)

    # -- Out of the stream ---------------------------------------------------------------------------------------

    def _take(self, effect: Effect) -> None:
        self._take_in(effect)
        if not self._feeding and self.wake is not None:
            self.wake()

    def _take_in(self, effect: Effect) -> None:
        taker = EFFECT_HANDLERS.get(effect.__class__)
        if taker is not None:
            taker(self, effect)

    def _leave_to_driver(self, todo: list[Effect]) -> None:
        self._feeding = True
        try:
            self._driver.perform(todo)
        finally:
            self._feeding = False

    def _request_headers(self, effect: effects.RequestHeaders) -> None:
        head = request_head(effect.headers, effect.end_stream)
        if head is None:
            self._unsendable("request", effect.headers, 503 if self._client_clean else 400)
            return
        self._upstream_method = head.method
        if head.at >= 0 and not self._frame(head, self._request_length):
            chain, came = self.stream._chain(REQUEST), self._request_length
            self._waiting_request = WaitingHead(head, chain, came, keep_unsure=True, wait_for=0)
        else:
            self.to_upstream.append(head)

    def _response_headers(self, effect: effects.ResponseHeaders) -> None:
        if self.state is not State.WAITING:
            return
        head = response_head(effect.headers, effect.end_stream)
        if head is None:
            self._unsendable("response", effect.headers, 503)
            return
        if head.status in NO_BODY:
            # RFC 9110, 8.6: a 204 has no length; that of a 304 would be the length of a 200.
            head.end_stream = True
            set_length(head, None)
        elif head.at >= 0 and not self._frame(head, self._response_length, head_only=self._client_method == b"HEAD"):
            wait_for = self.stream.buffer_limit if self._http_1_0 else 0
            chain, came = self.stream._chain(RESPONSE), self._response_length
            self._waiting_response = WaitingHead(head, chain, came, keep_unsure=False, wait_for=wait_for)
            return
        self._begin_response(head)

    def _frame(self, head: Head, came: int | None, *, head_only: bool = False) -> bool:
        """Correct a head's length if the right one is known. Returns whether it is, so that the head can be sent.

        `head_only`: the length is that of the response to a GET (RFC 9110, section 8.6).
        """
        told = content_length(head)
        if head.end_stream:
            set_length(head, told if head_only else 0)
            return True
        if self._fix_content_length and (told is None or told != came or self.stream.changes_bodies):
            return False
        if told is None:
            set_length(head, None)
        return True

    def _begin_response(self, head: ResponseHead) -> None:
        if self._client_method == b"HEAD":
            head.end_stream = True
        self.state = State.ANSWERED if head.end_stream else State.BEGUN
        self.to_client.append(head)

    def _request_part(self, part: effects.RequestBody | effects.RequestTrailers) -> None:
        if isinstance(part, effects.RequestTrailers):
            part = effects.RequestTrailers(trailers_for_wire(part.trailers), self.stream)
        if self._waiting_request is None:
            self.to_upstream.append(part)
        elif (parts := self._waiting_request.follow(part)) is not None:
            self._waiting_request = None
            self.to_upstream.extend(parts)  # type: ignore[arg-type]

    def _response_part(self, part: effects.ResponseBody | effects.ResponseTrailers) -> None:
        if self._waiting_response is None:
            self._put_response(part)
        elif (parts := self._waiting_response.follow(part)) is not None:
            self._waiting_response = None
            for each in parts:
                self._put_response(each)  # type: ignore[arg-type]

    def _put_response(self, part: ResponseHead | effects.ResponseBody | effects.ResponseTrailers) -> None:
        if isinstance(part, ResponseHead):
            self._begin_response(part)
        elif self.state is State.BEGUN:
            if isinstance(part, effects.ResponseTrailers):
                part = effects.ResponseTrailers(trailers_for_wire(part.trailers), self.stream)
                self.state = State.ANSWERED
            elif part.end_stream:
                self.state = State.ANSWERED
            self.to_client.append(part)

    def _reset(self, _: effects.ResetStream) -> None:
        self._break_off(503)

    # -- Responses that the exchange ends ------------------------------------------------------------------------

    def _unsendable(self, what: str, headers: HeaderList, status: int) -> None:
        if status == 503:
            self._log.warning(UNSENDABLE, what, unsendable_headers(headers))
        self._answer(status)

    def _break_off(self, status: int) -> None:
        """Cut the response, or answer with this status if its head was not sent."""
        if self.state is State.WAITING or (
            self.state is State.BEGUN and any(part.__class__ is ResponseHead for part in self.to_client)
        ):
            self._answer(status)
        elif self.state is State.BEGUN:
            self.to_client.clear()
            self.state = State.CUT

    def _answer(self, status: int, body: bytes = b"") -> None:
        """Answer without the filters, instead of the parts that were not sent."""
        headers = [(b"content-type", b"text/plain")] if body else []
        headers.append((b"content-length", b"%d" % len(body)))
        if self._client_method == b"HEAD":
            body = b""
        self.to_client.clear()
        self.to_client.append(ResponseHead(status, headers, not body))
        if body:
            self.to_client.append(effects.ResponseBody(body, True, self.stream))
        self.state = State.ANSWERED
        self._answered_here = True


EFFECT_HANDLERS: dict[type, Callable[[Exchange, Any], None]] = {
    effects.RequestHeaders: Exchange._request_headers,
    effects.RequestBody: Exchange._request_part,
    effects.RequestTrailers: Exchange._request_part,
    effects.ResponseHeaders: Exchange._response_headers,
    effects.ResponseBody: Exchange._response_part,
    effects.ResponseTrailers: Exchange._response_part,
    effects.ResetStream: Exchange._reset,
}
