"""Heads that came out of the filters, checked and ready to be sent to upstream or the client.

A filter may set any headers, statuses and targets, and so may an application in its response. A server would cut the
connection on a message that it cannot send. This module makes no head for such a message, and the client gets 503.
Source: ``mutateResponseHeaders`` of Envoy; RFC 9110, sections 5.5, 8.6 and 15; RFC 9112, section 3.2.
"""

from __future__ import annotations

from dataclasses import dataclass

from proxywasm_host.abi.native import NATIVE
from proxywasm_host.abi.pairs import HeaderList
from proxywasm_host.integrations.headers import (
    CONNECTION_SPECIFIC,
    LENGTH,
    controls_in,
    is_token,
    length_of,
    sendable,
)

__all__ = [
    "NO_BODY",
    "UNSENDABLE",
    "Informational",
    "RequestHead",
    "ResponseHead",
    "request_head",
    "response_head",
    "unsendable_headers",
]

NO_BODY = (204, 304)
"""Statuses of responses that have no body (RFC 9110, section 6.4.1)."""
UNSENDABLE = "answered 503: the %s that came out of the filters cannot be sent: %s"
"""Log message; its arguments are ``request`` or ``response``, and `unsendable_headers`."""
AROUND = b" \t\r\n"
"""Stripped from headers' values out of filters, because configurations and decoded tokens may end with a newline."""


@dataclass(slots=True)
class RequestHead:
    """A request's head for upstream. `headers` has no pseudo headers, and begins with ``host``."""

    method: bytes
    path: bytes
    """Path and query."""
    scheme: bytes
    headers: HeaderList
    end_stream: bool
    """Whether nothing follows."""
    at: int = -1
    """Index of ``content-length`` in the headers; -1 if it is missing."""


@dataclass(slots=True)
class ResponseHead:
    """A response's head for the client."""

    status: int
    headers: HeaderList
    end_stream: bool
    """Whether nothing follows."""
    at: int = -1
    """Index of ``content-length`` in the headers; -1 if it is missing."""


@dataclass(slots=True)
class Informational:
    """A head with status 1xx, before the response's. Filters do not see it."""

    status: int
    headers: HeaderList


def request_head(headers: HeaderList, end_stream: bool) -> RequestHead | None:
    """The head for upstream, from headers that came out of the filters; ``None`` if HTTP cannot express it."""
    plain = None if NATIVE is None else NATIVE.sent_request(headers)
    if plain is not None:
        method, path, scheme, pairs, at = plain
        return RequestHead(method, path, scheme, pairs, end_stream, at)
    pseudo: dict[bytes, bytes] = {}
    for name, value in headers:  # pseudo headers come first
        if name[:1] != b":":
            break
        pseudo[name] = value
    method, path, scheme = pseudo[b":method"], pseudo[b":path"], pseudo.get(b":scheme", b"http")
    host, rest = pseudo.get(b":authority", b""), for_wire(headers)
    if not sendable(rest) or controls_in(host):
        return None
    if not (is_token(method) and is_token(scheme) and is_target(path, method)):
        return None
    rest.insert(0, (b"host", host))
    return RequestHead(method, path, scheme, rest, end_stream, one_length(rest))


def response_head(headers: HeaderList, end_stream: bool) -> ResponseHead | None:
    """The head for the client, from headers that came out of the filters; ``None`` if it cannot be sent."""
    plain = None if NATIVE is None else NATIVE.sent_response(headers)
    if plain is not None:
        status, pairs, at = plain
        return ResponseHead(status, pairs, end_stream, at)
    value = headers[0][1]  # of :status
    rest = for_wire(headers)
    if not sendable(rest) or len(value) != 3 or not b"200" <= value <= b"599":
        return None
    return ResponseHead(int(value), rest, end_stream, one_length(rest))


def for_wire(headers: HeaderList) -> HeaderList:
    """Headers out of the filters, without pseudo headers and connection-specific ones."""
    rest = [(name, value.strip(AROUND)) for name, value in headers if name[:1] != b":"]
    if CONNECTION_SPECIFIC.isdisjoint([name for name, _ in rest]):
        return rest
    named = {word.strip() for name, value in rest if name == b"connection" for word in value.lower().split(b",")}
    return [pair for pair in rest if pair[0] not in CONNECTION_SPECIFIC and pair[0] not in named]


def trailers_for_wire(trailers: HeaderList) -> HeaderList:
    """Trailers out of the filters, without those that cannot be sent."""
    return [pair for pair in for_wire(trailers) if sendable([pair])]


def one_length(headers: HeaderList) -> int:
    """Keep one of several ``content-length`` headers, emptied if they differ. Returns its index, or -1."""
    places = [at for at, (name, _) in enumerate(headers) if name == LENGTH]
    if not places:
        return -1
    if length_of([headers[at][1] for at in places]) is None:
        headers[places[0]] = (LENGTH, b"")
    for at in reversed(places[1:]):
        del headers[at]
    return places[0]


def is_target(target: bytes, method: bytes) -> bool:
    """Whether a request with this method can have this target."""
    if target[:1] != b"/" and (target != b"*" or method != b"OPTIONS"):
        return False
    return not controls_in(target) and b" " not in target and b"#" not in target


def unsendable_headers(headers: HeaderList) -> str:
    """Shortened text of the headers that prevent sending: pseudo headers, and those that HTTP cannot express."""
    odd = [(name[:40], value[:80]) for name, value in headers if name[:1] == b":" or not sendable([(name, value)])]
    return ", ".join(f"{name!r}: {value!r}" for name, value in odd[:8])
