"""The application's side of WSGI (PEP 3333): the body that it reads, and the response that it makes."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

from proxywasm_host.integrations.exchange import Exchange

__all__ = ["AppResponse", "Input"]


class Input(io.RawIOBase):
    """``wsgi.input``, whose `read` returns the next part of the body, empty at its end."""

    def __init__(self, read: Callable[[], bytes]) -> None:
        self._read = read
        self._rest = memoryview(b"")

    def readable(self) -> bool:
        """Whether it can be read: always."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Read the data that has arrived, as `io.RawIOBase` specifies."""
        data = self._rest or memoryview(self._read())
        size = min(len(buffer), len(data))
        buffer[:size], self._rest = data[:size], data[size:]
        return size


class AppResponse:
    """Feeds the exchange an application's response.

    The application may replace its headers until the first part of its body.

    Args:
        exchange: the request's exchange.
        lock: held while it is fed.
    """

    status_line = ""
    """The application's status line, once its headers have been fed."""
    _said: tuple[str, list[tuple[str, str]]] | None = None
    """The arguments of `start`, until they are fed."""

    def __init__(self, exchange: Exchange, lock: Any) -> None:
        self._exchange = exchange
        self._lock = lock

    def start(self, status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Callable[[bytes], None]:
        """The application's ``start_response``."""
        if exc_info is not None and self._said is None and self.status_line:
            try:
                raise exc_info[1].with_traceback(exc_info[2])
            finally:
                exc_info = None
        self._said = status, headers
        return self.body

    def body(self, data: bytes) -> None:
        """Feed a part of the body. Raises: AssertionError, before `start`."""
        if data and not self._exchange.over:
            assert self._said or self.status_line, "the application has not called start_response"  # noqa: S101
            self._head(end=False)
            with self._lock:
                self._exchange.response_body(bytes(data), False)

    def end(self) -> None:
        """Feed the end: the application has returned, and its body has ended."""
        if self._said is not None:
            self._head(end=True)
        elif self.status_line:
            with self._lock:
                self._exchange.response_body(b"", True)

    def _head(self, *, end: bool) -> None:
        if self._said is not None:
            (self.status_line, given), self._said = self._said, None
            headers = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in given]
            with self._lock:
                self._exchange.response(int(self.status_line[:3]), headers, end)
