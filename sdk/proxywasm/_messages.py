"""Requests and responses, with their headers and bodies."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from proxywasm._host import Headers, HostError, host
from proxywasm._tasks import Future, content, pairs

if TYPE_CHECKING:
    from proxywasm._types import HeadersLike

__all__ = ["Headers", "Request", "RequestHead", "Response", "ResponseHead"]

EVERYTHING = 0x7FFFFFFF


class HeadersThatWentOn:
    """A read-only copy of headers that the host has sent on."""

    def __init__(self, pairs: list[tuple[str, str]]) -> None:
        self._pairs = pairs

    def get(self, name: str, default: Any = None, /) -> Any:
        """The value of a header, or `default`. Several values are joined by commas."""
        values = self.get_all(name)
        return ",".join(values) if values else default

    def get_all(self, name: str, /) -> list[str]:
        """The values of all headers with a name."""
        name = name.lower()
        return [value for key, value in self._pairs if key.lower() == name]

    def __getitem__(self, name: str) -> str:
        value: str | None = self.get(name)
        if value is None:
            raise KeyError(name)
        return value

    def __contains__(self, name: str) -> bool:
        return bool(self.get_all(name))

    def items(self) -> list[tuple[str, str]]:
        """All headers in order, as (name, value)."""
        return list(self._pairs)

    def keys(self) -> list[str]:
        """All names, in order."""
        return [name for name, _ in self._pairs]

    def values(self) -> list[str]:
        """All values, in order."""
        return [value for _, value in self._pairs]

    def __iter__(self) -> Any:
        return iter(self.keys())

    def __len__(self) -> int:
        return len(self._pairs)

    def __repr__(self) -> str:
        return "Headers(%r)" % (self._pairs,)

    def _refuse(self, *arguments: Any) -> Any:
        raise HostError(2, "these headers have gone on: change them before you await the body")

    __setitem__ = __delitem__ = add = pop = update = replace = _refuse


class _Message:
    """The base of requests (`_direction` is 0) and responses (1)."""

    _direction = 0
    headers: Headers | HeadersThatWentOn
    trailers: Headers
    ended = False
    """Whether no body, or no more of it, follows."""
    _held = False
    _resuming = False
    _buffered = False
    _answered = False
    _task: Any = None
    _waiting: Future[bytes] | None = None
    _body: bytes | None = None

    def body(self) -> Future[bytes]:
        """The whole body, to be awaited: ``await request.body()``.

        The host sends the headers on first, without ``content-length``: change them before you call this; afterwards
        they can only be read. The body waits for the handler.
        """
        future: Future[bytes] = Future()
        if self._body is not None:
            future.set(self._body)
        elif self.ended:
            future.set(self._read() if self._buffered else b"")
        else:
            self._waiting = future
            self._forget_length()
            self.headers = HeadersThatWentOn(self.headers.items())
            if self._held:
                self._held = False
                host.continue_stream(self._direction)
        return future

    def reset(self) -> None:
        """Reset the stream: the client gets no response, or an incomplete one."""
        host.close_stream(self._direction)

    def _forget_length(self) -> None:
        del self.headers["content-length"]

    async def json(self) -> Any:
        """The whole body as JSON. Raises: ValueError."""
        return json.loads(await self.body())

    def _read(self) -> bytes:
        self._body = host.get_buffer(self._direction, 0, EVERYTHING)
        return self._body

    def set_body(self, body: Any) -> None:
        """Replace the body by bytes, text, or a value to encode as JSON.

        Call it after ``await body()``, or in a handler of the body.
        """
        data = content(body)
        host.set_buffer(self._direction, 0, EVERYTHING, data)
        self._body = data


class RequestHead(_Message):
    """The request of a stream."""

    headers: Headers | HeadersThatWentOn = Headers(0)
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
        """The decoded parameters of the query; of several with one name, the last."""
        out = {}
        for part in self.path.partition("?")[2].split("&"):
            name, _, value = part.partition("=")
            if name:
                out[unquote(name)] = unquote(value)
        return out

    @property
    def cookies(self) -> dict[str, str]:
        """The cookies, not decoded."""
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
    headers: Headers | HeadersThatWentOn = Headers(2)
    trailers = Headers(3)

    @property
    def status(self) -> int:
        """The status code: 200."""
        return int(self.headers.get(":status", "0"))

    @status.setter
    def status(self, value: int) -> None:
        self.headers[":status"] = str(value)


def unquote(text: str) -> str:
    """Decode text of a query."""
    parts = text.replace("+", " ").split("%")
    out = parts[0].encode()
    for part in parts[1:]:
        try:
            out += bytes([int(part[:2], 16)]) + part[2:].encode()
        except ValueError:
            out += b"%" + part.encode()
    return out.decode()


class Response:
    """A response that a handler returns to answer the request itself. `body` is bytes, text, or a value for JSON."""

    def __init__(
        self, status: int = 200, headers: HeadersLike = None, body: Any = b"", details: str = "", grpc_status: int = -1
    ) -> None:
        self.status = status
        self.headers = pairs(headers)
        if not isinstance(body, (bytes, str)) and not any(name.lower() == "content-type" for name, _ in self.headers):
            self.headers.append(("content-type", "application/json"))
        self.body = content(body)
        self.details = details
        self.grpc_status = grpc_status

    def _send(self) -> None:
        host.local_response(self.status, self.details, self.body, self.headers, self.grpc_status & 0xFFFFFFFF)
