"""An exchange in terms of ASGI: messages in, messages out, and no I/O."""

from __future__ import annotations

import logging

from proxywasm_host.integrations.asgi.scope import Message, Scope, server_address, target, upstream_scope
from proxywasm_host.integrations.asynchronous import ResponseOver
from proxywasm_host.integrations.exchange import GONE, Exchange, RequestHead, ResponseHead, State, ToClient
from proxywasm_host.runtime.effects import RequestBody, ResponseBody, ResponseTrailers

__all__ = ["DISCONNECT", "AsgiExchange"]

START, BODY, TRAILERS = "http.response.start", "http.response.body", "http.response.trailers"
REQUEST_END: Message = {"type": "http.request", "body": b"", "more_body": False}
RESPONSE_END: Message = {"type": BODY, "body": b"", "more_body": False}
DISCONNECT: Message = {"type": "http.disconnect"}
logger = logging.getLogger("proxywasm_host.asgi")


class AsgiExchange(Exchange):
    """The exchange of one scope."""

    scope: Scope
    _head_ends = False
    """The application has still to learn that its request has no body."""
    _trailers: list[tuple[bytes, bytes]] | None = None
    """Trailers that the application announced, as far as they came."""
    _target = b""
    _sends_trailers = False
    """They were announced to the server."""

    def begin_with(self, first: Message | None, tells: bool) -> None:
        """The head of the request, which `tells_the_end` or not; with the server's first message, if it came."""
        scope = self.scope
        self._target = target(scope)
        ends: bool | None = None
        if first is not None:
            ends = not (first["type"] != "http.request" or first.get("body") or first.get("more_body"))
        elif not tells:
            ends = False
        self.begin(
            scope["method"].encode("latin-1"),
            self._target,
            scope.get("scheme", "http").encode("latin-1"),
            scope["headers"],
            ends,
            server_address(scope),
        )
        if first is not None:
            self.from_server(first)

    def from_server(self, message: Message) -> None:
        """What ``receive`` of the server has given."""
        if message["type"] != "http.disconnect":
            self.request_body(bytes(message.get("body", b"")), not message.get("more_body", False))
        elif self.state is not State.ANSWERED:
            self.client_gone()

    def from_application(self, message: Message) -> bool:
        """What the application has given its ``send``; whether it was for us. Raises: ResponseOver."""
        kind = message["type"]
        if kind == BODY:
            more = message.get("more_body", False)
            if more and self.over:
                raise ResponseOver(self.stream.details or GONE)
            self.response_body(bytes(message.get("body", b"")), not more and self._trailers is None)
        elif kind == START:
            trailers = message.get("trailers", False)
            self._trailers = [] if trailers and not self.over else None
            self.response(message["status"], message.get("headers", ()), trailers=trailers)
        elif kind != TRAILERS:
            return self.over
        elif self._trailers is not None:
            self._trailers += [(bytes(name).lower(), bytes(value)) for name, value in message["headers"]]
            if not message.get("more_trailers", False):
                self.response_trailers(self._trailers)
        return True

    def upstream_scope(self, head: RequestHead) -> Scope:
        """The application's scope."""
        self._head_ends = head.end_stream
        chunked = head.at < 0 and self._request_length is None
        return upstream_scope(self.scope, self._target, head, chunked=chunked)

    def for_application(self) -> Message | None:
        """What the application's ``receive`` gives, if something has come out."""
        if self._head_ends:
            self._head_ends = False
            return REQUEST_END
        if not self.to_upstream:
            return None
        part = self.to_upstream.popleft()
        if isinstance(part, RequestBody):
            return {"type": "http.request", "body": part.data, "more_body": not part.end_stream}
        return REQUEST_END  # ASGI has no trailers of requests

    def for_server(self, part: ToClient) -> list[Message]:
        """A part for the client, for the server's ``send``."""
        if isinstance(part, ResponseBody):
            return [{"type": BODY, "body": part.data, "more_body": not part.end_stream}]
        if isinstance(part, ResponseHead):
            message: Message = {"type": START, "status": part.status, "headers": part.headers}
            if part.end_stream:
                return [message, RESPONSE_END]
            if self._trailers is not None and TRAILERS in (self.scope.get("extensions") or {}):
                self._sends_trailers = message["trailers"] = True
            return [message]
        if isinstance(part, ResponseTrailers):
            end: Message = {"type": TRAILERS, "headers": part.trailers, "more_trailers": False}
            return [RESPONSE_END, end] if self._sends_trailers else [RESPONSE_END]
        return []  # ASGI has no heads of 1xx
