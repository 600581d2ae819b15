"""Carries one exchange between a WSGI server and an application.

* WSGI does not report that a client has gone. It shows only when the response is sent, or when the body ends before
  its ``CONTENT_LENGTH``.
* ``start_response`` of the server is called when the response's head has come out of the filters, and always before
  the middleware returns, because granian ignores later calls. WSGI has no form for trailers, upgrades and 1xx, so the
  pump does not pass them on.
"""

from __future__ import annotations

import io
import logging
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing, suppress
from typing import Any

from proxywasm_host.driver.threaded import ThreadDriver
from proxywasm_host.errors import ProxyWasmError
from proxywasm_host.integrations.exchange import ResponseHead
from proxywasm_host.integrations.exchange_base import CLIENT_GONE
from proxywasm_host.integrations.headers import length_of
from proxywasm_host.integrations.synchronous import Sent, ThreadPump
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
from proxywasm_host.runtime.http import HttpStream

__all__ = ["Pump", "RequestCut"]

CHUNK = 65536
logger = logging.getLogger("proxywasm_host.wsgi")


class RequestCut(ProxyWasmError, OSError):
    """The application reads a body that broke off, because its client has gone."""

    code = "request_cut"


class Pump(ThreadPump):
    """A request in progress."""

    _cut = False
    """Whether the request broke off."""

    def __init__(
        self,
        driver: ThreadDriver,
        stream: HttpStream,
        environ: Environ,
        start_response: Callable[..., Any],
        *,
        fix_content_length: bool,
    ) -> None:
        super().__init__(driver, stream, fix_content_length=fix_content_length, log=logger)
        self._environ = environ
        self._start_response = start_response
        self._response = AppResponse(self.exchange, self.changed)
        length = environ.get("CONTENT_LENGTH") or ""
        self._unread: float = (length_of([length.encode("latin-1")]) if length else None) or 0
        if not length and environ.get("wsgi.input_terminated"):
            self._unread = float("inf")

    def run(self, app: Callable[..., Iterable[bytes]]) -> Generator[bytes, None, None]:
        """Yield the parts of the response. Raises: the errors of the application, and StreamReset."""
        self._app = app
        with closing(self.carry()) as sent:
            for part in sent:
                if isinstance(part, ResponseHead):
                    said = self._response.status_line
                    line = said if said[:3] == str(part.status) else status_line(part.status)
                    self._start_response(line, text_of(part.headers))
                else:
                    yield part

    # -- The request ---------------------------------------------------------------------------------------------

    def begin(self) -> None:
        """Feed the request's head."""
        environ = self._environ
        method, scheme = (environ[name].encode("latin-1") for name in ("REQUEST_METHOD", "wsgi.url_scheme"))
        self.feed(
            self.exchange.begin, method, target(environ), scheme, request_headers(environ),
            not self._unread, server_address(environ),
        )  # fmt: skip

    def read(self) -> None:
        """Read a part of the request from the server."""
        data = self._environ["wsgi.input"].read(int(min(self._unread, CHUNK)))
        if not data and self._unread < float("inf"):
            self._cut = True
            self.feed(self.exchange.request_cut)
            return
        self._unread = self._unread - len(data) if data else 0
        self.feed(self.exchange.request_body, data, not self._unread)

    def request_part(self) -> bytes:
        """As `ThreadPump.request_part`. Raises: RequestCut."""
        part = super().request_part()
        if self._cut and not part:
            raise RequestCut(CLIENT_GONE)
        return part

    # -- The response --------------------------------------------------------------------------------------------

    def ask(self) -> Iterator[Sent]:
        """Call the application, and feed its response."""
        exchange = self.exchange
        head = exchange.request_head()
        self._request_done = head.end_stream
        body: io.BufferedReader = io.BufferedReader(Input(self.request_part))
        with suppress(RequestCut):
            parts = self._app(upstream_environ(self._environ, head, body), self._response.start)
            try:
                for part in parts:
                    self._response.body(part)
                    yield from self.sent_below_limit()
                    if exchange.over:
                        return
                self._response.end()
            finally:
                close = getattr(parts, "close", None)
                if close is not None:
                    close()
