"""The service ``grpc.health.v1.Health``, which load balancers and Kubernetes call."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import grpc

from proxywasm_host.envoy.messages import HealthCheckRequest, HealthCheckResponse

__all__ = ["HealthService"]

SERVING, NOT_SERVING, SERVICE_UNKNOWN = 1, 2, 3
EACH = 1.0
"""Seconds between two checks by ``Watch``."""


class HealthService:
    """Reports the health of the server (``""``) and of its `service`, which is the result of `serving`."""

    def __init__(self, service: str, serving: Callable[[], Awaitable[bool]]) -> None:
        self._names = ("", service)
        self._serving = serving
        self._over = anyio.Event()

    def end(self) -> None:
        """The server ends: end the calls of ``Watch``, which it would wait for."""
        self._over.set()

    def handlers(self) -> grpc.GenericRpcHandler:
        """The handlers for the gRPC server."""
        codec = {
            "request_deserializer": HealthCheckRequest.FromString,
            "response_serializer": HealthCheckResponse.SerializeToString,
        }
        methods = {
            "Check": grpc.unary_unary_rpc_method_handler(self._check, **codec),
            "Watch": grpc.unary_stream_rpc_method_handler(self._watch, **codec),
        }
        return grpc.method_handlers_generic_handler("grpc.health.v1.Health", methods)

    async def _status(self, service: str) -> int:
        if service not in self._names:
            return SERVICE_UNKNOWN
        return SERVING if await self._serving() else NOT_SERVING

    async def _check(self, request: Any, context: Any) -> Any:
        status = await self._status(request.service)
        if status == SERVICE_UNKNOWN:
            await context.abort(grpc.StatusCode.NOT_FOUND, f"there is no service {request.service!r}")
        return HealthCheckResponse(status=status)

    async def _watch(self, request: Any, context: Any) -> None:
        told = -1
        while True:
            over = self._over.is_set()
            status = NOT_SERVING if over else await self._status(request.service)
            if status != told:
                told = status
                await context.write(HealthCheckResponse(status=status))
            if over:
                return
            with anyio.move_on_after(EACH):
                await self._over.wait()
