"""``envoy.service.ext_proc.v3.ExternalProcessor``, with filters."""

from __future__ import annotations

from typing import Any

import grpc

from proxywasm_host.abi.values import PropertyValue
from proxywasm_host.envoy.application import Application, Generation
from proxywasm_host.envoy.messages import ProcessingRequest, ProcessingResponse
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
            stream = generation.stream(properties)
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
            )
            try:
                await pump.run()
            finally:
                if looked_at:
                    self._tracer.end(stream)

        await self._counted(context, call)
