"""Properties (attributes) of a stream: what ``proxy_get_property`` finds, and where.

Looked up in this order: what the embedder gave for the stream, what the stream itself knows (the table below), what
filters stored, the plugin's own, and what the embedder gave for the whole host.

Source: ``attributes.rst`` and ``findValue`` in ``context.cc`` of Envoy.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING

from proxywasm_host.abi.pairs import HeaderList
from proxywasm_host.abi.values import PropertyValue
from proxywasm_host.runtime.path import REQUEST, RESPONSE

if TYPE_CHECKING:
    from proxywasm_host.runtime.http import HttpStream
    from proxywasm_host.runtime.plugin import Plugin

__all__ = ["ALIASES", "STREAM_PROPERTIES", "lookup", "stream_property"]

EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)

ALIASES = {
    "node": "xds.node",
    "cluster_name": "xds.cluster_name",
    "cluster_metadata": "xds.cluster_metadata",
    "listener_direction": "xds.listener_direction",
    "listener_metadata": "xds.listener_metadata",
    "route_name": "xds.route_name",
    "route_metadata": "xds.route_metadata",
    "upstream_host_metadata": "xds.upstream_host_metadata",
}
"""Names of older Envoys and of Higress, and what they are called today."""


def _header(direction: int, name: bytes) -> Callable[[HttpStream], PropertyValue]:
    def find(stream: HttpStream) -> PropertyValue:
        for key, value in stream.path(direction).headers:
            if key == name:
                return value
        raise LookupError(name)

    return find


def _map(headers: HeaderList | None) -> dict[str, bytes]:
    """Headers as a mapping; several values of one name are joined with a comma."""
    if headers is None:
        raise LookupError
    joined: dict[str, bytes] = {}
    for name, value in headers:
        key = name.decode("latin-1")
        joined[key] = b"%b,%b" % (joined[key], value) if key in joined else value
    return joined


def _url_path(stream: HttpStream) -> PropertyValue:
    return bytes(_header(REQUEST, b":path")(stream)).partition(b"?")[0]  # type: ignore[arg-type]


def _query(stream: HttpStream) -> PropertyValue:
    return bytes(_header(REQUEST, b":path")(stream)).partition(b"?")[2].partition(b"#")[0]  # type: ignore[arg-type]


def _size(direction: int) -> Callable[[HttpStream], PropertyValue]:
    def size(stream: HttpStream) -> PropertyValue:
        path = stream.path(direction)
        for key, value in path.headers:
            if key == b"content-length" and value.isdigit() and direction == REQUEST:
                return int(value)
        return path.received

    return size


def _total_size(direction: int) -> Callable[[HttpStream], PropertyValue]:
    def total(stream: HttpStream) -> PropertyValue:
        path = stream.path(direction)
        return path.received + sum(len(k) + len(v) for k, v in [*path.headers, *(path.trailers or ())])

    return total


def _response(find: Callable[[HttpStream], PropertyValue]) -> Callable[[HttpStream], PropertyValue]:
    """A property that is not there before the response is."""

    def found(stream: HttpStream) -> PropertyValue:
        if not stream.response_started:
            raise LookupError
        return find(stream)

    return found


def _code(stream: HttpStream) -> PropertyValue:
    return int(bytes(_header(RESPONSE, b":status")(stream)))  # type: ignore[arg-type]


def _grpc_status(stream: HttpStream) -> PropertyValue:
    path = stream.path(RESPONSE)
    for headers in (path.trailers or [], path.headers):
        for key, value in headers:
            if key == b"grpc-status" and value.isdigit():
                return int(value)
    raise LookupError


def _duration(stream: HttpStream) -> PropertyValue:
    if not stream.closed:
        raise LookupError
    return timedelta(microseconds=(stream.host.services.clock.time_ns() - stream.started_ns) / 1000)


STREAM_PROPERTIES: dict[str, Callable[[HttpStream], PropertyValue]] = {
    "request.path": _header(REQUEST, b":path"),
    "request.url_path": _url_path,
    "request.query": _query,
    "request.host": _header(REQUEST, b":authority"),
    "request.scheme": _header(REQUEST, b":scheme"),
    "request.method": _header(REQUEST, b":method"),
    "request.referer": _header(REQUEST, b"referer"),
    "request.useragent": _header(REQUEST, b"user-agent"),
    "request.id": _header(REQUEST, b"x-request-id"),
    "request.headers": lambda stream: _map(stream.path(REQUEST).headers),
    "request.time": lambda stream: EPOCH + timedelta(microseconds=stream.started_ns // 1000),
    "request.duration": _duration,
    "request.size": _size(REQUEST),
    "request.total_size": _total_size(REQUEST),
    "response.code": _response(_code),
    "response.code_details": _response(lambda stream: stream.details),
    "response.flags": _response(lambda stream: 0),
    "response.grpc_status": _response(_grpc_status),
    "response.headers": _response(lambda stream: _map(stream.path(RESPONSE).headers)),
    "response.trailers": _response(lambda stream: _map(stream.path(RESPONSE).trailers or [])),
    "response.size": _response(_size(RESPONSE)),
    "response.total_size": _response(_total_size(RESPONSE)),
}


def lookup(properties: Mapping[str, PropertyValue], path: Sequence[str]) -> PropertyValue:
    """Find a path in properties that are named with dots, going on into mappings and sequences.

    Raises: LookupError.
    """
    name = ".".join(path)
    if name in properties:
        return properties[name]
    for split in range(len(path) - 1, 0, -1):
        head = ".".join(path[:split])
        if head in properties:
            return _descend(properties[head], path[split:])
    raise LookupError(name)


def _descend(value: PropertyValue, path: Sequence[str]) -> PropertyValue:
    for part in path:
        if isinstance(value, Mapping):
            value = value[part]
        elif isinstance(value, Sequence) and not isinstance(value, (str, bytes)) and part.isdigit():
            value = value[int(part)]
        else:
            raise LookupError(part)
    return value


def stream_property(stream: HttpStream, plugin: Plugin, path: Sequence[str]) -> PropertyValue:
    """Value of a property for a filter of the stream. Raises: LookupError."""
    path = (*ALIASES.get(path[0], path[0]).split("."), *path[1:])
    try:
        return lookup(stream.properties, path)
    except LookupError:
        pass
    find = STREAM_PROPERTIES.get(".".join(path[:2]))
    if find is not None:
        return _descend(find(stream), path[2:])
    if path[0] in stream.filter_state:
        return _descend(stream.filter_state[path[0]], path[1:])
    return plugin.get_property(path)
