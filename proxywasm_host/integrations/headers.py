"""Converts headers of HTTP libraries into those that filters see in Envoy.

Filters see pseudo headers first, ``host`` as ``:authority``, no whitespace around values, and no headers that concern
one connection only. One pass makes one new list of the headers, and notes the body's length that they give.
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
"""No filter sees these headers of a response. Other headers of one connection are left out when it goes on."""
LENGTH = b"content-length"
DIGITS = 19
"""Of a length: more is not a number of bytes."""
TOKEN = b"!#$%&'*+.^_`|~-" + (ascii_letters + digits).encode()
"""What a name is of (RFC 9110, section 5.6.2)."""
CONTROLS = bytes(byte for byte in range(0x20) if byte != 0x09) + b"\x7f"
"""Bytes that no value may have (RFC 9110, section 5.5). Servers refuse them, each in its own way."""
WHITESPACE = b" \t"
AUTHORITY = re.compile(rb"(?:\[[0-9A-Za-z:.%_~-]+\]|[0-9A-Za-z._~%!$&'()*+;=-]*)(?::[0-9]*)?")
"""A host and its port (RFC 9110, section 7.2). A comma is left out: servers of WSGI join two Hosts with one."""
ABSOLUTE = re.compile(rb"[A-Za-z][A-Za-z0-9+.-]*://([^/?#]*)(.*)", re.DOTALL)


class Refused(Exception):
    """A request that is answered at once. No filter sees it, because it can be understood in several ways.

    Args:
        status: of the answer.
        why: what is wrong, for the client.
    """

    def __init__(self, status: int, why: str) -> None:
        super().__init__(why)
        self.status = status
        self.why = why


class Received(NamedTuple):
    """A message's headers for the first filter, and what they say of its body."""

    headers: HeaderList
    length: int | None
    """The body's; ``None`` if they say none, or several things."""
    chunked: bool
    """Whether they say that a body follows whose length is not known."""
    clean: bool
    """Whether they can all be put into HTTP: a client may send what it has no form for."""


def received_request(
    headers: Sequence[tuple[bytes, bytes]], method: bytes, target: bytes, scheme: bytes, server: bytes
) -> tuple[HeaderList, int | None, bool, bool]:
    """A request's headers for the first filter, as `Received`; names are in lower case.

    `target` is as on the wire; `server` is who was meant if no Host is named. Raises: Refused.
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
            # RFC 9112, 6.1: a coding that is not understood is answered 501.
            if value.lower() != b"chunked":
                raise Refused(501, "a transfer coding that is not known")
            chunked = True
    if chunked and lengths:  # RFC 9112, 6.3: the start of request smuggling
        raise Refused(400, "Content-Length beside Transfer-Encoding")
    if target[:1] != b"/":
        authority, target = absolute(method, target, authority)
    if b"#" in target:
        raise Refused(400, "a fragment in the request target")
    if authority is None:
        authority = server
    elif not is_authority(authority):
        raise Refused(400, "an invalid Host")
    named.discard(LENGTH)  # without it, it would be another request
    rest = [pair for pair in rest if pair[0] not in named] if named else rest
    clean = sendable(rest[4:])
    rest[:4] = [(b":authority", authority), (b":path", target), (b":method", method), (b":scheme", scheme)]
    return Received(rest, length_of(lengths), chunked, clean)


def addressed(
    headers: Sequence[tuple[bytes, bytes]], method: bytes, target: bytes, scheme: bytes, server: bytes
) -> tuple[bytes, bytes]:
    """Authority and path that filters will see, both empty if the request is refused; arguments as of
    `received_request`."""
    try:
        shown = received_request(headers, method, target, scheme, server)[0]
    except Refused:
        return b"", b""
    return shown[0][1], shown[1][1]


def received_response(status: int, headers: Iterable[tuple[bytes, bytes]]) -> tuple[HeaderList, int | None]:
    """A response's headers for the first filter, and the length that they tell, as in `Received`."""
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
    """The length that several ``content-length`` give; ``None`` if they differ, or one is not a number."""
    return number(lengths[0]) if lengths and lengths.count(lengths[0]) == len(lengths) else None


def number(value: bytes) -> int | None:
    """What one says; ``None`` if it is not a number of bytes."""
    return int(value) if value.isdigit() and len(value) <= DIGITS else None


def sendable(headers: HeaderList) -> bool:
    """Whether headers can be put into HTTP, which has no pseudo headers: a filter may have made anything of them."""
    # All at once, for this is done for each request: a NUL is in no good name or value.
    names = [name for name, _ in headers]
    values = b"\0".join([value for _, value in headers])
    between = len(names) - 1 if names else 0
    return b"\0".join(names).translate(None, TOKEN) == bytes(between) and controls_in(values) == between and all(names)


def controls_in(value: bytes) -> int:
    """How many bytes it has that no value may have."""
    return len(value) - len(value.translate(None, CONTROLS))


def is_token(text: bytes) -> bool:
    """Whether text is a token, as a method has to be."""
    return bool(text) and not text.translate(None, TOKEN)


def address(peer: Any) -> str:
    """A pair of host and port as text, as Envoy writes it; empty without one."""
    if not peer:
        return ""
    host, port = peer[0], peer[1]
    return str(host) if port is None else f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
