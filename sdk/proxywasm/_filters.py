"""What a filter derives from."""

from __future__ import annotations

from typing import Any

from proxywasm._messages import RequestHead, ResponseHead
from proxywasm._tasks import call, grpc

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

    def on_configure(self, config: Any) -> Any:
        """The plugin is configured. Return False, or raise, to refuse the configuration."""

    def on_queue(self, queue: int) -> None:
        """There is a message in a queue that this plugin made."""

    def on_foreign_function(self, function: int, argument: bytes) -> None:
        """A foreign function calls back."""

    def on_log(self) -> None:
        """The stream is over."""

    def call(self, cluster: str, method: str, path: str, **more: Any) -> Any:
        """`proxywasm.call`."""
        return call(cluster, method, path, **more)

    def grpc(self, cluster: str, service: str, method: str, message: bytes, **more: Any) -> Any:
        """`proxywasm.grpc`."""
        return grpc(cluster, service, method, message, **more)


class HttpFilter(_Filter):
    """A filter of HTTP. Override what it needs; handlers of headers and trailers may be ``async``.

    A handler that returns a `Response` answers the request itself; None goes on.
    """

    def __init__(self) -> None:
        self.request = RequestHead()
        self.response = ResponseHead()

    def on_request_headers(self, request: RequestHead) -> Any:
        """The request's headers are there."""

    def on_request_body(self, request: RequestHead, chunk: bytes, end: bool) -> Any:
        """A part of the request's body is there, the last one if `end`. Return bytes to put in its place."""

    def on_request_trailers(self, request: RequestHead) -> Any:
        """The request's trailers are there."""

    def on_response_headers(self, response: ResponseHead) -> Any:
        """The response's headers are there."""

    def on_response_body(self, response: ResponseHead, chunk: bytes, end: bool) -> Any:
        """A part of the response's body is there, the last one if `end`. Return bytes to put in its place."""

    def on_response_trailers(self, response: ResponseHead) -> Any:
        """The response's trailers are there."""


class TcpFilter(_Filter):
    """A filter of connections. A handler of data returns bytes to put in its place, False to close the connection."""

    def on_connection(self) -> Any:
        """A client connected. Return False to close the connection."""

    def on_downstream_data(self, chunk: bytes, end: bool) -> Any:
        """Data came from the client."""

    def on_upstream_data(self, chunk: bytes, end: bool) -> Any:
        """Data came from the server."""

    def on_downstream_close(self, peer: int) -> None:
        """The client's side is closed: by 1 us, 2 the peer, 0 unknown."""

    def on_upstream_close(self, peer: int) -> None:
        """The server's side is closed: by 1 us, 2 the peer, 0 unknown."""
