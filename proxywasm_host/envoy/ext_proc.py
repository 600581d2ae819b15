"""The service ``envoy.service.ext_proc.v3.ExternalProcessor``, which runs filters."""

from __future__ import annotations

from typing import Any

import grpc
import grpc.aio

from proxywasm_host.abi.values import PropertyValue
from proxywasm_host.envoy.application import Application, Generation
from proxywasm_host.envoy.attributes import add_attributes
from proxywasm_host.envoy.messages import ProcessingRequest, ProcessingResponse
from proxywasm_host.envoy.mutation import pairs_of
from proxywasm_host.envoy.pump import Pump
from proxywasm_host.envoy.settings import ExtProcSettings

__all__ = ["ExtProc"]


class ExtProc(Application[ExtProcSettings]):
    """The server of ``proxywasm ext-proc`` in one process."""

    SERVICE = "envoy.service.ext_proc.v3.ExternalProcessor"

    def _methods(self) -> dict[str, Any]:
        return {
            "Process": grpc.stream_stream_rpc_method_handler(
                self._process, ProcessingRequest.FromString, ProcessingResponse.SerializeToString
            )
        }

    async def _process(self, _: Any, context: Any) -> None:
        async def call(generation: Generation[ExtProcSettings]) -> None:
            properties: dict[str, PropertyValue] = {}
            first, authority, path = None, b"", b""
            if generation.worker.by_request:
                first = await context.read()
                if first is grpc.aio.EOF:
                    return
                authority, path = addressed_by(first, properties)
            stream = generation.stream(properties, authority, path)
            looked_at = False

            def begins(method: bytes, path: bytes) -> None:
                nonlocal looked_at
                looked_at = self._tracer.begin(stream, generation.number, method, path)

            pump = Pump(
                generation.worker.driver,
                stream,
                properties,
                context,
                message_timeout=int((generation.settings.message_timeout or 0) * 1000),
                begins=begins,
                tell=self._tell_once,
                first=first,
            )
            try:
                await pump.run()
            finally:
                if looked_at:
                    self._tracer.end(stream)

        await self._counted(context, call)


def addressed_by(message: Any, properties: dict[str, PropertyValue]) -> tuple[bytes, bytes]:
    """The authority and path in the first message of a call, whose attributes are added to `properties`."""
    add_attributes(properties, message.attributes)
    told = dict(pairs_of(message.request_headers.headers))
    return told.get(b":authority", b""), told.get(b":path", b"")
