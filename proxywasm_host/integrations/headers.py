"""Headers between HTTP libraries and filters, as Envoy has them.

Filters see pseudo headers first, ``host`` as ``:authority``, and nothing that is a matter of one connection only.
Source: ``ConnectionManagerUtility::mutateRequestHeaders`` and ``mutateResponseHeaders`` of Envoy.
"""

from __future__ import annotations

from collections.abc import Iterable
from string import ascii_letters, digits
from typing import Any

from proxywasm_host.abi.pairs import HeaderList

__all__ = ["CONNECTION_SPECIFIC", "address", "for_client", "for_filters", "sendable"]

CONNECTION_SPECIFIC = frozenset(b"connection keep-alive proxy-connection transfer-encoding upgrade expect".split())
TOKEN = b"!#$%&'*+.^_`|~-" + (ascii_letters + digits).encode()
"""What a name is of (RFC 9110, section 5.6.2)."""


def for_filters(
    headers: Iterable[tuple[bytes, bytes]], method: bytes, target: bytes, scheme: bytes, server: bytes
) -> HeaderList:
    """A request's headers for the first filter; names are in lower case. `server` is who was meant if none is named."""
    rest: HeaderList = []
    named: set[bytes] = set()
    authority: bytes | None = None
    for name, value in headers:
        if name == b"host":
            authority = value
        elif name == b"te":
            if b"trailers" in value.lower():
                rest.append((name, b"trailers"))
        elif name not in CONNECTION_SPECIFIC:
            rest.append((name, value))
        elif name == b"connection":
            named.update(word.strip() for word in value.lower().split(b","))
    if named:
        rest = [pair for pair in rest if pair[0] not in named]
    if authority is None:
        authority = server
    return [(b":authority", authority), (b":path", target), (b":method", method), (b":scheme", scheme), *rest]


def for_client(headers: HeaderList) -> HeaderList:
    """A response's headers as they are sent."""
    return [pair for pair in headers if pair[0][:1] != b":" and pair[0] not in CONNECTION_SPECIFIC]


def sendable(headers: HeaderList) -> bool:
    """Whether headers can be put into HTTP: a filter may have made anything of them.

    Pseudo headers are those that `HttpStream` lets out, and no matter of HTTP/1.1.
    """
    # All at once, for this is done twice for each request: a NUL is in no good name or value.
    names = [name for name, _ in headers if name[:1] != b":"]
    values = b"\0".join([value for _, value in headers])
    return (
        all(names)
        and b"\0".join(names).translate(None, TOKEN) == bytes(max(0, len(names) - 1))
        and values.count(b"\0") == max(0, len(headers) - 1)
        and b"\r" not in values
        and b"\n" not in values
    )


def address(peer: Any) -> str:
    """Host and port of a pair of them, as Envoy writes it; empty if there is none."""
    if not peer:
        return ""
    host, port = peer[0], peer[1]
    return str(host) if port is None else f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
