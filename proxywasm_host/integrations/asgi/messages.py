"""Converts between an exchange and messages of ASGI, without I/O.

The C extension (``native/asgi.c``), if it was built, handles the usual cases:

* `usual_begin` feeds an exchange the head of its scope, and returns the target.
* `usual_scope` makes the application's scope from the client's scope, its target, and a head.
* `usual_sent` feeds an exchange a message from the application. It returns the resulting message for the server, if
  that is the only result and no filter holds a part of the response, and ``True`` otherwise.

Each returns ``None`` if the case is unusual; then it has done nothing.
"""

from __future__ import annotations

import logging
from typing import Any

from proxywasm_host.abi.native import NATIVE
from proxywasm_host.integrations.asgi.scope import Message, Scope, server_address, target, upstream_scope
from proxywasm_host.integrations.asynchronous import ResponseOver
from proxywasm_host.integrations.exchange import Exchange, RequestHead, ResponseHead, State, ToClient
from proxywasm_host.integrations.exchange_base import CLIENT_GONE, Performer
from proxywasm_host.runtime.effects import RequestBody, ResponseBody, ResponseTrailers
from proxywasm_host.runtime.http import HttpStream

__all__ = ["DISCONNECT", "AsgiExchange", "exchange_of"]

START, BODY, TRAILERS = "http.response.start", "http.response.body", "http.response.trailers"
REQUEST_END: Message = {"type": "http.request", "body": b"", "more_body": False}
RESPONSE_END: Message = {"type": BODY, "body": b"", "more_body": False}
DISCONNECT: Message = {"type": "http.disconnect"}
logger = logging.getLogger("proxywasm_host.asgi")


def nothing(*_: Any) -> None:
    """Do nothing: the form without the C extension."""


usual_begin, usual_scope, usual_sent = (
    (nothing,) * 3 if NATIVE is None else (NATIVE.asgi_begin, NATIVE.asgi_scope, NATIVE.asgi_sent)
)


def exchange_of(driver: Performer, stream: HttpStream, scope: Scope, fix_content_length: bool) -> AsgiExchange:
    """Make the exchange for a scope. The other arguments are those of `Exchange`."""
    exchange = AsgiExchange(driver, stream)  # without keywords, which would take half as long again
    exchange._log = logger
    if not fix_content_length:
        exchange._fix_content_length = False
    if scope["http_version"] == "1.0":
        exchange._http_1_0 = True
    exchange.scope = scope
    exchange.target = b""
    exchange._head_ends = exchange._sends_trailers = False
    exchange.trailers = None
    return exchange


class AsgiExchange(Exchange):
    """The exchange for one scope. Made by `exchange_of`."""

    # With slots and no __init__: a dictionary and a call would take a tenth of the time that ASGI takes for a request.
    __slots__ = ("_head_ends", "_sends_trailers", "scope", "target", "trailers")

    scope: Scope
    target: bytes
    """The client's request target."""
    _head_ends: bool
    """Whether the application still has to be told that the request has no body."""
    trailers: list[tuple[bytes, bytes]] | None
    """The trailers that the application has sent so far; ``None`` if it announced none."""
    _sends_trailers: bool
    """Whether the server was told that trailers follow."""

    def begin_with(self, first: Message | None, tells: bool) -> None:
        """Feed the request's head, and the server's first message if it was read. `tells`: as `tells_the_end`."""
        scope = self.scope
        self.target = target(scope)
        ends: bool | None = None
        if first is not None:
            ends = not (first["type"] != "http.request" or first.get("body") or first.get("more_body"))
        elif not tells:
            ends = False
        self.begin(
            scope["method"].encode("latin-1"),
            self.target,
            scope.get("scheme", "http").encode("latin-1"),
            scope["headers"],
            ends,
            server_address(scope),
        )
        if first is not None:
            self.from_server(first)

    def from_server(self, message: Message) -> None:
        """Feed a message from the server's ``receive``."""
        if message["type"] != "http.disconnect":
            self.request_body(bytes(message.get("body", b"")), not message.get("more_body", False))
        elif self.state is not State.ANSWERED:
            self.client_gone()

    def from_application(self, message: Message) -> bool:
        """Feed a message from the application. Returns whether the exchange handles its type. Raises: ResponseOver."""
        kind = message["type"]
        if kind == BODY:
            more = message.get("more_body", False)
            if more and self.over:
                raise ResponseOver(self.stream.details or CLIENT_GONE)
            self.response_body(bytes(message.get("body", b"")), not more and self.trailers is None)
        elif kind == START:
            trailers = message.get("trailers", False)
            self.trailers = [] if trailers and not self.over else None
            self.response(message["status"], message.get("headers", ()), trailers=trailers)
        elif kind != TRAILERS:
            return self.over
        elif self.trailers is not None:
            self.trailers += [(bytes(name).lower(), bytes(value)) for name, value in message["headers"]]
            if not message.get("more_trailers", False):
                self.response_trailers(self.trailers)
        return True

    def upstream_scope(self, head: RequestHead) -> Scope:
        """Make the application's scope."""
        self._head_ends = head.end_stream
        usual: Scope | None = usual_scope(self.scope, self.target, head)
        if usual is not None:
            return usual
        chunked = head.at < 0 and self._request_length is None
        return upstream_scope(self.scope, self.target, head, chunked=chunked)

    def for_application(self) -> Message | None:
        """The next message for the application's ``receive``, or ``None`` if there is nothing to pass."""
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
        """The messages for the server's ``send`` that a part for the client becomes."""
        if isinstance(part, ResponseBody):
            return [{"type": BODY, "body": part.data, "more_body": not part.end_stream}]
        if isinstance(part, ResponseHead):
            message: Message = {"type": START, "status": part.status, "headers": part.headers}
            if part.end_stream:
                return [message, RESPONSE_END]
            if self.trailers is not None and TRAILERS in (self.scope.get("extensions") or {}):
                self._sends_trailers = message["trailers"] = True
            return [message]
        if isinstance(part, ResponseTrailers):
            end: Message = {"type": TRAILERS, "headers": part.trailers, "more_trailers": False}
            return [RESPONSE_END, end] if self._sends_trailers else [RESPONSE_END]
        return []  # ASGI has no interim responses
