"""gRPC callouts with grpcio, for both kinds of drivers. Messages are bytes.

Filters get the same results as from Envoy's client (``envoy_grpc``):

    =====================================  ============================================================
    status 0 with a message                on_grpc_receive
    another status, of the server          on_grpc_close with it and its message
    no connection                          14, ``upstream connect error or disconnect/reset …``
    no answer in time                      14, ``upstream request timeout``
    a message that is too large            8 (RESOURCE_EXHAUSTED)
    a connection that ends amid a call     14 (Envoy: 13 once the answer has begun)
    =====================================  ============================================================

A stream's callbacks come in Envoy's order: initial metadata, messages, trailing metadata, close. The metadata include
``:status``, ``content-type``, ``grpc-status`` and ``grpc-message``, as in Envoy. For filters, values of names that end
in ``-bin`` are in base64, as on the wire.

An unreachable server is tried again within a second.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import re
import ssl
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, Union
from urllib.parse import urlsplit

from proxywasm_host import remedy

try:
    import anyio
    import anyio.from_thread
    import grpc
    import grpc.aio
    from anyio.lowlevel import checkpoint_if_cancelled, current_token
except ModuleNotFoundError as error:
    raise remedy.missing("grpc", error) from None

from proxywasm_host.abi.pairs import HeaderList
from proxywasm_host.driver.clusters import Cluster, Clusters
from proxywasm_host.driver.conversation import AsyncConversation, ThreadConversation
from proxywasm_host.driver.in_threads import in_thread, on_asyncio
from proxywasm_host.runtime.effects import (
    CalloutFailed,
    GrpcCall,
    GrpcCallReply,
    GrpcClosed,
    GrpcInitialMetadata,
    GrpcMessage,
    GrpcStream,
    GrpcTrailingMetadata,
    Reply,
)

__all__ = ["AsyncGrpcClient", "GrpcClient"]

UNAVAILABLE, DEADLINE_EXCEEDED, INTERNAL = 14, 4, 13
NO_CONNECTION = "upstream connect error or disconnect/reset before headers. reset reason: remote connection failure"
TIMED_OUT = "upstream request timeout"
NAME, VALUE = re.compile(rb"[0-9a-z_.-]+"), re.compile(rb"[ -~]*")
OWN = (b"grpc-", b"content-type", b"te", b"user-agent")
"""Prefixes of names that only grpcio may send."""
FIRST = (b":status", b"200"), (b"content-type", b"application/grpc")
BACK_OFF = 100, 1000
"""Initial and maximum milliseconds until an unreachable server is tried again."""
Call = Union[GrpcCall, GrpcStream]


def sent(metadata: HeaderList) -> tuple[tuple[str, bytes], ...]:
    """Metadata of a filter in the form of grpcio, without entries that gRPC cannot represent."""
    return tuple(
        (name.decode(), _decoded(value) if name.endswith(b"-bin") else value.strip())
        for name, value in metadata
        if NAME.fullmatch(name) and VALUE.fullmatch(value) and not name.startswith(OWN)
    )


def _decoded(value: bytes) -> bytes:
    try:
        return base64.b64decode(value + b"=" * (-len(value) % 4), validate=True)
    except binascii.Error:
        return value  # grpcio encodes it


def received(metadata: Iterable[tuple[str, Any]] | None) -> HeaderList:
    """Metadata of a server in the form for filters."""
    return [(name.encode(), _shown(name, value)) for name, value in metadata or ()]


def _shown(name: str, value: str | bytes) -> bytes:
    if isinstance(value, str):
        return value.encode("latin-1", "replace")
    return base64.b64encode(value).rstrip(b"=") if name.endswith("-bin") else value


def initial(metadata: Iterable[tuple[str, Any]] | None) -> GrpcInitialMetadata:
    return GrpcInitialMetadata([*FIRST, *received(metadata)])


def trailing(metadata: Iterable[tuple[str, Any]] | None, closed: GrpcClosed) -> GrpcTrailingMetadata:
    status = [(b"grpc-status", b"%d" % closed.status)]
    message = [(b"grpc-message", closed.message.encode())] if closed.message else []
    return GrpcTrailingMetadata([*status, *message, *received(metadata)])


def closed(code: Any, details: str | None, until: float | None = None) -> GrpcClosed:
    """The result of a call that has ended. `until` is its deadline, in seconds of ``time.monotonic``."""
    status, message = code.value[0], details or ""
    if status == UNAVAILABLE and message.startswith("failed to connect to all addresses"):
        return GrpcClosed(UNAVAILABLE, NO_CONNECTION)
    if status == DEADLINE_EXCEEDED and until is not None and time.monotonic() >= until:
        return GrpcClosed(UNAVAILABLE, TIMED_OUT)
    return GrpcClosed(status, message)


def seconds_of(callout: GrpcCall, cluster: Cluster) -> float | None:
    """The timeout of a call in seconds, or ``None``."""
    return callout.timeout / 1000 if callout.timeout else cluster.timeout


def options(cluster: Cluster) -> list[tuple[str, object]]:
    """Options of a channel."""
    first, most = BACK_OFF
    result: list[tuple[str, object]] = [
        ("grpc.enable_http_proxy", 0),
        ("grpc.enable_retries", 0),
        ("grpc.use_local_subchannel_pool", 1),
        ("grpc.initial_reconnect_backoff_ms", first),
        ("grpc.max_reconnect_backoff_ms", most),
        ("grpc.min_reconnect_backoff_ms", max(first, int(cluster.connect_timeout * 1000))),
        ("grpc.max_receive_message_length", cluster.max_response),
        ("grpc.max_send_message_length", -1),
    ]
    if cluster.authority is not None:
        result.append(("grpc.default_authority", cluster.authority))
    if cluster.keep_alive is not None:
        milliseconds = int(cluster.keep_alive * 1000)
        names = "keepalive_time", "keepalive_timeout", "http2.ping_timeout"  # the last one also counts
        result += [(f"grpc.{name}_ms", milliseconds) for name in names]
    return result


def address(cluster: Cluster) -> tuple[str, grpc.ChannelCredentials | None]:
    """The target of a channel, and its settings of TLS. Raises: OSError, ValueError."""
    parts = urlsplit(cluster.url)
    host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
    if parts.scheme != "https":
        return f"{host}:{parts.port or 80}", None
    if not cluster.verify:
        raise ValueError("gRPC always checks the server's certificate: name its authority, verify='ca.pem'")
    authorities = cluster.verify if isinstance(cluster.verify, str) else ssl.get_default_verify_paths().cafile
    certificate, key = cluster.certificate or (None, None)
    content = [Path(file).read_bytes() if file else None for file in (authorities, key, certificate)]
    return f"{host}:{parts.port or 443}", grpc.ssl_channel_credentials(*content)


def method_of(callout: Call) -> str:
    return f"/{callout.service}/{callout.method}"


async def ended(call: Any) -> None:
    """Cancel a call unless it has ended, and wait for grpcio's tasks, because the event loop may end after that."""
    if not call.done():
        call.cancel()
        with anyio.move_on_after(1, shield=True), suppress(asyncio.CancelledError):
            await call.code()


class AsyncGrpcClient:
    """Makes gRPC callouts in an event loop. Channels are made on first use, one for each cluster.

    Streams use threads and the synchronous interface of grpcio, because ``grpc.aio`` loses the status of a stream if a
    message cannot be sent because the server has ended it. ``grpc.aio`` supports only asyncio (and uvloop), so on trio
    unary calls also use threads.
    """

    def __init__(self, clusters: Clusters) -> None:
        self.clusters = clusters
        self._channels: dict[Cluster, grpc.aio.Channel] = {}
        self._threads: GrpcClient | None = None

    async def __call__(self, callout: Any, /, conversation: AsyncConversation | None = None) -> Reply:
        """Make one call, or carry one stream. Its result or its failure is the reply."""
        if conversation is not None or not on_asyncio():
            self._threads = self._threads or GrpcClient(self.clusters)
            talk = [] if conversation is None else [FromThread(conversation)]
            return await in_thread(self._threads, callout, *talk)
        try:
            cluster = self.clusters[callout.cluster]
            channel = self._channel(cluster)
        except (OSError, ValueError, KeyError) as error:
            return CalloutFailed(str(error))
        try:
            return await self._ask(channel, callout, seconds_of(callout, cluster))
        except asyncio.CancelledError:
            await checkpoint_if_cancelled()  # anyio's scopes do not accept the CancelledError that grpcio raises
            raise

    @staticmethod
    async def _ask(channel: Any, callout: GrpcCall, seconds: float | None) -> Reply:
        until = None if seconds is None else time.monotonic() + seconds
        make = channel.unary_unary(method_of(callout))
        call = make(callout.message, timeout=seconds, metadata=sent(callout.metadata))
        try:
            return GrpcCallReply(await call)
        except grpc.aio.AioRpcError as error:
            return closed(error.code(), error.details(), until)
        finally:
            await ended(call)

    def _channel(self, cluster: Cluster) -> Any:
        """The channel to a cluster. Raises: OSError, ValueError."""
        if cluster not in self._channels:
            target, credentials = address(cluster)
            self._channels[cluster] = (
                grpc.aio.insecure_channel(target, options(cluster))
                if credentials is None
                else grpc.aio.secure_channel(target, credentials, options(cluster))
            )
        return self._channels[cluster]

    async def aclose(self) -> None:
        """Close all connections."""
        for channel in self._channels.values():
            await channel.close()
        if self._threads is not None:
            self._threads.close()


class GrpcClient:
    """Makes gRPC callouts in the calling thread; several threads may use it. Channels are made on first use."""

    def __init__(self, clusters: Clusters) -> None:
        self.clusters = clusters
        self._channels: dict[Cluster, grpc.Channel] = {}
        self._calls: dict[int, Any] = {}
        """Current calls, by the identity of their callout."""
        self._lock = threading.Lock()

    def __call__(self, callout: Any, /, conversation: ThreadConversation | None = None) -> Reply:
        """Make one call, or carry one stream. Its result or its failure is the reply."""
        try:
            cluster = self.clusters[callout.cluster]
            channel = self._channel(cluster)
        except (OSError, ValueError, KeyError) as error:
            return CalloutFailed(str(error))
        if conversation is not None:
            return self._converse(channel, callout, conversation)
        seconds = seconds_of(callout, cluster)
        until = None if seconds is None else time.monotonic() + seconds
        call = channel.unary_unary(method_of(callout)).future(
            callout.message, timeout=seconds, metadata=sent(callout.metadata)
        )
        self._calls[id(callout)] = call
        try:
            return GrpcCallReply(call.result())
        except grpc.FutureCancelledError:
            return CalloutFailed()
        except grpc.RpcError as error:
            return closed(error.code(), error.details(), until)
        finally:
            del self._calls[id(callout)]

    @staticmethod
    def _converse(channel: Any, callout: GrpcStream, conversation: ThreadConversation) -> Reply:
        call = channel.stream_stream(method_of(callout))(iter(conversation), metadata=sent(callout.metadata))
        conversation.on_cancel = call.cancel
        if conversation.cancelled:  # before `on_cancel` was set
            call.cancel()
        conversation.tell(initial(call.initial_metadata()))
        with suppress(grpc.RpcError):  # `end` has the error
            for message in call:
                conversation.tell(GrpcMessage(message))
        end = closed(call.code(), call.details())
        conversation.tell(trailing(call.trailing_metadata(), end))
        return end

    def cancel(self, callout: Call) -> None:
        """Cancel a call, from any thread. A conversation cancels itself."""
        call = self._calls.get(id(callout))
        if call is not None:
            call.cancel()

    def _channel(self, cluster: Cluster) -> Any:
        """The channel to a cluster. Raises: OSError, ValueError."""
        with self._lock:
            if cluster not in self._channels:
                target, credentials = address(cluster)
                self._channels[cluster] = (
                    grpc.insecure_channel(target, options(cluster))
                    if credentials is None
                    else grpc.secure_channel(target, credentials, options(cluster))
                )
            return self._channels[cluster]

    def close(self) -> None:
        """Close all connections, and end the calls on them."""
        with self._lock:
            for channel in self._channels.values():
                channel.close()


class FromThread(ThreadConversation):
    """A conversation in an event loop, for a client in a thread for which the loop waits."""

    def __init__(self, conversation: AsyncConversation) -> None:
        super().__init__(conversation.callout, self._deliver)
        self._conversation = conversation
        self._loop = current_token()

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._conversation)

    def _deliver(self, callout: GrpcStream, reply: Reply, then: Callable[[], None]) -> None:
        try:
            anyio.from_thread.run_sync(self._conversation.deliver, callout, reply, then, token=self._loop)
        except RuntimeError:  # the loop has ended, with the task that waited
            self.cancel()
