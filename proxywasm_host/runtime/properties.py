"""Properties (attributes) of a stream, as ``proxy_get_property`` finds them.

The order of the lookup: the embedder's properties for the stream, those of the stream itself (the table below), entries
of ``filter_state``, the plugin's, the embedder's for the whole host, and those that filters stored.

Source: ``attributes.rst`` and ``findValue`` in ``context.cc`` of Envoy.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta, timezone
from enum import Enum
from sys import getsizeof
from typing import TYPE_CHECKING, Final

from proxywasm_host.abi.pairs import HeaderList
from proxywasm_host.abi.types import AbiVersion, MapType
from proxywasm_host.abi.values import MAX_SEGMENTS, PropertyValue
from proxywasm_host.errors import UnencodableValue
from proxywasm_host.runtime.fast_path import REQUEST, RESPONSE
from proxywasm_host.services.quota import MIB, Quota

if TYPE_CHECKING:
    from proxywasm_host.runtime.http_context import HttpContext

__all__ = ["ALIASES", "STREAM_PROPERTIES", "Stored", "grpc_status_of", "lookup", "stream_property"]

MAX_STORED = MIB
"""Most bytes of the properties that each filter may store in a stream."""
PROPERTY = 256
"""Bytes that a stored property costs in addition to its name and its value."""
MAX_DIGITS = 18
"""Most digits of a number in a header: those of 64 bits."""
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
"""Names of older Envoys, which filters of ABI 0.2.100 (Higress) still use, with the current names."""

GRPC_OF_HTTP = {400: 13, 401: 16, 403: 7, 404: 12, 429: 14, 502: 14, 503: 14, 504: 14}


def grpc_status_of(code: int) -> int:
    """The gRPC status for an HTTP status; 2 (unknown) for most (Envoy's ``httpToGrpcStatus``)."""
    return GRPC_OF_HTTP.get(code, 2)


class Stored:
    """The properties that filters store in one stream, with a limit for each filter."""

    def __init__(self) -> None:
        self._quotas: dict[object, Quota] = {}
        self._costs: dict[tuple[int, str], _Cost] = {}
        """Owner and cost of each stored property, by its dictionary and its name."""

    @property
    def used(self) -> int:
        """Bytes of all stored properties."""
        return sum(quota.used for quota in self._quotas.values())

    def put(self, into: dict[str, bytes], name: str, value: bytes, filter: object) -> None:
        """Store a property of this filter, instead of one with the same name. Raises: QuotaExceeded."""
        cost = self._costs.get((id(into), name))
        if cost is not None and cost.filter is filter:
            size = cost.of_name + len(value)
            if size != cost.size:
                cost.quota.reserve(size - cost.size)
                cost.size = size
        else:
            quota = self._quotas.get(filter)
            if quota is None:
                quota = self._quotas[filter] = Quota("the properties that this filter stored in the stream", MAX_STORED)
            new = _Cost(filter, quota, PROPERTY + getsizeof(name), len(value))
            quota.reserve(new.size)
            if cost is not None:
                cost.quota.release(cost.size)
            self._costs[id(into), name] = new
        into[name] = value


class _Cost:
    """Owner of a stored property, and its cost in bytes: that of its name, and the total."""

    __slots__ = ("filter", "of_name", "quota", "size")

    def __init__(self, filter: object, quota: Quota, of_name: int, of_value: int) -> None:
        self.filter, self.quota, self.of_name, self.size = filter, quota, of_name, of_name + of_value


Find = Callable[["HttpContext"], PropertyValue]


def _request(context: HttpContext) -> HeaderList:
    """The request's headers, while the filter can read them (Envoy: ``request_headers_``)."""
    return _headers(context, MapType.REQUEST_HEADERS)


def _response(context: HttpContext) -> HeaderList:
    return _headers(context, MapType.RESPONSE_HEADERS)


def _headers(context: HttpContext, map: int) -> HeaderList:
    headers = context.maps[map]
    if headers is None and context.vm.profile.headers_stay:
        headers = context.past_headers(map)
    return headers or []


def _value(headers: HeaderList, name: bytes) -> bytes:
    for key, value in headers:
        if key == name:
            return value
    raise LookupError(name)


def number(text: bytes) -> int:
    """A number in a header. Raises: LookupError, if it is not a number or has too many digits."""
    if not text.isdigit() or len(text) > MAX_DIGITS:
        raise LookupError
    return int(text)


def _header(name: bytes) -> Find:
    return lambda context: _value(_request(context), name)


def _url_path(context: HttpContext) -> PropertyValue:
    return _value(_request(context), b":path").partition(b"?")[0]


def _query(context: HttpContext) -> PropertyValue:
    return _value(_request(context), b":path").partition(b"?")[2].partition(b"#")[0]


def _joined(headers: HeaderList | None) -> dict[str, PropertyValue]:
    """Headers as a mapping; several values of one name are joined with a comma."""
    joined: dict[str, bytes] = {}
    for name, value in headers or ():
        key = name.decode("latin-1")
        joined[key] = b"%b,%b" % (joined[key], value) if key in joined else value
    return {**joined}


def _request_headers(context: HttpContext) -> PropertyValue:
    """The request's headers, with ``host`` as another name of ``:authority``."""
    joined = _joined(_request(context))
    return _WithHost(joined) if joined else joined


class _WithHost(dict[str, PropertyValue]):
    def __missing__(self, key: str) -> PropertyValue:
        if key == "host":
            return self[":authority"]
        raise KeyError(key)


def _bytes_of(headers: HeaderList | None) -> int:
    return sum(len(name) + len(value) for name, value in headers or ())


def _request_size(context: HttpContext) -> PropertyValue:
    for name, value in _request(context):
        if name == b"content-length":
            return number(value)
    return context.stream._chain(REQUEST).received


def _total_size(direction: int) -> Find:
    def total(context: HttpContext) -> PropertyValue:
        return context.stream._chain(direction).received + _bytes_of(_headers(context, 2 * direction))

    return total


def _code(context: HttpContext) -> PropertyValue:
    return number(_value(context.stream._chain(RESPONSE).headers, b":status"))


def _code_details(context: HttpContext) -> PropertyValue:
    if context.stream.details is None:
        raise LookupError
    return context.stream.details


def _grpc_status(context: HttpContext) -> PropertyValue:
    """The gRPC status in the trailers or the headers, else that for the HTTP status."""
    chain = context.stream._chain(RESPONSE)
    for headers in (chain.trailers or [], chain.headers):
        for name, value in headers:
            if name == b"grpc-status":
                return number(value)
    return grpc_status_of(number(_value(chain.headers, b":status")))


def _duration(context: HttpContext) -> PropertyValue:
    stream = context.stream
    if not stream.closed:
        raise LookupError
    return timedelta(microseconds=(stream.host.services.clock.time_ns() - stream._started_ns) / 1000)


STREAM_PROPERTIES: dict[str, Find] = {
    "request.path": _header(b":path"),
    "request.url_path": _url_path,
    "request.query": _query,
    "request.host": _header(b":authority"),
    "request.scheme": _header(b":scheme"),
    "request.method": _header(b":method"),
    "request.referer": _header(b"referer"),
    "request.useragent": _header(b"user-agent"),
    "request.id": _header(b"x-request-id"),
    "request.headers": _request_headers,
    "request.headers_bytes": lambda context: _bytes_of(_request(context)),
    "request.time": lambda context: EPOCH + timedelta(microseconds=context.stream._started_ns // 1000),
    "request.duration": _duration,
    "request.size": _request_size,
    "request.total_size": _total_size(REQUEST),
    "response.code": _code,
    "response.code_details": _code_details,
    "response.flags": lambda _: 0,
    "response.grpc_status": _grpc_status,
    "response.headers": lambda context: _joined(_response(context)),
    "response.headers_bytes": lambda context: _bytes_of(_response(context)),
    "response.trailers": lambda context: _joined(context.maps[MapType.RESPONSE_TRAILERS]),
    "response.size": lambda context: context.stream._chain(RESPONSE).received,
    "response.total_size": _total_size(RESPONSE),
}
BY_PATH = {tuple(name.split(".")): find for name, find in STREAM_PROPERTIES.items()}
KNOWN = 2
"""Segments of each path in `BY_PATH`."""
GROUPS = frozenset(
    ["request", "response", "source", "destination", "connection", "upstream", "xds", "filter_state"]
) | {""}
"""Names that can only begin a path: alone, they have no form in the ABI."""


class _Absent(Enum):
    ABSENT = 0


ABSENT: Final = _Absent.ABSENT


def lookup(properties: Mapping[str, PropertyValue], path: Sequence[str]) -> PropertyValue:
    """Find a path in properties with dotted names, and inside of mappings and sequences.

    The dots of a property's name may be in the path's segments or between them, because filters use both.

    Raises: LookupError.
    """
    found = _find(properties, path)
    if found is ABSENT:
        raise LookupError(".".join(path))
    return found


def _find(properties: Mapping[str, PropertyValue], path: Sequence[str]) -> PropertyValue | _Absent:
    name = ".".join(path)
    if name in properties:
        return properties[name]
    if not properties:
        return ABSENT
    for split in range(len(path) - 1, 0, -1):
        head = ".".join(path[:split])
        if head in properties:
            return _descend(properties[head], path[split:])
    words = name.split(".", MAX_SEGMENTS - 1)
    return ABSENT if len(words) == len(path) else _find(properties, words)


def _descend(value: PropertyValue, path: Sequence[str]) -> PropertyValue:
    for part in path:
        if isinstance(value, Mapping):
            value = value[part]
        elif isinstance(value, Sequence) and not isinstance(value, (str, bytes)):
            value = value[number(part.encode("utf-8", "replace"))]
        else:
            raise LookupError(part)  # noqa: TRY004 - the guest gets NOT_FOUND
    return value


def stream_property(context: HttpContext, path: Sequence[str]) -> PropertyValue:
    """Value of a property for a filter of a stream. Raises: LookupError, UnencodableValue."""
    stream = context.stream
    if context.vm.version >= AbiVersion.V0_2_100 and path[0] in ALIASES and path[0] not in stream.properties:
        path = (*ALIASES[path[0]].split("."), *path[1:])
    if path[0] not in STREAM_PROPERTIES:  # those are found only by separate segments, as in Envoy
        try:
            given = _find(stream.properties, path)
            if given is not ABSENT:
                return given
        except LookupError:  # not inside of the embedder's property
            pass
        find = BY_PATH.get(tuple(path[:KNOWN]))
        if find is not None:
            value = find(context)
            return value if len(path) <= KNOWN else _descend(value, [part.lower() for part in path[KNOWN:]])
        if path[0] in GROUPS and len(path) == 1:
            raise UnencodableValue("it is a mapping, of which only entries can be read")
    if path[0] == "filter_state" and len(path) > 1:
        return stream.filter_state[path[1].removeprefix("wasm.")]
    try:
        return context.plugin._get_property(path)
    except LookupError:
        if len(path) == 1:
            return stream.filter_state[path[0]]
        raise
