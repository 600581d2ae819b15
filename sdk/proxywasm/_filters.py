"""What a filter derives from."""

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
    """A filter: one instance for the plugin (`on_configure`), one for each stream.

    What `on_configure` sets on ``self``, the instance of each stream has as well. `plugin` is the plugin's instance.
    """

    plugin: Any = None
    config: Any = None
    """The plugin's configuration: from JSON, or text if it is none; None if there is none."""
    id = 0
    _given: Any = ()
    _overridden: Any = ()
    _plain = False
    on_error: int | None = 500
    """What a stream gets whose handler raises: a response with this status, or None: it goes on as it is."""

    def on_configure(self, config: Any) -> bool | None:
        """The plugin is configured. Return False, or raise, to refuse the configuration."""

    def on_queue(self, queue: int) -> Awaitable[None] | None:
        """There is a message in a queue that this plugin made. May be ``async``."""

    def on_foreign_function(self, function: int, argument: bytes) -> Awaitable[None] | None:
        """A foreign function calls back. May be ``async``."""

    def on_done(self) -> bool | None:
        """The plugin (or, with an `id` of its own, the stream) is to go. Return False if it has to wait for `done`.

        What waits here runs with `create_task`; Envoy waits for plugins alone, not for streams.
        """

    def done(self) -> None:
        """What `on_done` waited for is there. Raises: HostError, if nothing waits."""
        host.done()

    def on_log(self) -> None:
        """The stream is over."""

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
        """`proxywasm.call`."""
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
        """`proxywasm.grpc`."""
        return grpc(cluster, service, method, message, metadata, timeout)

    def grpc_stream(self, cluster: str, service: str, method: str, metadata: HeadersLike = None) -> GrpcStream:
        """`proxywasm.grpc_stream`."""
        return grpc_stream(cluster, service, method, metadata)


class HttpFilter(_Filter):
    """A filter of HTTP. Override what it needs; handlers of headers and trailers may be ``async``.

    A handler that returns a `Response` answers the request itself; None goes on.
    """

    def __init__(self) -> None:
        self.request = RequestHead()
        self.response = ResponseHead()

    def on_request_headers(self, request: RequestHead) -> Answer:
        """The request's headers are there."""

    def on_request_body(self, request: RequestHead, chunk: bytes, end: bool) -> BodyAnswer:
        """A part of the request's body is there, the last one if `end`. Return bytes to put in its place."""

    def on_request_trailers(self, request: RequestHead) -> Answer:
        """The request's trailers are there."""

    def on_response_headers(self, response: ResponseHead) -> Answer:
        """The response's headers are there."""

    def on_response_body(self, response: ResponseHead, chunk: bytes, end: bool) -> BodyAnswer:
        """A part of the response's body is there, the last one if `end`. Return bytes to put in its place."""

    def on_response_trailers(self, response: ResponseHead) -> Answer:
        """The response's trailers are there."""


class TcpFilter(_Filter):
    """A filter of connections. A handler of data returns bytes to put in its place, False to close the connection."""

    def on_connection(self) -> TcpAnswer:
        """A client connected. Return False to close the connection."""

    def on_downstream_data(self, chunk: bytes, end: bool) -> TcpAnswer:
        """Data came from the client."""

    def on_upstream_data(self, chunk: bytes, end: bool) -> TcpAnswer:
        """Data came from the server."""

    def close(self) -> None:
        """Close the connection, of both sides."""
        host.close_stream(2)

    def on_downstream_close(self, peer: int) -> None:
        """The client's side is closed: by 1 us, 2 the peer, 0 unknown."""

    def on_upstream_close(self, peer: int) -> None:
        """The server's side is closed: by 1 us, 2 the peer, 0 unknown."""
