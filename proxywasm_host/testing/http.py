"""Requests and responses for tests, as text, with bodies as bytes.

Messages from filters have the same classes, so you can compare them.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Union

from proxywasm_host.abi.pairs import HeaderList
from proxywasm_host.testing.message import Message

__all__ = ["Headers", "HeadersLike", "Request", "Response", "in_chunks", "response_of", "sse"]

HeadersLike = Union["Headers", Mapping[str, str], Iterable[tuple[str, str]]]
SHOWN = 200
"""Maximum bytes of a body in a repr."""


class Headers:
    """Headers in order. A name may occur several times, and look-ups ignore case.

    ``headers["x"]`` is the value, or several joined by commas. Headers are equal to a mapping or list of pairs with the
    same names and values; order matters only among values of one name. They do not include pseudo headers (``:path``).
    """

    def __init__(self, pairs: HeadersLike = ()) -> None:
        self.pairs = [(name.lower(), value) for name, value in _items(pairs)]

    def get_all(self, name: str) -> list[str]:
        """All values of a header, in order."""
        return [value for key, value in self.pairs if key == name.lower()]

    def get(self, name: str, default: str | None = None) -> str | None:
        """The values of a header, joined by ``", "``; `default` without the header."""
        values = self.get_all(name)
        return ", ".join(values) if values else default

    def __getitem__(self, name: str) -> str:
        value = self.get(name)
        if value is None:
            there = ", ".join(dict.fromkeys(key for key, _ in self.pairs)) or "no header at all"
            raise KeyError(f"no header {name!r}; there is {there}")
        return value

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and bool(self.get_all(name))

    def __iter__(self) -> Iterator[str]:
        return iter(dict.fromkeys(name for name, _ in self.pairs))

    def __len__(self) -> int:
        return len(self.pairs)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Headers):
            if not isinstance(other, (Mapping, list, tuple)):
                return NotImplemented
            other = Headers(other)
        # The sort is stable, so values of one name keep their order.
        return sorted(self.pairs, key=_name) == sorted(other.pairs, key=_name)

    __hash__ = None  # type: ignore[assignment]

    def lines(self) -> list[str]:
        """Lines ``name: value``, sorted by name, for output and comparison."""
        return [f"{name}: {value}" for name, value in sorted(self.pairs, key=_name)]

    def __repr__(self) -> str:
        return f"Headers({self.pairs!r})"


def _name(pair: tuple[str, str]) -> str:
    return pair[0]


def _items(pairs: Any) -> list[tuple[str, str]]:
    """Check headers, and return them as pairs of text. Raises: TypeError."""
    if isinstance(pairs, Headers):
        return pairs.pairs
    listed = list(pairs.items() if isinstance(pairs, Mapping) else pairs)
    for pair in listed:
        if not isinstance(pair, (tuple, list)) or [isinstance(part, str) for part in pair] != [True, True]:
            raise TypeError(f"headers are (name, value) pairs of text, not {pair!r}: write {{'x-name': 'value'}}")
    return [(name, value) for name, value in listed]


def in_chunks(body: bytes, size: int | None) -> list[bytes]:
    """A body in parts of `size` bytes, or in one part if `size` is ``None``. An empty body has no parts."""
    if size is not None and size < 1:
        raise ValueError(f"a chunk has one byte at least, not {size}")
    size = size or len(body) or 1
    return [body[at : at + size] for at in range(0, len(body), size)]


@dataclass(init=False, eq=False)
class _Whole:
    """Base class of requests and responses."""

    headers: Headers
    chunks: list[bytes] = field(default_factory=list)
    trailers: Headers = field(default_factory=Headers)
    complete: bool = True
    """For a message from filters: whether its end has arrived."""

    def _fill(
        self,
        headers: HeadersLike,
        body: bytes | str | Iterable[bytes],
        chunks: Iterable[bytes] | None,
        chunk_size: int | None,
        trailers: HeadersLike,
        data: Any = None,
    ) -> None:
        self.headers, self.trailers, self.complete = Headers(headers), Headers(trailers), True
        if data is not None:
            if body or chunks is not None:
                raise TypeError("give a body only once, as body=, chunks= or json=")
            body = json.dumps(data)
            if "content-type" not in self.headers:
                self.headers.pairs.append(("content-type", "application/json"))
        whole = body.encode() if isinstance(body, str) else body
        if not isinstance(whole, (bytes, bytearray, memoryview)):
            raise TypeError(f"a body is bytes or text, not {body!r}: write json=…, or chunks=[b'…']")
        self.chunks = in_chunks(bytes(whole), chunk_size) if chunks is None else list(chunks)

    @property
    def body(self) -> bytes:
        """The whole body."""
        return b"".join(self.chunks)

    @property
    def text(self) -> str:
        """The body as text; bytes that are not UTF-8 are escaped."""
        return self.body.decode("utf-8", "backslashreplace")

    def json(self) -> Any:
        """The body as JSON. Raises: ValueError."""
        return json.loads(self.body)

    def events(self) -> list[Any]:
        """The data of each server-sent event, parsed if it is JSON, else as text; the reverse of `sse`."""
        found: list[Any] = []
        for event in self.text.replace("\r\n", "\n").split("\n\n"):
            lines = [line.removeprefix("data:").removeprefix(" ") for line in event.split("\n") if line[:5] == "data:"]
            text = "\n".join(lines)
            try:
                found += [json.loads(text)] if lines else []
            except ValueError:
                found.append(text)
        return found

    def _start(self) -> str:
        raise NotImplementedError

    def lines(self) -> list[str]:
        """The whole message with one header per line, for output and comparison."""
        body = [*self.text.splitlines()] if self.chunks else []
        end = [] if self.complete else ["(its end never came)"]
        return [
            self._start(),
            *self.headers.lines(),
            "",
            *body,
            *(["", *self.trailers.lines()] if len(self.trailers) else []),
            *end,
        ]

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and self.lines() == other.lines() and self.body == other.body

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        parts = [self._start()]
        parts += [f"{name}: {value}" for name, value in self.headers.pairs]
        body = self.body
        if body:
            parts.append(f"body {body[:SHOWN]!r}{f'… ({len(body)} bytes)' if len(body) > SHOWN else ''}")
        if not self.complete:
            parts.append("its end never came")
        return f"<{type(self).__name__} {'; '.join(parts)}>"


class Request(_Whole):
    """A request. `url` may be only a path; then the host is ``example.com``."""

    def __init__(
        self,
        method: str = "GET",
        url: str = "/",
        headers: HeadersLike = (),
        body: bytes | str = b"",
        *,
        chunks: Iterable[bytes] | None = None,
        chunk_size: int | None = None,
        trailers: HeadersLike = (),
        json: Any = None,
    ) -> None:
        """The body is `chunks`, part by part, or else `body` or `json` in parts of `chunk_size`.

        Raises: TypeError, ValueError.
        """
        self._fill(headers, body, chunks, chunk_size, trailers, json)
        pseudo = dict(Message.request(method, url, self.headers.pairs).headers)
        self.method, self.path, self.authority, self.scheme = (
            _text(pseudo[name]) for name in (b":method", b":path", b":authority", b":scheme")
        )
        self.headers = Headers([pair for pair in self.headers.pairs if pair[0] != "host" and pair[0][:1] != ":"])

    @classmethod
    def of(
        cls, pairs: HeaderList, body: bytes = b"", trailers: Iterable[tuple[bytes, bytes]] = (), complete: bool = True
    ) -> Request:
        """A request from `pairs` with pseudo headers, as filters and callouts have them."""
        self = cls.__new__(cls)
        known, headers = _parted(pairs)
        self._fill(headers, body, None, None, _decoded(trailers))
        self.method, self.path = known.get(":method", ""), known.get(":path", "")
        self.authority, self.scheme = known.get(":authority", ""), known.get(":scheme", "")
        self.complete = complete
        return self

    @property
    def pairs(self) -> HeaderList:
        """Headers in the form for filters."""
        pseudo = zip(
            (":authority", ":path", ":method", ":scheme"),
            (self.authority, self.path, self.method, self.scheme),
            strict=True,
        )
        return [*encoded(pseudo), *encoded(self.headers.pairs)]

    def _start(self) -> str:
        return f"{self.method} {self.scheme or 'http'}://{self.authority}{self.path}"


class Response(_Whole):
    """A response."""

    def __init__(
        self,
        status: int = 200,
        headers: HeadersLike = (),
        body: bytes | str = b"",
        *,
        chunks: Iterable[bytes] | None = None,
        chunk_size: int | None = None,
        trailers: HeadersLike = (),
        json: Any = None,
    ) -> None:
        """The arguments are those of a `Request`, and `status` from 100 to 999. Raises: TypeError, ValueError."""
        self._fill(headers, body, chunks, chunk_size, trailers, json)
        self.status = Message.response(status).status

    @classmethod
    def of(
        cls, pairs: HeaderList, body: bytes = b"", trailers: Iterable[tuple[bytes, bytes]] = (), complete: bool = True
    ) -> Response:
        """A response from `pairs` with ``:status``, and a body."""
        self = cls.__new__(cls)
        known, headers = _parted(pairs)
        self._fill(headers, body, None, None, _decoded(trailers))
        status = known.get(":status", "")
        self.status = int(status) if status.isdigit() else 0
        self.complete = complete
        return self

    @property
    def pairs(self) -> HeaderList:
        """Headers in the form for filters."""
        return [(b":status", b"%d" % self.status), *encoded(self.headers.pairs)]

    def _start(self) -> str:
        return f"status {self.status}"


def response_of(answer: Any, what: str) -> Response:
    """A response from a response, a status or a body. Raises: TypeError."""
    if isinstance(answer, Response):
        return answer
    if isinstance(answer, int) and not isinstance(answer, bool):
        return Response(answer)
    if isinstance(answer, (bytes, str)):
        return Response(200, body=answer)
    raise TypeError(f"{what} answers with a Response, a status or a body, not {answer!r}: write Response(200, …)")


def sse(*events: object, chunk_size: int | None = None, done: str = "[DONE]", headers: HeadersLike = ()) -> Response:
    """A response with server-sent events, as streamed by language models.

    Args:
        events: the data of each event: text, unchanged; anything else as JSON.
        chunk_size: bytes of each chunk; by default each event is a chunk.
        done: data of the last event; empty for none.
    """
    told = [event if isinstance(event, str) else json.dumps(event) for event in (*events, *([done] if done else []))]
    parts = ["".join(f"data: {line}\n" for line in text.split("\n")).encode() + b"\n" for text in told]
    chunks = parts if chunk_size is None else in_chunks(b"".join(parts), chunk_size)
    return Response(200, [("content-type", "text/event-stream"), *_items(headers)], chunks=chunks)


# -- Text and bytes ----------------------------------------------------------------------------------------------------


def _text(value: bytes) -> str:
    return value.decode("utf-8", "surrogateescape")


def _decoded(pairs: Iterable[tuple[bytes, bytes]]) -> list[tuple[str, str]]:
    return [(_text(name), _text(value)) for name, value in pairs]


def encoded(pairs: Iterable[tuple[str, str]]) -> HeaderList:
    """Pairs in the form for filters."""
    return [
        (name.encode("utf-8", "surrogateescape"), value.encode("utf-8", "surrogateescape")) for name, value in pairs
    ]


def _parted(pairs: Iterable[tuple[bytes, bytes]]) -> tuple[dict[str, str], list[tuple[str, str]]]:
    """Pseudo headers by name, and the other headers."""
    decoded = _decoded(pairs)
    return {name: value for name, value in decoded if name[:1] == ":"}, [pair for pair in decoded if pair[0][:1] != ":"]
