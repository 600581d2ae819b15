"""Converts an ASGI scope to headers for filters, and the filters' result back to a scope.

Filters see the raw path, with its percent-encoding and query. The application sees their changes.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Mapping, MutableMapping
from functools import lru_cache
from typing import Any
from urllib.parse import quote, unquote_to_bytes

from proxywasm_host.abi.values import PropertyValue
from proxywasm_host.integrations.headers import LENGTH, address, addressed
from proxywasm_host.integrations.heads import RequestHead

__all__ = [
    "BODILESS",
    "TARGET",
    "Message",
    "Receive",
    "Scope",
    "ScopeProperties",
    "Send",
    "addressed_by",
    "properties_of",
    "server_address",
    "target",
    "tells_the_end",
    "upstream_scope",
]

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

BODILESS = ("GET", "HEAD", "OPTIONS", "TRACE", "CONNECT", "DELETE")
"""Methods whose requests seldom have a body."""
HTTP_1 = ("1.0", "1.1")
CHUNKED = (b"transfer-encoding", b"chunked")
PAST_FILTERS = ("http.response.pathsend", "http.response.zerocopysend")
"""Extensions that let an application send a body past the filters."""
TARGET = "proxywasm.target"
"""A key in some servers' scopes, with path and query as bytes. Without it, ASGI cannot tell ``/x?`` from ``/x``."""


def target(scope: Scope) -> bytes:
    """Path and query as the client sent them."""
    told: bytes | None = scope.get(TARGET)
    if told is not None:
        return told
    path: bytes = scope.get("raw_path") or quote(scope["path"], safe="/:@!$&'()*+,;=~-._").encode("ascii")
    query: bytes = scope.get("query_string") or b""
    return b"%b?%b" % (path, query) if query and b"?" not in path else path


def server_address(scope: Scope) -> bytes:
    """Host and port of the server, as text for ``host``; empty if unknown."""
    server = scope.get("server")
    return written(server[0], server[1]) if server else b""


@lru_cache(64)
def written(host: str, port: int | None) -> bytes:
    """The text of an address, cached because a server has few."""
    return address((host, port)).encode()


def addressed_by(scope: Scope) -> tuple[bytes, bytes]:
    """The authority and the path that filters will read."""
    method, scheme = scope["method"].encode("latin-1"), scope["scheme"].encode("latin-1")
    return addressed(scope["headers"], method, target(scope), scheme, server_address(scope))


def tells_the_end(scope: Scope) -> bool:
    """Whether the headers tell if a body follows. Otherwise the first part may be empty and the last, as in HTTP/2."""
    return scope["http_version"] in HTTP_1 or any(name == LENGTH for name, _ in scope["headers"])


def upstream_scope(scope: Scope, asked: bytes, head: RequestHead, *, chunked: bool) -> Scope:
    """Make the application's scope from the head that left the filters.

    `asked`: the `target` of the client's request. `chunked`: its body has no length.
    """
    if chunked and not head.end_stream and scope["http_version"] in HTTP_1:
        # As upstream would get it: some applications read a body only if the headers announce one.
        head.headers.append(CHUNKED)
    method, scheme = head.method.decode("ascii"), head.scheme.decode("ascii")
    upstream = {**scope, "method": method, "scheme": scheme, "headers": head.headers}
    if head.path != asked:
        raw, mark, query = head.path.partition(b"?")
        path = unquote_to_bytes(raw).decode("utf-8", "replace")
        upstream.update(path=path, raw_path=raw, query_string=query.partition(b"#")[0])
        if TARGET in scope or (mark and not query):
            upstream[TARGET] = head.path
    extensions = scope.get("extensions")
    if extensions:
        upstream["extensions"] = {name: value for name, value in extensions.items() if name not in PAST_FILTERS}
    return upstream


def _port(peer: Any) -> int:
    if not peer or peer[1] is None:
        raise KeyError
    return int(peer[1])


def _address(peer: Any) -> str:
    if not peer:
        raise KeyError
    return address(peer)


def _tls(scope: Scope) -> Mapping[str, Any]:
    return (scope.get("extensions") or {}).get("tls") or {}


def _tls_version(scope: Scope) -> str:
    version = _tls(scope).get("tls_version")
    if not version:
        raise KeyError
    return {0x0303: "TLSv1.2", 0x0304: "TLSv1.3"}.get(version, hex(version))


def _peer_name(scope: Scope) -> str:
    name = _tls(scope).get("client_cert_name")
    if not name:
        raise KeyError
    return str(name)


PROTOCOLS = {"2": "HTTP/2", "2.0": "HTTP/2", "3": "HTTP/3"}
FIND: dict[str, Callable[[Scope], PropertyValue]] = {
    "source.address": lambda scope: _address(scope.get("client")),
    "source.port": lambda scope: _port(scope.get("client")),
    "destination.address": lambda scope: _address(scope.get("server")),
    "destination.port": lambda scope: _port(scope.get("server")),
    "request.protocol": lambda scope: PROTOCOLS.get(scope["http_version"], f"HTTP/{scope['http_version']}"),
    "connection.mtls": lambda scope: bool(_tls(scope).get("client_cert_chain")),
    "connection.tls_version": _tls_version,
    "connection.subject_peer_certificate": _peer_name,
}
"""Properties that a scope has; the stream derives others from its headers."""


def properties_of(scope: Scope, given: Mapping[str, PropertyValue]) -> ScopeProperties:
    """Make the properties of one request: the embedder's, and those of the scope."""
    properties = ScopeProperties()
    properties._scope = scope
    properties._given = given
    return properties


class ScopeProperties(Mapping[str, PropertyValue]):
    """Properties of one request. Made by `properties_of`."""

    # With slots and no __init__, which would take longer than all other code of this module for a request.
    __slots__ = ("_given", "_scope")

    _given: Mapping[str, PropertyValue]
    _scope: Scope

    def __getitem__(self, name: str) -> PropertyValue:
        if name in self._given:
            return self._given[name]
        return FIND[name](self._scope)

    def __contains__(self, name: object) -> bool:
        try:
            self[name]  # type: ignore[index]
        except KeyError:
            return False
        return True

    def __iter__(self) -> Iterator[str]:
        return (name for name in {**FIND, **self._given} if name in self)

    def __len__(self) -> int:
        return len(list(iter(self)))
