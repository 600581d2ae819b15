"""The base classes of filters."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from proxywasm._grpc import grpc, grpc_stream
from proxywasm._host import host
from proxywasm._messages import RequestHead, ResponseHead
from proxywasm._tasks import call

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from proxywasm._grpc import GrpcReply, GrpcStream
    from proxywasm._tasks import Future, Reply
    from proxywasm._types import Answer, BodyAnswer, Data, HeadersLike, TcpAnswer

__all__ = ["HttpFilter", "TcpFilter"]


class _Filter:
    """A filter: one instance for the plugin (`on_configure`), and one for each stream.

    Attributes that `on_configure` sets on ``self`` are copied to the instance of each stream. `plugin` is the plugin's
    instance.
    """

    plugin: Any = None
    config: Any = None
    """The plugin's configuration: parsed JSON, or text if it is not JSON; None if it is empty."""
    id = 0
    _given: Any = ()
    _overridden: Any = ()
    _plain = False
    on_error: int | None = 500
    """The status of the response to a stream whose handler raises; with None the stream continues unchanged."""

    def on_configure(self, config: Any) -> bool | None:
        """Called when the plugin gets its configuration. Return False, or raise, to refuse it."""

    def on_queue(self, queue: int) -> Awaitable[None] | None:
        """Called when a queue that this plugin registered has a message. May be ``async``."""

    def on_foreign_function(self, function: int, argument: bytes) -> Awaitable[None] | None:
        """Called back by a foreign function. May be ``async``."""

    def on_done(self) -> bool | None:
        """Called before the plugin, or the stream with this `id`, is removed. Return False to delay that until `done`.

        Run code that waits with `create_task`. Envoy delays the removal of plugins only, not of streams.
        """

    def done(self) -> None:
        """Complete the removal that `on_done` has delayed. Raises: HostError, if nothing is delayed."""
        host.done()

    def on_log(self) -> None:
        """Called when the stream has ended."""

    def call(
        self,
        cluster: str,
        method: str,
        path: str,
        headers: HeadersLike = None,
        body: Any = b"",
        trailers: HeadersLike = None,
        timeout: float = 5.0,
        host_name: str = "",
    ) -> Future[Reply | None]:
        """As `proxywasm.call`."""
        return call(cluster, method, path, headers, body, trailers, timeout, host_name)

    def grpc(
        self,
        cluster: str,
        service: str,
        method: str,
        message: Data,
        metadata: HeadersLike = None,
        timeout: float = 5.0,
    ) -> Future[GrpcReply]:
        """As `proxywasm.grpc`."""
        return grpc(cluster, service, method, message, metadata, timeout)

    def grpc_stream(self, cluster: str, service: str, method: str, metadata: HeadersLike = None) -> GrpcStream:
        """As `proxywasm.grpc_stream`."""
        return grpc_stream(cluster, service, method, metadata)


class HttpFilter(_Filter):
    """An HTTP filter. Override the handlers that it needs; those of headers and trailers may be ``async``.

    A handler returns a `Response` to answer the request itself, or None to continue.
    """

    def __init__(self) -> None:
        self.request = RequestHead()
        self.response = ResponseHead()

    def on_request_headers(self, request: RequestHead) -> Answer:
        """Called with the request's headers."""

    def on_request_body(self, request: RequestHead, chunk: bytes, end: bool) -> BodyAnswer:
        """Called with each part of the request's body, the last one if `end`. Return bytes to replace the part."""

    def on_request_trailers(self, request: RequestHead) -> Answer:
        """Called with the request's trailers."""

    def on_response_headers(self, response: ResponseHead) -> Answer:
        """Called with the response's headers."""

    def on_response_body(self, response: ResponseHead, chunk: bytes, end: bool) -> BodyAnswer:
        """Called with each part of the response's body, the last one if `end`. Return bytes to replace the part."""

    def on_response_trailers(self, response: ResponseHead) -> Answer:
        """Called with the response's trailers."""


class TcpFilter(_Filter):
    """A filter of TCP connections. A handler of data returns bytes to replace it, or False to close the connection."""

    def on_connection(self) -> TcpAnswer:
        """Called when a client has connected. Return False to close the connection."""

    def on_downstream_data(self, chunk: bytes, end: bool) -> TcpAnswer:
        """Called with data from the client, the last if `end`."""

    def on_upstream_data(self, chunk: bytes, end: bool) -> TcpAnswer:
        """Called with data from the server, the last if `end`."""

    def close(self) -> None:
        """Close the connection on both sides."""
        host.close_stream(2)

    def on_downstream_close(self, peer: int) -> None:
        """Called when the client's side has closed. `peer` is 1 if the host closed it, 2 if the client did, else 0."""

    def on_upstream_close(self, peer: int) -> None:
        """Called when the server's side has closed. `peer` is 1 if the host closed it, 2 if the server did, else 0."""
