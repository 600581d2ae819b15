"""An ext_proc server in Python without filters, which does the work of `benchmarks.headers` itself.

python -m benchmarks.contenders.ext_proc       prints the port that it serves on
"""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
import grpc.aio

from proxywasm_host.envoy.messages import ProcessingRequest, ProcessingResponse

SERVICE = "envoy.service.ext_proc.v3.ExternalProcessor"
OVERWRITE = 2


def answered(message: Any) -> Any:
    """The changes of one direction's headers."""
    answer = ProcessingResponse()
    kind = message.WhichOneof("request")
    headers = {header.key: header.raw_value for header in getattr(message, kind).headers.headers}
    mutation = getattr(answer, kind).response.header_mutation
    changes = [("x-wasm", b"hello")]
    if kind == "request_headers":
        headers.get(":path"), headers.get("user-agent")
        mutation.remove_headers.append("x-remove-me")
    else:
        headers.get("server")
        changes.append(("server", b"hello"))
    for name, value in changes:
        option = mutation.set_headers.add(append_action=OVERWRITE)
        option.header.key, option.header.raw_value = name, value
    return answer


async def process(_: Any, context: Any) -> None:
    """Handle one call."""
    while (message := await context.read()) is not grpc.aio.EOF:
        await context.write(answered(message))


async def main() -> None:
    """Serve until the process is terminated."""
    server = grpc.aio.server()
    method = grpc.stream_stream_rpc_method_handler(
        process, ProcessingRequest.FromString, ProcessingResponse.SerializeToString
    )
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, {"Process": method}),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(f"serving grpc://127.0.0.1:{port}", flush=True)
    await server.wait_for_termination()


if __name__ == "__main__":
    asyncio.run(main())
