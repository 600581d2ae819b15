"""Carries one exchange between a WSGI server and an application, in one thread; what other threads bring wakes it.

* The thread of a request waits while a filter holds what it needs. WSGI does not tell that a client has gone: that
  shows when the response is sent, or when the body ends before its ``CONTENT_LENGTH``.
* ``start_response`` of the server is called when the response's head has come out of the filters, and always before
  the application (that we are to the server) returns: granian looks at nothing that comes later. What WSGI has no words
  for (trailers, upgrades, 1xx) is not passed on.
"""

from __future__ import annotations

import io
import logging
import threading
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import suppress
from typing import Any

from proxywasm_host.driver.threaded import ThreadDriver
from proxywasm_host.integrations.exchange import GONE, Exchange, ResponseHead
from proxywasm_host.integrations.headers import length_of
from proxywasm_host.integrations.wsgi.application import AppResponse, Input
from proxywasm_host.integrations.wsgi.environ import (
    Environ,
    request_headers,
    server_address,
    status_line,
    target,
    text_of,
    upstream_environ,
)
from proxywasm_host.runtime.effects import RequestBody, ResponseBody
from proxywasm_host.runtime.http import HttpStream

__all__ = ["Pump"]

CHUNK = 65536
logger = logging.getLogger("proxywasm_host.wsgi")


class RequestCut(OSError):
    """The application reads a body that broke off: its client is gone."""


class Pump:
    """A request in progress."""

    _cut = False
    """The request broke off."""
    _request_done = False
    """The application was given the end of the request."""

    def __init__(
        self,
        driver: ThreadDriver,
        stream: HttpStream,
        environ: Environ,
        start_response: Callable[..., Any],
        *,
        fix_content_length: bool,
    ) -> None:
        self._environ = environ
        self._start_response = start_response
        self._changed = threading.Condition(driver.lock)
        wake = self._changed.notify
        self._exchange = Exchange(driver, stream, fix_content_length=fix_content_length, wake=wake, log=logger)
        self._response = AppResponse(self._exchange, self._changed)
        length = environ.get("CONTENT_LENGTH") or ""
        self._unread: float = (length_of([length.encode("latin-1")]) if length else None) or 0
        if not length and environ.get("wsgi.input_terminated"):
            self._unread = float("inf")

    def run(self, app: Callable[..., Iterable[bytes]]) -> Generator[bytes, None, None]:
        """The parts of the response. Raises what the application raises, and StreamReset."""
        exchange, environ = self._exchange, self._environ
        method, scheme = (environ[name].encode("latin-1") for name in ("REQUEST_METHOD", "wsgi.url_scheme"))
        try:
            self._feed(
                exchange.begin, method, target(environ), scheme, request_headers(environ),
                not self._unread, server_address(environ),
            )  # fmt: skip
            while not (exchange.to_upstream or exchange.over):
                self._advance()
            if not exchange.over:
                with suppress(RequestCut):
                    yield from self._respond(app)
            while not exchange.finished and (exchange.response_ended or exchange.over):
                self._wait(lambda: bool(exchange.to_client) or exchange.finished)
                yield from self._sent()
            exchange.raise_if_cut()
        finally:
            self._feed(exchange.close)

    def _feed(self, event: Callable[..., None], *args: Any) -> None:
        with self._changed:
            event(*args)

    def _wait(self, ready: Callable[[], bool]) -> None:
        """Wait until what other threads bring makes it true."""
        with self._changed:
            self._changed.wait_for(ready)

    # -- The request ---------------------------------------------------------------------------------------------

    def _advance(self) -> None:
        """Read a part of the request, or wait until a filter lets something go."""
        exchange = self._exchange
        if not exchange.wants_request:
            self._wait(lambda: exchange.over or bool(exchange.to_upstream) or exchange.wants_request)
            return
        data = self._environ["wsgi.input"].read(int(min(self._unread, CHUNK)))
        if not data and self._unread < float("inf"):
            self._cut = True
            self._feed(exchange.request_cut)
            return
        self._unread = self._unread - len(data) if data else 0
        self._feed(exchange.request_body, data, not self._unread)

    def read_part(self) -> bytes:
        """The next part of the body for the application; empty at its end, or if there is nobody to read from."""
        exchange = self._exchange
        while not self._request_done:
            if exchange.to_upstream:
                part = exchange.to_upstream.popleft()
                self._request_done = not isinstance(part, RequestBody) or part.end_stream
                if isinstance(part, RequestBody) and part.data:
                    return part.data
            elif exchange.over:
                break
            else:
                self._advance()
        if self._cut:
            raise RequestCut(GONE)
        return b""

    # -- The response --------------------------------------------------------------------------------------------

    def _respond(self, app: Callable[..., Iterable[bytes]]) -> Iterator[bytes]:
        exchange = self._exchange
        head = exchange.request_head()
        self._request_done = head.end_stream
        body: io.BufferedReader = io.BufferedReader(Input(self.read_part))
        parts = app(upstream_environ(self._environ, head, body), self._response.start)
        try:
            for part in parts:
                self._response.body(part)
                yield from self._sent()
                while not exchange.over and exchange.stream.response_full:
                    self._wait(lambda: exchange.over or bool(exchange.to_client) or not exchange.stream.response_full)
                    yield from self._sent()
                if exchange.over:
                    return
            self._response.end()
        finally:
            close = getattr(parts, "close", None)
            if close is not None:
                close()

    def _sent(self) -> Iterator[bytes]:
        """Give the server what has come out."""
        exchange = self._exchange
        while exchange.to_client:
            with self._changed:
                part = exchange.to_client.popleft() if exchange.to_client else None
            if isinstance(part, ResponseHead):
                said = self._response.status_line
                line = said if said[:3] == str(part.status) else status_line(part.status)
                self._start_response(line, text_of(part.headers))
            elif isinstance(part, ResponseBody) and part.data:
                yield part.data
