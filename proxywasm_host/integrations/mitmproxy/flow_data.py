"""Converts data of mitmproxy's flows for the exchange, and notes in a flow what filters did."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from mitmproxy import flow as flows
from mitmproxy import http

from proxywasm_host.abi.pairs import HeaderList
from proxywasm_host.abi.values import PropertyValue
from proxywasm_host.integrations.headers import address, addressed

__all__ = [
    "addressed_by",
    "feed",
    "framed",
    "headers_of",
    "may_have_body",
    "pairs",
    "properties",
    "say",
    "say_difference",
    "upgrade_of",
]

FRAMING = (b"content-length", b"transfer-encoding")
UNTOLD = (*FRAMING, b"connection", b"host", b"upgrade")
"""Headers whose changes are not noted, because carriers make them."""


def properties(flow: flows.Flow) -> Mapping[str, PropertyValue]:
    """Properties of a flow's connections, under Envoy's names."""
    known: dict[str, PropertyValue] = {}
    peers = {"source": flow.client_conn.peername, "destination": flow.client_conn.sockname}
    for group, peer in (peers | {"upstream": flow.server_conn.peername or flow.server_conn.address}).items():
        if peer:
            known |= {f"{group}.address": address(peer), f"{group}.port": peer[1]}
    if flow.client_conn.tls_version:
        known["connection.tls_version"] = flow.client_conn.tls_version
    if isinstance(flow, http.HTTPFlow):
        known["request.protocol"] = flow.request.http_version.replace("HTTP/2.0", "HTTP/2")
    return known


def pairs(message: Any) -> HeaderList:
    """Headers or trailers, with names in lower case."""
    return [(name.lower(), value) for name, value in message.fields]


def headers_of(request: http.Request) -> HeaderList:
    """The request's headers, including a Host: the one that it names, or the server that it is sent to."""
    headers = pairs(request.headers)
    if not any(name == b"host" for name, _ in headers):
        headers.insert(0, (b"host", request.data.authority or address((request.host, request.port)).encode()))
    if request.raw_content is not None:  # it is whole, however it was framed
        headers = [pair for pair in headers if pair[0] != b"transfer-encoding"]
    return headers


def may_have_body(request: http.Request) -> bool:
    """Whether a body may follow the head of a request. Headers of HTTP/1 always say so, those of HTTP/2 need not."""
    if "content-length" in request.headers or "transfer-encoding" in request.headers:
        return bool(request.headers.get("content-length") != "0")
    http_2: bool = not request.http_version.startswith("HTTP/1")
    return http_2 and request.method not in ("GET", "HEAD")


def upgrade_of(request: http.Request) -> HeaderList:
    """The headers that request a WebSocket. They are connection-specific, so filters do not see them."""
    wanted = request.headers.get("upgrade", "").lower() == "websocket"
    return [pair for pair in request.headers.fields if wanted and pair[0].lower() in (b"connection", b"upgrade")]


def addressed_by(request: http.Request) -> tuple[bytes, bytes]:
    """The authority and path that filters will see."""
    return addressed(headers_of(request), request.data.method, request.data.path, request.data.scheme, b"")


def feed(
    message: http.Message, body: Callable[[bytes, bool], None], trailers: Callable[[HeaderList], None], data: bytes
) -> None:
    """Feed a part of a message. `data` is empty at the end; a whole message is one part."""
    whole = message.raw_content is not None
    if data:
        body(data, whole and not message.trailers)
    if message.trailers and (whole or not data):
        trailers(pairs(message.trailers))
    elif not data:
        body(b"", True)


def framed(headers: HeaderList, body: bytes | None, *, had: bool, http_1: bool) -> HeaderList:
    """Headers with the length of the body, if the message `had` one. A streamed body (``None``) has no length."""
    rest = [pair for pair in headers if pair[0] not in FRAMING]
    if body is not None:
        return [*rest, (b"content-length", b"%d" % len(body))] if had else rest
    return [*rest, (b"transfer-encoding", b"chunked")] if http_1 else rest


def say(flow: flows.Flow, line: str) -> None:
    """Note a line in the flow's comment, which mitmweb shows, and in its metadata."""
    flow.metadata.setdefault("proxywasm", []).append(line)
    flow.comment = f"{flow.comment}\n{line}".strip()


def say_difference(flow: flows.Flow, what: str, before: HeaderList, after: HeaderList) -> None:
    """Note which headers filters have removed and added."""
    for sign, headers, others in (("-", before, after), ("+", after, before)):
        for name, value in headers:
            if (name, value) not in others and name not in UNTOLD:
                say(flow, f"{what}: {sign}{name.decode('latin-1')}: {value.decode('latin-1')}")
