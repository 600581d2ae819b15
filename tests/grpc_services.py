"""A gRPC server on loopback, as filters call: Envoy's rate limits and external authorization, and one that echoes.

Messages are made and read by hand, field by field, so no generated code is needed.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc

from proxywasm_host.protobuf import field, fields

OK, OVER_LIMIT = 1, 2
PERMISSION_DENIED = 7


def inside(message: bytes, *path: int) -> Iterator[Any]:
    """All values at a path of field numbers."""
    number, *rest = path
    for found, value in fields(message):
        if found == number:
            if rest:
                assert isinstance(value, bytes)
                yield from inside(value, *rest)
            else:
                yield value


class Services(grpc.GenericRpcHandler):
    """What the server answers, and what it has `seen`: (method, metadata, message)."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, dict[str, Any], bytes]] = []
        self.left: dict[str, int] = {}
        """Rate limits: how many requests a descriptor has left."""
        self.release = threading.Event()
        """Ends what is slow."""
        self.cancelled = threading.Event()
        """A call was broken off."""

    def service(self, details: Any) -> Any:
        name = details.method.rpartition("/")[2]
        metadata = {each.key: each.value for each in details.invocation_metadata}

        def unary(message: bytes, context: Any) -> bytes:
            self.seen.append((details.method, metadata, message))
            return getattr(self, name)(message, context)

        def stream(messages: Iterator[bytes], context: Any) -> Iterator[bytes]:
            self._notice(context)

            def seen() -> Iterator[bytes]:
                for message in messages:
                    self.seen.append((details.method, metadata, message))
                    yield message

            return getattr(self, name)(seen(), context)

        if not hasattr(self, name):
            return None
        if name.startswith("Stream"):
            return grpc.stream_stream_rpc_method_handler(stream)
        return grpc.unary_unary_rpc_method_handler(unary)

    def _notice(self, context: Any) -> None:
        if not context.add_callback(self.cancelled.set):
            self.cancelled.set()

    # -- Envoy's services ------------------------------------------------------------------------------------------

    def ShouldRateLimit(self, message: bytes, context: Any) -> bytes:
        """``envoy.service.ratelimit.v3.RateLimitService``: a request counts for each value of its descriptor."""
        [value] = inside(message, 2, 1, 2)
        left = self.left.get(value.decode(), 2)
        self.left[value.decode()] = left - 1
        header = field(1, "x-left") + field(2, str(max(left - 1, 0)))
        return field(1, OK if left > 0 else OVER_LIMIT) + field(3, header)

    def Check(self, message: bytes, context: Any) -> bytes:
        """``envoy.service.auth.v3.Authorization``: who sends ``authorization: good`` is let in, by name."""
        headers = {
            next(inside(entry, 1)).decode(): next(inside(entry, 2)).decode() for entry in inside(message, 1, 4, 2, 3)
        }
        if headers.get("authorization") == "good":
            option = field(1, field(1, "x-user") + field(2, "anna"))
            return field(1, b"") + field(3, field(2, option))
        denied = (
            field(1, field(1, 403)) + field(2, field(1, field(1, "x-why") + field(2, "bad"))) + field(3, "No entry.")
        )
        return field(1, field(1, PERMISSION_DENIED)) + field(2, denied)

    # -- One that echoes -------------------------------------------------------------------------------------------

    def Echo(self, message: bytes, context: Any) -> bytes:
        context.send_initial_metadata((("x-begin", "1"),))
        context.set_trailing_metadata((("x-end", "2"),))
        return message

    def Abort(self, message: bytes, context: Any) -> bytes:
        context.abort(grpc.StatusCode.NOT_FOUND, "no such thing")

    def Flaky(self, message: bytes, context: Any) -> bytes:
        """Answers the third time."""
        if sum(method.endswith("/Flaky") for method, _, _ in self.seen) < 3:
            context.abort(grpc.StatusCode.UNAVAILABLE, "not yet")
        return message

    def Slow(self, message: bytes, context: Any) -> bytes:
        self._notice(context)
        self.release.wait(10)
        return b""

    def AfterSlow(self, message: bytes, context: Any) -> bytes:
        """Answers when `Slow` was called."""
        for _ in range(1000):
            if any(method.endswith("/Slow") for method, _, _ in self.seen):
                break
            self.release.wait(0.01)
        return message

    def Large(self, message: bytes, context: Any) -> bytes:
        return bytes(100_000)

    def StreamEcho(self, messages: Iterator[bytes], context: Any) -> Iterator[bytes]:
        context.send_initial_metadata((("x-begin", "1"), ("x-bin", b"\0\xff")))
        for message in messages:
            yield b"echo of " + message
        context.set_trailing_metadata((("x-end", "2"),))

    def StreamAbort(self, messages: Iterator[bytes], context: Any) -> Iterator[bytes]:
        yield b"one"
        context.abort(grpc.StatusCode.NOT_FOUND, "no such thing")

    def StreamRefuse(self, messages: Iterator[bytes], context: Any) -> Iterator[bytes]:
        context.abort(grpc.StatusCode.PERMISSION_DENIED, "not you")

    def StreamMany(self, messages: Iterator[bytes], context: Any) -> Iterator[bytes]:
        """Sends 64 KiB as often as it may, until it is broken off; `many` says how often that was."""
        self.many = 0
        while context.is_active() and self.many < 10_000:
            self.many += 1
            yield bytes(1 << 16)

    def StreamHang(self, messages: Iterator[bytes], context: Any) -> Iterator[bytes]:
        yield b"one"
        while context.is_active() and not self.release.wait(0.005):
            pass

    def StreamSilent(self, messages: Iterator[bytes], context: Any) -> Iterator[bytes]:
        """Hears all, and answers nothing."""
        for _ in messages:
            pass
        while context.is_active() and not self.release.wait(0.005):
            pass
        yield b"late"


class GrpcServer:
    """Listens on a `port` of loopback, or a `given` one, from the start until `stop`."""

    def __init__(self, credentials: Any = None, given: int = 0) -> None:
        self.services = Services()
        self._server = grpc.server(ThreadPoolExecutor(16), options=[("grpc.so_reuseport", 0)])
        self._server.add_generic_rpc_handlers((self.services,))
        address = f"127.0.0.1:{given}"
        if credentials is None:
            self.port = self._server.add_insecure_port(address)
        else:
            self.port = self._server.add_secure_port(address, credentials)
        self._server.start()
        self.url = f"http{'s' if credentials else ''}://127.0.0.1:{self.port}"

    @property
    def seen(self) -> list[tuple[str, dict[str, Any], bytes]]:
        return self.services.seen

    def stop(self) -> None:
        """End at once, calls under way included."""
        self._server.stop(0).wait(5)
        self.services.release.set()
