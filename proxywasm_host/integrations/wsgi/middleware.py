"""The WSGI middleware."""

from __future__ import annotations

import logging
from collections.abc import Callable, Generator, Iterable, Iterator
from typing import Any

from proxywasm_host.integrations.threads import ThreadCarrier
from proxywasm_host.integrations.wsgi.environ import Environ, addressed_by, properties
from proxywasm_host.integrations.wsgi.pump import Pump

__all__ = ["ProxyWasmMiddleware"]


class ProxyWasmMiddleware(ThreadCarrier):
    """Runs filters in front of a WSGI application.

    Args: those of `Carrier`. `properties` may be a function of the environ; `clients` are those of `ThreadDriver`.
    """

    logger = logging.getLogger("proxywasm_host.wsgi")

    def __call__(self, environ: Environ, start_response: Callable[..., Any]) -> Iterable[bytes]:
        """Serve a request, as a WSGI application."""
        known = {**properties(environ), **self._properties_of(environ)}
        driver, stream = self._stream(known, lambda: addressed_by(environ))
        pump = Pump(driver, stream, environ, start_response, fix_content_length=self._fix_content_length)
        return Response(pump.run(self.app))


class Response:
    """The iterable for the server: the parts of the body, the first of which has come out."""

    def __init__(self, parts: Generator[bytes, None, None]) -> None:
        self._parts = parts
        self._first: bytes | None = next(parts, b"")
        """``start_response`` has been called for it. It may be empty: without a part, wsgiref would add a length, even
        to a response that may have none."""

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        first, self._first = self._first, None
        return next(self._parts) if first is None else first

    def close(self) -> None:
        """End the exchange: the server needs no more."""
        self._parts.close()
