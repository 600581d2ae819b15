"""What goes on to the application and to the client: whether it can be sent, and as what.

A filter may make anything of headers, statuses and targets, and an application of its response. What a server could not
send, and would answer with a connection that is cut, is answered 503 here, by both middlewares.
Source: RFC 9110, sections 5.5, 8.6 and 15; RFC 9112, section 3.2.
"""

from __future__ import annotations

from dataclasses import dataclass

from proxywasm_host.abi.pairs import HeaderList
from proxywasm_host.integrations.framing import LENGTH, length_of, lengths_of, with_length
from proxywasm_host.integrations.headers import controls_in, is_token, sendable, sent
from proxywasm_host.runtime.effects import RequestHeaders, ResponseHeaders

__all__ = ["NO_BODY", "UNSENDABLE", "RequestHead", "ResponseHead", "oddities", "request_head", "response_head"]

NO_BODY = (204, 304)
"""Statuses of responses that have no body."""
UNSENDABLE = "answered 503: the %s that came out of the filters cannot be sent: %s"
"""For the log: ``request`` or ``response``, and `oddities`."""


@dataclass(slots=True)
class RequestHead:
    """A request's head for the application. `headers` are without pseudo headers; ``host`` comes first."""

    method: str
    path: bytes
    """With the query."""
    scheme: str
    headers: HeaderList


@dataclass(slots=True)
class ResponseHead:
    """A response's head for the client."""

    status: int
    headers: HeaderList
    ends: bool
    """Nothing follows."""


def request_head(part: RequestHeaders) -> RequestHead | None:
    """What the application gets; ``None`` if HTTP has no form for it."""
    pseudo: dict[bytes, bytes] = {}
    for name, value in part.headers:  # pseudo headers come first
        if name[:1] != b":":
            break
        pseudo[name] = value
    method, path, scheme = pseudo[b":method"], pseudo[b":path"], pseudo.get(b":scheme", b"http")
    host, headers = pseudo.get(b":authority", b""), sent(part.headers)
    if headers is None or controls_in(host):
        return None
    if not (is_token(method) and is_token(scheme) and is_target(path, method)):
        return None
    headers = [(b"host", host), *right_length(headers, ends=part.end_stream)]
    return RequestHead(method.decode("ascii"), path, scheme.decode("ascii"), headers)


def response_head(part: ResponseHeaders, method: str) -> ResponseHead | None:
    """What the client gets, that asked with `method`; ``None`` if it cannot be sent."""
    value = part.headers[0][1]  # of :status
    headers = sent(part.headers)
    if headers is None or len(value) != 3 or not b"200" <= value <= b"599":
        return None
    status = int(value)
    if status in NO_BODY:
        return ResponseHead(status, [pair for pair in headers if pair[0] != LENGTH], True)
    return ResponseHead(status, right_length(headers, ends=part.end_stream and method != "HEAD"), part.end_stream)


def oddities(headers: HeaderList) -> str:
    """Of headers that cannot be sent, those that may be why, cut: pseudo headers, and what HTTP has no form for."""
    odd = [(name[:40], value[:80]) for name, value in headers if name[:1] == b":" or not sendable([(name, value)])]
    return ", ".join(f"{name!r}: {value!r}" for name, value in odd[:8])


def is_target(target: bytes, method: bytes) -> bool:
    """Whether a request with this method can ask for it."""
    if target[:1] != b"/" and (target != b"*" or method != b"OPTIONS"):
        return False
    return not controls_in(target) and b" " not in target and b"#" not in target


def right_length(headers: HeaderList, *, ends: bool) -> HeaderList:
    """Headers without a ``content-length`` that is none, or that says what does not come."""
    lengths = lengths_of(headers)
    if not lengths:
        return headers
    length = length_of(lengths)
    if length is None:
        return [pair for pair in headers if pair[0] != LENGTH]
    return with_length(headers, 0 if ends else length) if ends or len(lengths) > 1 else headers
