"""Requests, responses and their headers, as a filter sees them."""

from __future__ import annotations

import json
from typing import Any

from proxywasm._host import Headers, host
from proxywasm._tasks import Future, Mapping, content

__all__ = ["Headers", "Request", "RequestHead", "Response", "ResponseHead"]

EVERYTHING = 0x7FFFFFFF


class _Message:
    """What request and response have in common; `_direction` is 0 for a request, 1 for a response."""

    _direction = 0
    headers: Headers
    trailers: Headers
    ended = False
    """Whether no body (or no more of it) follows."""
    _held = False
    _resuming = False
    _buffered = False
    _answered = False
    _task: Any = None
    _waiting: Future | None = None
    _body: bytes | None = None

    def body(self) -> Future:
        """The whole body, once it is there: ``await request.body()``.

        The headers go on before it, without ``content-length``: change them first. The body waits for the handler.
        """
        future = Future()
        if self._body is not None:
            future.set(self._body)
        elif self.ended:
            future.set(self._read() if self._buffered else b"")
        else:
            self._waiting = future
            self._forget_length()
            if self._held:
                self._held = False
                host.continue_stream(self._direction)
        return future

    def _forget_length(self) -> None:
        del self.headers["content-length"]

    async def json(self) -> Any:
        """The whole body as JSON. Raises: ValueError."""
        return json.loads(await self.body())

    def _read(self) -> bytes:
        self._body = host.get_buffer(self._direction, 0, EVERYTHING)
        return self._body

    def set_body(self, body: Any) -> None:
        """Replace the body: bytes, text, or what is made JSON. After ``await body()``, or in a handler of the body."""
        data = content(body)
        host.set_buffer(self._direction, 0, EVERYTHING, data)
        self._body = data


class RequestHead(_Message):
    """The request of a stream."""

    headers = Headers(0)
    trailers = Headers(1)

    @property
    def method(self) -> str:
        """The method: ``GET``."""
        return str(self.headers.get(":method", ""))

    @method.setter
    def method(self, value: str) -> None:
        self.headers[":method"] = value

    @property
    def path(self) -> str:
        """Path and query: ``/search?q=x``."""
        return str(self.headers.get(":path", ""))

    @path.setter
    def path(self, value: str) -> None:
        self.headers[":path"] = value

    @property
    def host(self) -> str:
        """The authority: ``example.com:8080``."""
        return str(self.headers.get(":authority", ""))

    @host.setter
    def host(self, value: str) -> None:
        self.headers[":authority"] = value

    @property
    def scheme(self) -> str:
        """``http`` or ``https``."""
        return str(self.headers.get(":scheme", ""))

    @property
    def query(self) -> dict[str, str]:
        """The query's parameters, decoded; of several of one name the last."""
        out = {}
        for part in self.path.partition("?")[2].split("&"):
            name, _, value = part.partition("=")
            if name:
                out[unquote(name)] = unquote(value)
        return out

    @property
    def cookies(self) -> dict[str, str]:
        """The cookies, as they are."""
        out = {}
        for part in str(self.headers.get("cookie", "")).split(";"):
            name, _, value = part.strip().partition("=")
            if name:
                out[name] = value
        return out


Request = RequestHead


class ResponseHead(_Message):
    """The response of a stream."""

    _direction = 1
    headers = Headers(2)
    trailers = Headers(3)

    @property
    def status(self) -> int:
        """The status code: 200."""
        return int(self.headers.get(":status", "0"))

    @status.setter
    def status(self, value: int) -> None:
        self.headers[":status"] = str(value)


def unquote(text: str) -> str:
    """Text of a query, decoded."""
    parts = text.replace("+", " ").split("%")
    out = parts[0].encode()
    for part in parts[1:]:
        try:
            out += bytes([int(part[:2], 16)]) + part[2:].encode()
        except ValueError:
            out += b"%" + part.encode()
    return out.decode()


class Response:
    """An answer of the filter's own: a handler returns it. A body is bytes, text, or what is made JSON."""

    def __init__(
        self, status: int = 200, headers: Mapping = None, body: Any = b"", details: str = "", grpc_status: int = -1
    ) -> None:
        self.status = status
        self.headers = list(headers.items()) if hasattr(headers, "items") else list(headers or [])
        if not isinstance(body, (bytes, str)) and not any(name.lower() == "content-type" for name, _ in self.headers):
            self.headers.append(("content-type", "application/json"))
        self.body = content(body)
        self.details = details
        self.grpc_status = grpc_status

    def _send(self) -> None:
        host.local_response(self.status, self.details, self.body, self.headers, self.grpc_status & 0xFFFFFFFF)
