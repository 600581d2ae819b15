"""gRPC callouts: one message and its answer, and streams of messages."""

from __future__ import annotations

from typing import TYPE_CHECKING

from proxywasm._host import host
from proxywasm._tasks import FixedHeaders, Future, now, pairs

if TYPE_CHECKING:
    from proxywasm._types import Data, HeadersLike

__all__ = ["GrpcReply", "GrpcStream", "grpc", "grpc_calls", "grpc_stream", "grpc_streams"]


class GrpcReply:
    """The answer to a gRPC call: `status` (0 is OK), `details`, and the `message` as bytes."""

    def __init__(self, status: int, details: str, message: bytes) -> None:
        self.status = status
        self.details = details
        self.message = message


class GrpcStream:
    """A gRPC call whose two sides send any number of messages, which are bytes. ::

        stream = self.grpc_stream("scanner", "scan.Scanner", "Scan")
        stream.send(request, end=True)
        async for message in stream:
            ...
        if stream.status != 0:
            log.warning("scan: %s", stream.details)

    It ends with the stream of HTTP for which it was opened; one that was opened for the plugin goes on.
    """

    def __init__(self, token: int, context: int) -> None:
        self.metadata = FixedHeaders([])
        """The initial metadata of the server, as headers: there before the first message."""
        self.trailers = FixedHeaders([])
        """The trailing metadata of the server: there at the end."""
        self.status: int | None = None
        """The status once the server has ended the call (0 is OK), 1 once `cancel` has; None before."""
        self.details = ""
        """What the server says of the status."""
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
        """No more messages will be sent; those of the server still come. Once is enough."""
        if not self._ended and self.status is None:
            self._ended = True
            host.grpc_close(self._token)

    def cancel(self) -> None:
        """Break the call off: the server's messages come no more."""
        if self.status is None:
            grpc_streams.pop(self._token, None)
            host.grpc_cancel(self._token)
            self._finish(1, "cancelled")

    def receive(self) -> Future[bytes | None]:
        """The next message, once it is there: ``await stream.receive()``; None at the end."""
        future: Future[bytes | None] = Future()
        if self._messages:
            future.set(self._messages.pop(0))
        elif self.status is not None:
            future.set(None)
        elif self._waiting is not None:
            raise RuntimeError("something waits for this gRPC stream already")
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


# Calls that are under way, by their tokens.
grpc_calls: dict[int, Future[GrpcReply]] = {}
grpc_streams: dict[int, GrpcStream] = {}


def grpc(
    cluster: str, service: str, method: str, message: Data, metadata: HeadersLike = None, timeout: float = 5.0
) -> Future[GrpcReply]:
    """Call a gRPC method of a cluster; awaited it is a `GrpcReply`. `message` is the encoded protobuf message.

    Raises: HostError, if the host knows no such cluster.
    """
    future: Future[GrpcReply] = Future()
    grpc_calls[host.grpc_call(cluster, service, method, pairs(metadata), message, int(timeout * 1000))] = future
    return future


def grpc_stream(cluster: str, service: str, method: str, metadata: HeadersLike = None) -> GrpcStream:
    """Open a gRPC call with streams of messages. Raises: HostError, if the host knows no such cluster."""
    token = host.grpc_stream(cluster, service, method, pairs(metadata))
    grpc_streams[token] = stream = GrpcStream(token, now.context)
    return stream
