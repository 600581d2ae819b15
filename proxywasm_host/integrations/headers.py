"""Headers between HTTP libraries and filters, as Envoy has them.

Filters see pseudo headers first, ``host`` as ``:authority``, no whitespace around values, and nothing that is a matter
of one connection only.
Source: ``ConnectionManagerUtility::mutateRequestHeaders`` and ``mutateResponseHeaders`` of Envoy; RFC 9110 and 9112.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from string import ascii_letters, digits
from typing import Any

from proxywasm_host.abi.native import NATIVE
from proxywasm_host.abi.pairs import HeaderList

__all__ = [
    "AROUND",
    "CONNECTION_SPECIFIC",
    "Refused",
    "address",
    "controls_in",
    "for_filters",
    "for_wire",
    "is_token",
    "sendable",
    "sent",
]

CONNECTION_SPECIFIC = frozenset(b"connection keep-alive proxy-connection transfer-encoding upgrade expect".split())
TOKEN = b"!#$%&'*+.^_`|~-" + (ascii_letters + digits).encode()
"""What a name is of (RFC 9110, section 5.6.2)."""
CONTROLS = bytes(byte for byte in range(0x20) if byte != 0x09) + b"\x7f"
"""What no value may have (RFC 9110, section 5.5). Servers refuse it, each in its own way."""
WHITESPACE = b" \t"
AROUND = b" \t\r\n"
"""What is left out around a value that a filter made: configurations end with a line, and tokens that were decoded."""
AUTHORITY = re.compile(rb"(?:\[[0-9A-Za-z:.%_~-]+\]|[0-9A-Za-z._~%!$&'()*+;=-]*)(?::[0-9]*)?")
"""A host and its port (RFC 9110, section 7.2). A comma is left out: servers of WSGI join two Hosts with one."""
ABSOLUTE = re.compile(rb"[A-Za-z][A-Za-z0-9+.-]*://([^/?#]*)(.*)", re.DOTALL)


class Refused(Exception):
    """A request that is answered at once: no filter may be shown it, for it can be understood in several ways.

    Args:
        status: of the answer.
        why: what is wrong, for the client.
    """

    def __init__(self, status: int, why: str) -> None:
        super().__init__(why)
        self.status = status
        self.why = why

    @property
    def headers(self) -> HeaderList:
        """Of the answer."""
        return [(b"content-type", b"text/plain"), (b"content-length", b"%d" % len(self.body))]

    @property
    def body(self) -> bytes:
        """Of the answer."""
        return self.why.encode()


def for_filters(
    headers: Sequence[tuple[bytes, bytes]], method: bytes, target: bytes, scheme: bytes, server: bytes
) -> HeaderList:
    """A request's headers for the first filter; names are in lower case. `server` is who was meant if none is named.

    Raises: Refused.
    """
    rest, authority = received(headers)
    if target[:1] != b"/":
        authority, target = absolute(method, target, authority)
    if b"#" in target:
        raise Refused(400, "a fragment in the request target")
    if authority is None:
        authority = server
    elif not is_authority(authority):
        raise Refused(400, "an invalid Host")
    return [(b":authority", authority), (b":path", target), (b":method", method), (b":scheme", scheme), *rest]


def received(headers: Sequence[tuple[bytes, bytes]]) -> tuple[HeaderList, bytes | None]:
    """Headers that are not a matter of one connection, and what Host says. Raises: Refused."""
    plain: tuple[HeaderList, bytes | None] | None = None if NATIVE is None else NATIVE.received(headers)
    if plain is not None:
        return plain
    rest: HeaderList = []
    named: set[bytes] = set()
    authority: bytes | None = None
    for name, padded in headers:
        value = padded.strip(WHITESPACE)
        if name == b"host":
            if authority is not None:
                raise Refused(400, "more than one Host")
            authority = value
        elif name == b"te":
            if b"trailers" in value.lower():
                rest.append((name, b"trailers"))
        elif name not in CONNECTION_SPECIFIC:
            rest.append((name, value))
        elif name == b"connection":
            named.update(word.strip() for word in value.lower().split(b","))
        elif name == b"transfer-encoding":
            if value.lower() != b"chunked":
                raise Refused(501, "a transfer coding that is not known")
            if any(name == b"content-length" for name, _ in headers):
                raise Refused(400, "Content-Length beside Transfer-Encoding")
    named.discard(b"content-length")  # without it, it would be another request
    return [pair for pair in rest if pair[0] not in named] if named else rest, authority


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


def sent(headers: HeaderList) -> HeaderList | None:
    """Headers that have come out of the filters, as `for_wire` gives them; ``None`` if they are not `sendable`."""
    plain: HeaderList | None = None if NATIVE is None else NATIVE.sent(headers)
    if plain is not None:
        return plain
    rest = for_wire(headers)
    return rest if sendable(rest) else None


def for_wire(headers: HeaderList) -> HeaderList:
    """Headers that have come out of the filters, without pseudo headers and what is a matter of one connection."""
    rest = [(name, value.strip(AROUND)) for name, value in headers if name[:1] != b":"]
    if CONNECTION_SPECIFIC.isdisjoint([name for name, _ in rest]):
        return rest
    named = {word.strip() for name, value in rest if name == b"connection" for word in value.lower().split(b",")}
    return [pair for pair in rest if pair[0] not in CONNECTION_SPECIFIC and pair[0] not in named]


def sendable(headers: HeaderList) -> bool:
    """Whether headers can be put into HTTP, which has no pseudo headers: a filter may have made anything of them."""
    # All at once, for this is done twice for each request: a NUL is in no good name or value.
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
    """Host and port of a pair of them, as Envoy writes it; empty if there is none."""
    if not peer:
        return ""
    host, port = peer[0], peer[1]
    return str(host) if port is None else f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
