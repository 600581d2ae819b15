"""Converts headers of HTTP libraries into those that filters see in Envoy.

Filters see pseudo headers first, ``host`` as ``:authority``, no whitespace around values, and no connection-specific
headers. One pass makes a new list of the headers and finds the length of the body.
Source: ``ConnectionManagerUtility::mutateRequestHeaders`` of Envoy; RFC 9110 and 9112.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from functools import lru_cache
from string import ascii_letters, digits
from typing import Any, NamedTuple

from proxywasm_host.abi.native import NATIVE
from proxywasm_host.abi.pairs import HeaderList

__all__ = [
    "CONNECTION_SPECIFIC",
    "LENGTH",
    "Received",
    "Refused",
    "address",
    "addressed",
    "controls_in",
    "is_token",
    "length_of",
    "number",
    "received_request",
    "received_response",
    "sendable",
]

CONNECTION_SPECIFIC = frozenset(b"connection keep-alive proxy-connection transfer-encoding upgrade expect".split())
RESPONSE_FRAMING = frozenset(b"keep-alive transfer-encoding".split())
"""Headers of a response that no filter sees. Other connection-specific ones are removed when it is sent on."""
LENGTH = b"content-length"
DIGITS = 19
"""Digits that a length may have: a longer one is not a number of bytes."""
TOKEN = b"!#$%&'*+.^_`|~-" + (ascii_letters + digits).encode()
"""Characters of a name (RFC 9110, section 5.6.2)."""
CONTROLS = bytes(byte for byte in range(0x20) if byte != 0x09) + b"\x7f"
"""Bytes that no value may have (RFC 9110, section 5.5). Servers refuse them, each in its own way."""
WHITESPACE = b" \t"
AUTHORITY = re.compile(rb"(?:\[[0-9A-Za-z:.%_~-]+\]|[0-9A-Za-z._~%!$&'()*+;=-]*)(?::[0-9]*)?")
"""A host and its port (RFC 9110, section 7.2). A comma is not allowed, because WSGI servers join two Hosts with it."""
ABSOLUTE = re.compile(rb"[A-Za-z][A-Za-z0-9+.-]*://([^/?#]*)(.*)", re.DOTALL)


class Refused(Exception):
    """A request that is answered at once. No filter sees it, because it is ambiguous or not supported.

    Args:
        status: the status of the answer.
        why: the reason, for the client.
    """

    def __init__(self, status: int, why: str) -> None:
        super().__init__(why)
        self.status = status
        self.why = why


class Received(NamedTuple):
    """A message's headers for the first filter, and the framing of its body."""

    headers: HeaderList
    length: int | None
    """The body's length; ``None`` if the headers give none, or contradict each other."""
    chunked: bool
    """Whether a body of unknown length follows."""
    clean: bool
    """Whether HTTP can express all headers; those of a client may be invalid."""


def received_request(
    headers: Sequence[tuple[bytes, bytes]], method: bytes, target: bytes, scheme: bytes, server: bytes
) -> tuple[HeaderList, int | None, bool, bool]:
    """A request's headers for the first filter, as `Received`; names are in lower case.

    `target` is as on the wire; `server` is the authority if there is no Host. Raises: Refused.
    """
    if NATIVE is not None:
        plain: tuple[HeaderList, int | None, bool, bool] | None
        plain = NATIVE.received_request(headers, method, target, scheme, server)
        if plain is not None:
            return plain
    rest: HeaderList = [(b"", b"")] * 4
    named: set[bytes] = set()
    authority: bytes | None = None
    lengths: list[bytes] = []
    chunked = False
    for name, padded in headers:
        value = padded.strip(WHITESPACE)
        if name == b"host":
            # RFC 9112, 3.2: more than one Host is answered 400.
            if authority is not None:
                raise Refused(400, "more than one Host")
            authority = value
        elif name == b"te":
            if b"trailers" in value.lower():
                rest.append((name, b"trailers"))
        elif name not in CONNECTION_SPECIFIC:
            rest.append((name, value))
            if name == LENGTH:
                lengths.append(value)
        elif name == b"connection":
            named.update(word.strip() for word in value.lower().split(b","))
        elif name == b"transfer-encoding":
            # RFC 9112, 6.1: an unknown transfer coding is answered 501.
            if value.lower() != b"chunked":
                raise Refused(501, "a transfer coding that is not known")
            chunked = True
    if chunked and lengths:  # RFC 9112, 6.3: a sign of request smuggling
        raise Refused(400, "Content-Length beside Transfer-Encoding")
    if target[:1] != b"/":
        authority, target = absolute(method, target, authority)
    if b"#" in target:
        raise Refused(400, "a fragment in the request target")
    if authority is None:
        authority = server
    elif not is_authority(authority):
        raise Refused(400, "an invalid Host")
    named.discard(LENGTH)  # without its length it would be another request
    rest = [pair for pair in rest if pair[0] not in named] if named else rest
    clean = sendable(rest[4:])
    rest[:4] = [(b":authority", authority), (b":path", target), (b":method", method), (b":scheme", scheme)]
    return Received(rest, length_of(lengths), chunked, clean)


def addressed(
    headers: Sequence[tuple[bytes, bytes]], method: bytes, target: bytes, scheme: bytes, server: bytes
) -> tuple[bytes, bytes]:
    """The authority and path that filters will see, both empty if the request is refused.

    The arguments are those of `received_request`.
    """
    try:
        shown = received_request(headers, method, target, scheme, server)[0]
    except Refused:
        return b"", b""
    return shown[0][1], shown[1][1]


def received_response(status: int, headers: Iterable[tuple[bytes, bytes]]) -> tuple[HeaderList, int | None]:
    """A response's headers for the first filter, and the length of its body, as in `Received`."""
    if NATIVE is not None:
        plain: tuple[HeaderList, int | None] | None = NATIVE.received_response(status, headers)
        if plain is not None:
            return plain
    shown: HeaderList = [(b":status", b"%d" % status)]
    lengths: list[bytes] = []
    for given, padded in headers:
        name, value = bytes(given).lower(), bytes(padded).strip(WHITESPACE)
        if name == LENGTH:
            lengths.append(value)
        if name not in RESPONSE_FRAMING:
            shown.append((name, value))
    return shown, length_of(lengths)


def absolute(method: bytes, target: bytes, authority: bytes | None) -> tuple[bytes | None, bytes]:
    """Authority and path of a target that does not begin with a slash (RFC 9112, section 3.2). Raises: Refused."""
    if method == b"CONNECT":
        raise Refused(501, "CONNECT is not implemented")
    found = ABSOLUTE.fullmatch(target)
    if found is not None and found[1]:
        return found[1], found[2] if found[2][:1] == b"/" else b"/" + found[2]
    if target != b"*" or method != b"OPTIONS":
        raise Refused(400, "an invalid request target")
    return authority, target


@lru_cache(1024)
def is_authority(authority: bytes) -> bool:
    """Whether a Host header may have this value."""
    return AUTHORITY.fullmatch(authority) is not None


def length_of(lengths: list[bytes]) -> int | None:
    """The value of all ``content-length`` headers; ``None`` if they differ, are missing, or have no number."""
    return number(lengths[0]) if lengths and lengths.count(lengths[0]) == len(lengths) else None


def number(value: bytes) -> int | None:
    """The value of one ``content-length``; ``None`` if it is not a number of bytes."""
    return int(value) if value.isdigit() and len(value) <= DIGITS else None


def sendable(headers: HeaderList) -> bool:
    """Whether HTTP can express headers; a filter may have set anything, and pseudo headers are not allowed."""
    # All at once, because this runs for each request. A valid name or value has no NUL.
    names = [name for name, _ in headers]
    values = b"\0".join([value for _, value in headers])
    between = len(names) - 1 if names else 0
    return b"\0".join(names).translate(None, TOKEN) == bytes(between) and controls_in(values) == between and all(names)


def controls_in(value: bytes) -> int:
    """The number of bytes that no header's value may have."""
    return len(value) - len(value.translate(None, CONTROLS))


def is_token(text: bytes) -> bool:
    """Whether text is a token, as a method must be."""
    return bool(text) and not text.translate(None, TOKEN)


def address(peer: Any) -> str:
    """The text of a pair of host and port, as Envoy writes it; empty without a pair."""
    if not peer:
        return ""
    host, port = peer[0], peer[1]
    return str(host) if port is None else f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
