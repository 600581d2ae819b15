"""gRPC callouts: one message and its reply, or streams of messages."""

from __future__ import annotations

from typing import TYPE_CHECKING

from proxywasm._host import host
from proxywasm._tasks import FixedHeaders, Future, now, pairs

if TYPE_CHECKING:
    from proxywasm._types import Data, HeadersLike

__all__ = ["GrpcReply", "GrpcStream", "grpc", "grpc_calls", "grpc_stream", "grpc_streams"]


class GrpcReply:
    """The reply to a gRPC call: `status` (0 is OK), `details`, and the `message` as bytes."""

    def __init__(self, status: int, details: str, message: bytes) -> None:
        self.status = status
        self.details = details
        self.message = message


class GrpcStream:
    """A gRPC call in which both sides send any number of messages, each as bytes. ::

        stream = self.grpc_stream("scanner", "scan.Scanner", "Scan")
        stream.send(request, end=True)
        async for message in stream:
            ...
        if stream.status != 0:
            log.warning("scan: %s", stream.details)

    It ends with the HTTP stream for which it was opened. One that was opened for the plugin is independent of streams.
    """

    def __init__(self, token: int, context: int) -> None:
        self.metadata = FixedHeaders([])
        """The initial metadata of the server, as headers: complete before the first message."""
        self.trailers = FixedHeaders([])
        """The trailing metadata of the server: empty until the end."""
        self.status: int | None = None
        """None while the call is open, then its status: the server's (0 is OK), or 1 after `cancel`."""
        self.details = ""
        """The server's message about the status."""
        self._token = token
        self._context = context
        self._messages: list[bytes] = []
        self._waiting: Future[bytes | None] | None = None
        self._ended = False

    def send(self, message: Data, end: bool = False) -> None:
        """Send a message, the last one if `end`. Raises: ValueError, after the end; HostError."""
        if self._ended or self.status is not None:
            raise ValueError("the gRPC stream is closed")
        self._ended = end
        host.grpc_send(self._token, message, end)

    def close(self) -> None:
        """End our side of the call; messages of the server still arrive. Further calls do nothing."""
        if not self._ended and self.status is None:
            self._ended = True
            host.grpc_close(self._token)

    def cancel(self) -> None:
        """Cancel the call: no more messages of the server arrive."""
        if self.status is None:
            grpc_streams.pop(self._token, None)
            host.grpc_cancel(self._token)
            self._finish(1, "cancelled")

    def receive(self) -> Future[bytes | None]:
        """The next message, to be awaited: ``await stream.receive()``; None at the end."""
        future: Future[bytes | None] = Future()
        if self._messages:
            future.set(self._messages.pop(0))
        elif self.status is not None:
            future.set(None)
        elif self._waiting is not None:
            raise RuntimeError("another task already waits for this gRPC stream")
        else:
            self._waiting = future
        return future

    def __aiter__(self) -> GrpcStream:
        return self

    async def __anext__(self) -> bytes:
        message: bytes | None = await self.receive()
        if message is None:
            raise StopAsyncIteration
        return message

    def _received(self, message: bytes) -> None:
        waiting = self._waiting
        if waiting is None:
            self._messages.append(message)
        else:
            self._waiting = None
            waiting.set(message)

    def _closed(self, status: int, details: str) -> None:
        ended = self._ended
        self._ended = True
        if not ended:
            host.grpc_close(self._token)
        self._finish(status, details)

    def _finish(self, status: int, details: str) -> None:
        self.status = status
        self.details = details
        waiting = self._waiting
        if waiting is not None:
            self._waiting = None
            waiting.set(None)


# Open calls, by their tokens.
grpc_calls: dict[int, Future[GrpcReply]] = {}
grpc_streams: dict[int, GrpcStream] = {}


def grpc(
    cluster: str, service: str, method: str, message: Data, metadata: HeadersLike = None, timeout: float = 5.0
) -> Future[GrpcReply]:
    """Call a gRPC method of a cluster, and await a `GrpcReply`. `message` is the encoded protobuf message.

    `timeout` is in seconds. Raises: HostError, if the host has no such cluster.
    """
    future: Future[GrpcReply] = Future()
    grpc_calls[host.grpc_call(cluster, service, method, pairs(metadata), message, int(timeout * 1000))] = future
    return future


def grpc_stream(cluster: str, service: str, method: str, metadata: HeadersLike = None) -> GrpcStream:
    """Open a gRPC call with streams of messages. Raises: HostError, if the host has no such cluster."""
    token = host.grpc_stream(cluster, service, method, pairs(metadata))
    grpc_streams[token] = stream = GrpcStream(token, now.context)
    return stream
