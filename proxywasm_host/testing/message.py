"""Whole requests and responses in the form for filters."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Union
from urllib.parse import urlsplit

from proxywasm_host.abi.hostcalls.headers import joined
from proxywasm_host.abi.pairs import HeaderList
from proxywasm_host.abi.types import MapType

__all__ = ["Message", "Pairs", "Text"]

Text = Union[str, bytes]
Pairs = Iterable[tuple[Text, Text]]

METHOD = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
"""A ``token`` of RFC 9110, section 5.6.2."""
SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
WRITE_A_URL = "write it as http://HOST/PATH, https://HOST/PATH, or /PATH alone"


@dataclass
class Message:
    """A request or a response in the form for filters: pseudo headers first, names in lower case.

    Without trailers, the last of `chunks` has the end of the stream; without both, the headers have it. A body whose
    end comes separately, as with HTTP/1.1, has an empty last chunk.
    """

    headers: HeaderList
    chunks: list[bytes] = field(default_factory=list)
    trailers: HeaderList = field(default_factory=list)
    complete: bool = True
    """For a message from filters: whether its end has arrived."""

    @classmethod
    def request(
        cls,
        method: str = "GET",
        url: str = "http://example.com/",
        headers: Pairs = (),
        chunks: Iterable[bytes] = (),
        trailers: Pairs = (),
        *,
        http1: bool = True,
    ) -> Message:
        """A request as in Envoy: ``:authority``, ``:path``, ``:method``, ``:scheme``, then `headers`.

        `url` may be only a path. ``host`` becomes ``:authority``. A pseudo header in `headers` overrides `method` and
        `url`. Values of a header that may occur only once are joined. With `http1`, a body ends with an empty chunk
        unless trailers follow.

        Raises: ValueError or TypeError, for an invalid method, URL, header or body.
        """
        scheme, authority, path = _parts(_checked(method, url))
        given = _pairs(headers, "headers")
        host = next((value for name, value in given if name == b"host"), authority)
        pseudo = {b":authority": host, b":path": path, b":method": method.encode(), b":scheme": scheme}
        pseudo.update(pair for pair in given if pair[0][:1] == b":")
        rest = [pair for pair in given if pair[0] != b"host" and pair[0] not in pseudo]
        return cls._of([*pseudo.items(), *rest], MapType.REQUEST_HEADERS, chunks, trailers, http1)

    @classmethod
    def response(
        cls,
        status: int = 200,
        headers: Pairs = (),
        chunks: Iterable[bytes] = (),
        trailers: Pairs = (),
        *,
        http1: bool = True,
    ) -> Message:
        """A response as in Envoy. The arguments are those of `request`, and `status` from 100 to 999."""
        if not isinstance(status, int):
            raise TypeError(f"a status is a number, not {status!r}: write Message.response(200, …)")
        if not 100 <= status <= 999:
            raise ValueError(f"{status} is not a status: those are from 100 to 999")
        pairs = [(b":status", b"%d" % status), *_pairs(headers, "headers")]
        return cls._of(pairs, MapType.RESPONSE_HEADERS, chunks, trailers, http1)

    @classmethod
    def _of(cls, headers: HeaderList, map: MapType, chunks: Iterable[bytes], trailers: Pairs, http1: bool) -> Message:
        parts, last = _body(chunks), _pairs(trailers, "trailers")
        if http1 and parts and not last:
            parts.append(b"")
        return cls(joined(headers, map), parts, last)

    @property
    def body(self) -> bytes:
        """All chunks, joined."""
        return b"".join(self.chunks)

    @property
    def status(self) -> int:
        """The status of a response. Raises: ValueError, if it is missing or not a number."""
        return int(self.first(b":status"))

    def first(self, name: bytes) -> bytes:
        """The first value of a header; empty without the header."""
        return next((value for key, value in self.headers if key == name), b"")


def _checked(method: Any, url: Any) -> str:
    """Check method and URL, and return the URL. Raises: TypeError, ValueError."""
    for what, value in (("method", method), ("URL", url)):
        if not isinstance(value, str):
            raise TypeError(f"a {what} is text, not {value!r}: write Message.request('GET', 'http://example.com/')")
    if not METHOD.fullmatch(method):
        if METHOD.fullmatch(url) and url.isupper():
            raise ValueError(f"the method comes first: write Message.request({url!r}, {method!r})")
        raise ValueError(f"{method!r} is not a method: those are GET, POST and the like; the URL comes after it")
    return str(url)


def _parts(url: str) -> tuple[bytes, bytes, bytes]:
    """Scheme, authority and path of a URL. Raises: ValueError."""
    if not url or any(character.isspace() for character in url):
        raise ValueError(f"{url!r} is not a URL: it is empty or has white space in it")
    if url.startswith("/"):
        return b"http", b"example.com", _bytes(url.partition("#")[0])
    whole = url if SCHEME.match(url) else f"http://{url}"
    try:
        parts = urlsplit(whole)
        _ = parts.port
    except ValueError as error:
        raise ValueError(f"{url!r} is not a URL: {error}") from None
    if parts.scheme not in ("http", "https"):
        raise ValueError(f"{url!r} is not a URL of HTTP: {WRITE_A_URL}")
    if not parts.netloc:
        raise ValueError(f"{url!r} is not a URL: it names no host; {WRITE_A_URL}")
    target = whole.partition("#")[0].partition("://")[2][len(parts.netloc) :]
    path = target if target.startswith("/") else f"/{target}"
    return parts.scheme.encode(), _bytes(parts.netloc.rpartition("@")[2]), _bytes(path)


def _pairs(pairs: Any, what: str) -> HeaderList:
    """Check headers or trailers, and return them in the form for filters. Raises: TypeError."""
    if isinstance(pairs, Mapping):
        raise TypeError(
            f"{what} are a list of (name, value) pairs, for a name may come twice: write list(….items()), not a mapping"
        )
    if isinstance(pairs, (str, bytes)) or not isinstance(pairs, Iterable):
        raise TypeError(f"{what} are a list of (name, value) pairs, not {pairs!r}")
    return [_pair(pair, what) for pair in pairs]


def _pair(pair: Any, what: str) -> tuple[bytes, bytes]:
    if not isinstance(pair, (tuple, list)) or [isinstance(part, (str, bytes)) for part in pair] != [True, True]:
        raise TypeError(f"{what} are (name, value) pairs of text or bytes, not {pair!r}: write ('x-name', 'value')")
    return _bytes(pair[0]).lower(), _bytes(pair[1])


def _body(chunks: Any) -> list[bytes]:
    """Check the parts of a body, and return them. Raises: TypeError."""
    if isinstance(chunks, (str, bytes, bytearray, memoryview)) or not isinstance(chunks, Iterable):
        raise TypeError(f"a body is a list of parts, not {chunks!r}: write [b'…'], even for one part")
    parts = list(chunks)
    for part in parts:
        if not isinstance(part, (bytes, bytearray, memoryview)):
            raise TypeError(f"a part of a body is bytes, not {part!r}: write b'…', or encode it")
    return [bytes(part) for part in parts]


def _bytes(text: Text) -> bytes:
    return text.encode("utf-8", "surrogateescape") if isinstance(text, str) else text
