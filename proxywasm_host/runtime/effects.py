"""Effects: actions for the embedder. Methods of streams, plugins and hosts return lists of them.

Rules: an effect is an immutable record. It is returned once, in one list; the embedder performs the effects in the
order of the list. A `StreamEffect` is for one stream, which is not always the stream that was fed; a `PluginEffect` is
for a plugin. A `Callout` names the types of its replies (`HttpCall.Reply`, …); pass those to `Host.deliver`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import Field, dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Union

from proxywasm_host.abi.pairs import HeaderList
from proxywasm_host.direct_init import direct_init

if TYPE_CHECKING:
    from proxywasm_host.runtime.http import HttpStream
    from proxywasm_host.runtime.plugin import Plugin
    from proxywasm_host.runtime.tcp import TcpStream

__all__ = [
    "Callout",
    "CalloutFailed",
    "CancelCallout",
    "ClearRouteCache",
    "CloseConnection",
    "DownstreamData",
    "Effect",
    "GrpcCall",
    "GrpcCallReply",
    "GrpcClose",
    "GrpcClosed",
    "GrpcInitialMetadata",
    "GrpcMessage",
    "GrpcSend",
    "GrpcStream",
    "GrpcTrailingMetadata",
    "HttpCall",
    "HttpCallReply",
    "NameLookup",
    "NameLookupReply",
    "OverrideUpstreamHost",
    "PluginEffect",
    "QueueReady",
    "RedisCall",
    "RedisCallReply",
    "Reply",
    "RequestBody",
    "RequestHeaders",
    "RequestTrailers",
    "ResetStream",
    "ResponseBody",
    "ResponseHeaders",
    "ResponseTrailers",
    "SetTickPeriod",
    "StreamEffect",
    "UpstreamData",
]


SHOWN = 80
"""Bytes of a body that a repr shows."""


def _with_some_data(effect: RequestBody | ResponseBody | DownstreamData | UpstreamData) -> str:
    data = effect.data
    shown = f"{data!r}" if len(data) <= SHOWN else f"{data[:SHOWN]!r}… ({len(data)} bytes)"
    return f"{type(effect).__name__}(data={shown}, end_stream={effect.end_stream})"


class StreamEffect:
    """An effect of one stream, whichever event caused it."""

    __slots__ = ()
    __dataclass_fields__: ClassVar[dict[str, Field[Any]]]

    stream: HttpStream | TcpStream


class PluginEffect:
    """An effect of one plugin, outside of any stream."""

    __slots__ = ()
    __dataclass_fields__: ClassVar[dict[str, Field[Any]]]

    plugin: Plugin


class Callout(PluginEffect):
    """A request of a filter to a cluster. Pass its replies to `Host.deliver`."""

    __slots__ = ()

    Reply: ClassVar[tuple[type, ...]] = ()
    """The types of its replies."""
    background: ClassVar[bool] = True
    """Whether its replies belong to no request; drivers spend only a share of the time on those."""

    token: int
    """The number that identifies it in the guest."""
    cluster: str


# -- HTTP streams ------------------------------------------------------------------------------------------------------


@direct_init
@dataclass(frozen=True, slots=True)
class RequestHeaders(StreamEffect):
    """Send these headers upstream; `end_stream` if nothing follows."""

    headers: HeaderList
    end_stream: bool
    stream: HttpStream = field(repr=False, compare=False)


@direct_init
@dataclass(frozen=True, slots=True)
class RequestBody(StreamEffect):
    """Send this part of the body upstream."""

    data: bytes
    end_stream: bool
    stream: HttpStream = field(repr=False, compare=False)

    __repr__ = _with_some_data


@direct_init
@dataclass(frozen=True, slots=True)
class RequestTrailers(StreamEffect):
    """Send these trailers upstream, which ends the request."""

    trailers: HeaderList
    stream: HttpStream = field(repr=False, compare=False)


@direct_init
@dataclass(frozen=True, slots=True)
class ResponseHeaders(StreamEffect):
    """Send these headers to the client; ``:status`` is among them. `end_stream` if nothing follows."""

    headers: HeaderList
    end_stream: bool
    stream: HttpStream = field(repr=False, compare=False)


@direct_init
@dataclass(frozen=True, slots=True)
class ResponseBody(StreamEffect):
    """Send this part of the body to the client."""

    data: bytes
    end_stream: bool
    stream: HttpStream = field(repr=False, compare=False)

    __repr__ = _with_some_data


@direct_init
@dataclass(frozen=True, slots=True)
class ResponseTrailers(StreamEffect):
    """Send these trailers to the client, which ends the response."""

    trailers: HeaderList
    stream: HttpStream = field(repr=False, compare=False)


@direct_init
@dataclass(frozen=True, slots=True)
class ResetStream(StreamEffect):
    """Reset the stream on both sides; `details` are Envoy's response code details.

    If a part of the response was sent already, do not send the rest.
    """

    details: str
    stream: HttpStream = field(repr=False, compare=False)


@direct_init
@dataclass(frozen=True, slots=True)
class ClearRouteCache(StreamEffect):
    """Choose the route again: the filter has changed headers or properties that it depends on."""

    stream: HttpStream = field(repr=False, compare=False)


@direct_init
@dataclass(frozen=True, slots=True)
class OverrideUpstreamHost(StreamEffect):
    """Send this request to the upstream host with this address (Higress)."""

    address: str
    stream: HttpStream = field(repr=False, compare=False)


@dataclass(slots=True)
class _Headers(StreamEffect):
    headers: HeaderList
    end_stream: bool
    stream: HttpStream


@dataclass(slots=True)
class _Body(StreamEffect):
    data: bytes
    end_stream: bool
    stream: HttpStream


# A frozen class sets each field with a call, which is too slow for frequent effects: these are frozen afterwards.


def headers_out(response: int, headers: HeaderList, end_stream: bool, stream: HttpStream) -> StreamEffect:
    """A `RequestHeaders` or `ResponseHeaders`, made in a third of the time."""
    effect: StreamEffect = _Headers(headers, end_stream, stream)
    effect.__class__ = ResponseHeaders if response else RequestHeaders
    return effect


def body_out(response: int, data: bytes, end_stream: bool, stream: HttpStream) -> StreamEffect:
    """A `RequestBody` or `ResponseBody`, made in a third of the time."""
    effect: StreamEffect = _Body(data, end_stream, stream)
    effect.__class__ = ResponseBody if response else RequestBody
    return effect


# -- TCP streams -------------------------------------------------------------------------------------------------------


@direct_init
@dataclass(frozen=True, slots=True)
class DownstreamData(StreamEffect):
    """Send data of the downstream peer on to upstream."""

    data: bytes
    end_stream: bool
    stream: TcpStream = field(repr=False, compare=False)

    __repr__ = _with_some_data


@direct_init
@dataclass(frozen=True, slots=True)
class UpstreamData(StreamEffect):
    """Send data of the upstream peer on to downstream."""

    data: bytes
    end_stream: bool
    stream: TcpStream = field(repr=False, compare=False)

    __repr__ = _with_some_data


@direct_init
@dataclass(frozen=True, slots=True)
class CloseConnection(StreamEffect):
    """Close the connection, after all data of earlier effects is written."""

    details: str
    stream: TcpStream = field(repr=False, compare=False)


# -- Plugins -----------------------------------------------------------------------------------------------------------


@direct_init
@dataclass(frozen=True, slots=True)
class SetTickPeriod(PluginEffect):
    """Call `Plugin.tick` every `milliseconds` from now on; 0 stops it."""

    plugin: Plugin = field(repr=False)
    milliseconds: int


@direct_init
@dataclass(frozen=True, slots=True)
class QueueReady(PluginEffect):
    """Call `Plugin.queue_ready` with this token: a message has arrived."""

    plugin: Plugin = field(repr=False)
    token: int


# -- Callouts ----------------------------------------------------------------------------------------------------------


@direct_init
@dataclass(frozen=True, slots=True)
class CalloutFailed:
    """Reply to any callout: it could not be made, or the connection broke. The guest gets it as Envoy's ``reset``."""

    reason: str = "reset"


@dataclass(frozen=True, slots=True)
class HttpCallReply:
    """The response to an `HttpCall`; ``:status`` is among the headers, which are pairs of bytes."""

    headers: HeaderList
    body: bytes = b""
    trailers: HeaderList = field(default_factory=list)
    failure: str = field(default="", compare=False)
    """The reason for a reply that the client made, as Envoy's router does: ``timeout``, ``broken connection``, …"""


@direct_init
@dataclass(frozen=True, slots=True)
class HttpCall(Callout):
    """Make an HTTP request; `timeout` is in milliseconds, 0 means no time-out."""

    Reply = (HttpCallReply, CalloutFailed)

    plugin: Plugin = field(repr=False)
    token: int
    cluster: str
    headers: HeaderList
    body: bytes
    trailers: HeaderList
    timeout: int
    answered: bool = field(default=False, init=False, repr=False, compare=False)
    """Whether it has its reply. The host sets it."""


@direct_init
@dataclass(frozen=True, slots=True)
class GrpcCallReply:
    """The message that answers a `GrpcCall`. A status other than 0 is a `GrpcClosed` instead."""

    message: bytes


@direct_init
@dataclass(frozen=True, slots=True)
class GrpcInitialMetadata:
    """The peer of a gRPC stream sent its initial metadata."""

    metadata: HeaderList


@direct_init
@dataclass(frozen=True, slots=True)
class GrpcMessage:
    """The peer of a gRPC stream sent a message."""

    message: bytes


@direct_init
@dataclass(frozen=True, slots=True)
class GrpcTrailingMetadata:
    """The peer of a gRPC stream sent its trailing metadata."""

    metadata: HeaderList


@direct_init
@dataclass(frozen=True, slots=True)
class GrpcClosed:
    """The call or the stream has ended, with a gRPC status and its message."""

    status: int
    message: str = ""


@direct_init
@dataclass(frozen=True, slots=True)
class GrpcCall(Callout):
    """Make a unary gRPC call; `timeout` is in milliseconds, 0 means no time-out.

    `cluster` is the cluster's name; `config` is the guest's argument, often Envoy's message ``GrpcService``.
    """

    Reply = (GrpcCallReply, GrpcClosed, CalloutFailed)

    plugin: Plugin = field(repr=False)
    token: int
    cluster: str
    service: str
    method: str
    metadata: HeaderList
    message: bytes
    timeout: int
    config: bytes = field(default=b"", repr=False)
    answered: bool = field(default=False, init=False, repr=False, compare=False)
    """Whether it has its reply. The host sets it."""


@direct_init
@dataclass(frozen=True, slots=True)
class GrpcStream(Callout):
    """Open a gRPC stream; replies may arrive until `GrpcClosed`."""

    Reply = (GrpcInitialMetadata, GrpcMessage, GrpcTrailingMetadata, GrpcClosed, CalloutFailed)

    plugin: Plugin = field(repr=False)
    token: int
    cluster: str
    service: str
    method: str
    metadata: HeaderList
    config: bytes = field(default=b"", repr=False)


@direct_init
@dataclass(frozen=True, slots=True)
class GrpcSend(PluginEffect):
    """Send a message on an open gRPC stream."""

    plugin: Plugin = field(repr=False)
    token: int
    message: bytes
    end_stream: bool


@direct_init
@dataclass(frozen=True, slots=True)
class GrpcClose(PluginEffect):
    """Close this side of an open gRPC stream: no more messages will be sent."""

    plugin: Plugin = field(repr=False)
    token: int


@direct_init
@dataclass(frozen=True, slots=True)
class CancelCallout(PluginEffect):
    """Cancel a callout; its reply is dropped."""

    plugin: Plugin = field(repr=False)
    token: int


@direct_init
@dataclass(frozen=True, slots=True)
class RedisCallReply:
    """The answer to a `RedisCall` as RESP bytes."""

    response: bytes


@dataclass(frozen=True, slots=True)
class RedisCall(Callout):
    """Send a Redis command (RESP bytes) to a cluster, with the arguments of the guest's ``proxy_redis_init``.

    `options` are Higress's: ``db`` is the number of the database; ``buffer_flush_timeout`` (in milliseconds) and
    ``max_buffer_size_before_flush`` (in bytes) limit how long commands are collected before they are sent.
    """

    Reply = (RedisCallReply, CalloutFailed)

    plugin: Plugin = field(repr=False)
    token: int
    cluster: str
    query: bytes
    username: bytes
    password: bytes = field(repr=False)
    timeout: int
    options: Mapping[str, str] = field(default_factory=dict)
    answered: bool = field(default=False, init=False, repr=False, compare=False)
    """Whether it has its reply. The host sets it."""


@direct_init
@dataclass(frozen=True, slots=True)
class NameLookupReply:
    """The address of a host: 4 bytes of IPv4, or 16 of IPv6."""

    address: bytes


@direct_init
@dataclass(frozen=True, slots=True)
class NameLookup(Callout):
    """Resolve the name of a host, which is in `cluster` (``resolve_lua`` of ngx_wasm_module)."""

    Reply = (NameLookupReply, CalloutFailed)

    plugin: Plugin = field(repr=False)
    token: int
    cluster: str
    answered: bool = field(default=False, init=False, repr=False, compare=False)
    """Whether it has its reply. The host sets it."""


Reply = Union[
    HttpCallReply,
    GrpcCallReply,
    GrpcInitialMetadata,
    GrpcMessage,
    GrpcTrailingMetadata,
    GrpcClosed,
    RedisCallReply,
    NameLookupReply,
    CalloutFailed,
]
Effect = Union[StreamEffect, PluginEffect]
