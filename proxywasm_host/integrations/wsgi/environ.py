"""Converts a WSGI environ to headers for filters, and their result back to an environ."""

from __future__ import annotations

import io
from http import HTTPStatus
from typing import Any
from urllib.parse import quote, unquote_to_bytes

from proxywasm_host.abi.pairs import HeaderList
from proxywasm_host.abi.values import PropertyValue
from proxywasm_host.integrations.exchange import RequestHead
from proxywasm_host.integrations.headers import address, addressed

__all__ = [
    "Environ",
    "addressed_by",
    "properties",
    "request_headers",
    "server_address",
    "status_line",
    "target",
    "text_of",
    "upstream_environ",
]

Environ = dict[str, Any]
UNPREFIXED = ("CONTENT_TYPE", "CONTENT_LENGTH")
RAW_TARGETS = ("RAW_URI", "REQUEST_URI")
"""Where servers keep the request's target as it was on the wire."""


def request_headers(environ: Environ) -> HeaderList:
    """The request's headers, as far as the environ has them."""
    headers = []
    for key, value in environ.items():
        name = key[5:] if key[:5] == "HTTP_" else key if key in UNPREFIXED and value else ""
        if name:
            headers.append((name.lower().replace("_", "-").encode("latin-1"), value.encode("latin-1")))
    return headers


def server_address(environ: Environ) -> bytes:
    """Host and port of the server."""
    return address((environ["SERVER_NAME"], environ["SERVER_PORT"])).encode("latin-1")


def target(environ: Environ) -> bytes:
    """Path and query as they were on the wire, as far as the environ has them."""
    for name in RAW_TARGETS:
        if raw := environ.get(name):
            return bytes(raw.encode("latin-1"))
    path = (environ.get("SCRIPT_NAME", "") + environ.get("PATH_INFO", "")).encode("latin-1")
    query = environ.get("QUERY_STRING", "").encode("latin-1")
    found = quote(path, safe="/:@!$&'()*+,;=~-._").encode() or b"/"
    return b"%b?%b" % (found, query) if query else found


def addressed_by(environ: Environ) -> tuple[bytes, bytes]:
    """The authority and path that filters will see."""
    method, scheme = (environ[name].encode("latin-1") for name in ("REQUEST_METHOD", "wsgi.url_scheme"))
    return addressed(request_headers(environ), method, target(environ), scheme, server_address(environ))


def upstream_environ(environ: Environ, head: RequestHead, body: io.BufferedReader) -> Environ:
    """The application's environ, from the request that came out of the filters."""
    upstream = {key: value for key, value in environ.items() if key[:5] != "HTTP_" and key not in UNPREFIXED}
    for header, value in head.headers:
        key = header.decode("latin-1").upper().replace("-", "_")
        key, text = key if key in UNPREFIXED else f"HTTP_{key}", value.decode("latin-1")
        upstream[key] = f"{upstream[key]}{'; ' if key == 'HTTP_COOKIE' else ','}{text}" if key in upstream else text
    upstream["REQUEST_METHOD"] = head.method.decode("ascii")
    upstream["wsgi.url_scheme"] = head.scheme.decode("ascii")
    upstream["wsgi.input"] = body
    upstream["wsgi.input_terminated"] = True
    if head.path != target(environ):
        raw, _, query = head.path.partition(b"?")
        path, script = unquote_to_bytes(raw).decode("latin-1"), environ.get("SCRIPT_NAME", "")
        inside = path.startswith(f"{script}/") or path == script
        upstream["SCRIPT_NAME"] = script if inside else ""
        upstream["PATH_INFO"] = path[len(script) :] if inside else path
        upstream["QUERY_STRING"] = query.partition(b"#")[0].decode("latin-1")
        for name in RAW_TARGETS:
            if name in environ:
                upstream[name] = head.path.decode("latin-1")
    return upstream


def text_of(headers: HeaderList) -> list[tuple[str, str]]:
    """Headers as text, as in WSGI."""
    return [(name.decode("latin-1"), value.decode("latin-1")) for name, value in headers]


def status_line(status: int) -> str:
    """A status with its reason phrase, as in WSGI."""
    try:
        return f"{status} {HTTPStatus(status).phrase}"
    except ValueError:
        return f"{status} Unknown"


def properties(environ: Environ) -> dict[str, PropertyValue]:
    """Properties of an environ's connection, under Envoy's names."""
    known: dict[str, PropertyValue] = {"request.protocol": environ.get("SERVER_PROTOCOL", "HTTP/1.1")}
    for group, host, port in (("source", "REMOTE_ADDR", "REMOTE_PORT"), ("destination", "SERVER_NAME", "SERVER_PORT")):
        number = str(environ.get(port, ""))
        if environ.get(host):
            known[f"{group}.address"] = address((environ[host], number or None))
        if number.isdigit():
            known[f"{group}.port"] = int(number)
    return known
