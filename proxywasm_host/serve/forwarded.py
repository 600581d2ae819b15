"""What a request says of the client it comes from: X-Forwarded-For, X-Forwarded-Proto, X-Request-Id, Forwarded.

Headers that belong to the client's connection alone go no further.

Set before the filters see the request, as Envoy does it (``conn_manager_utility.cc``): with `use_remote_address` the
connection's address is appended (Envoy puts its own in the place of a loopback address), and an X-Forwarded-Proto of
a hop that is not trusted is replaced; without, the headers of the hop before us are believed.
"""

from __future__ import annotations

from collections.abc import MutableMapping
from contextlib import suppress
from ipaddress import ip_address
from typing import Any
from uuid import uuid4

from proxywasm_host.abi.pairs import HeaderList
from proxywasm_host.serve.config import Forwarded

__all__ = ["forward"]

FOR, PROTO, REQUEST_ID, FORWARDED = b"x-forwarded-for", b"x-forwarded-proto", b"x-request-id", b"forwarded"
SCHEMES = (b"http", b"https")
KEPT = frozenset((b"host", b"content-length", b"transfer-encoding"))
"""Without these a request would be another one, whoever names them."""


def forward(scope: MutableMapping[str, Any], settings: Forwarded) -> None:
    """Change headers, scheme and client address of a request."""
    headers: HeaderList = _end_to_end(scope["headers"])
    said = {name: value for name, value in headers if name in (FOR, PROTO, REQUEST_ID)}
    before = b",".join(value for name, value in headers if name == FOR)
    hops = [hop.strip() for hop in before.split(b",") if hop.strip()]
    client = scope["client"][0] if scope.get("client") else ""
    scheme = scope["scheme"].encode()
    if settings.use_remote_address:
        trusted = settings.xff_num_trusted_hops
        origin = hops[-trusted] if 0 < trusted <= len(hops) else b""
        if client:
            _replace(headers, FOR, b"%b,%b" % (before, client.encode()) if before else client.encode())
        if not trusted or PROTO not in said:
            said[PROTO] = scheme
            _replace(headers, PROTO, scheme)
    else:
        trusted = settings.xff_num_trusted_hops + 1
        origin = hops[-trusted] if trusted <= len(hops) else b""
        if PROTO not in said:
            said[PROTO] = scheme
            headers.append((PROTO, scheme))
    if settings.generate_request_id and REQUEST_ID not in said:
        headers.append((REQUEST_ID, str(uuid4()).encode()))
    if settings.rfc7239:
        host = next((value for name, value in headers if name == b"host"), b"")
        element = b"for=%b;host=%b;proto=%b" % (_node(client), _quoted(host), scheme)
        before = b", ".join(value for name, value in headers if name == FORWARDED)
        _replace(headers, FORWARDED, b"%b, %b" % (before, element) if before else element)
    scope["headers"] = headers
    if said[PROTO] in SCHEMES:
        scope["scheme"] = said[PROTO].decode()
    address = _address(origin) if origin else ""
    if address:
        scope["client"] = address, 0


def _end_to_end(headers: HeaderList) -> HeaderList:
    """Headers without those that Connection names (RFC 9110, 7.6.1): ours are set afterwards, and nobody names them."""
    named = {word.strip() for name, value in headers if name == b"connection" for word in value.lower().split(b",")}
    if not named:
        return list(headers)
    named = named - KEPT | {b"connection"}
    return [pair for pair in headers if pair[0] not in named]


def _replace(headers: HeaderList, name: bytes, value: bytes) -> None:
    headers[:] = [pair for pair in headers if pair[0] != name]
    headers.append((name, value))


def _address(hop: bytes) -> str:
    """An address as X-Forwarded-For has it, perhaps with a port; empty if it is not an address."""
    text = hop.decode("latin-1")
    for candidate in (text, text.rpartition(":")[0].strip("[]")):
        with suppress(ValueError):
            return str(ip_address(candidate))
    return ""


def _node(client: str) -> bytes:
    return b'"[%b]"' % client.encode() if ":" in client else client.encode() or b"unknown"


def _quoted(value: bytes) -> bytes:
    return b'"%b"' % value.replace(b"\\", b"").replace(b'"', b"")
