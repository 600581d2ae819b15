"""The same cases through a real Envoy once more, but with our filters behind its ``ext_proc``."""

from __future__ import annotations

import asyncio
import dataclasses
import pathlib
from collections.abc import Sequence
from typing import Any

import grpc
import grpc.aio

from proxywasm_host import Host, Services
from proxywasm_host.driver.clusters import Clusters
from proxywasm_host.driver.worker import Worker
from proxywasm_host.engine.protocol import Engine
from proxywasm_host.envoy.ext_proc import ExtProc
from proxywasm_host.envoy.messages import ProcessingRequest, ProcessingResponse
from proxywasm_host.envoy.pump import Pump
from proxywasm_host.errors import ProxyWasmError
from proxywasm_host.services import ManualClock
from tests.envoy.rig import API, Answer, Case, running
from tests.envoy.through_host import NODE, filter_config
from tests.support import Lines

ATTRIBUTES = ["source.address", "request.protocol", "xds.cluster_name", "xds.route_name", "xds.virtual_host_name"]


def http_filter(mode: str, **options: Any) -> dict[str, Any]:
    """Envoy's filter, with this mode for both bodies."""
    trailers = "SEND" if mode in ("FULL_DUPLEX_STREAMED", "STREAMED") else "SKIP"
    config = {
        "@type": API + "extensions.filters.http.ext_proc.v3.ExternalProcessor",
        "grpc_service": {"envoy_grpc": {"cluster_name": "ext_proc"}},
        "processing_mode": {
            "request_body_mode": mode,
            "response_body_mode": mode,
            "request_trailer_mode": trailers,
            "response_trailer_mode": trailers,
        },
        "mutation_rules": {"allow_all_routing": True, "allow_envoy": True},
        "message_timeout": "10s",
        "status_on_error": {"code": "ServiceUnavailable"},
        "request_attributes": ATTRIBUTES,
        **options,
    }
    return {"name": "ext_proc", "typed_config": config}


class Processor:
    """An ext_proc server whose chain is that of the case."""

    worker: Worker
    case: Case
    told: list[str]
    open = 0
    """Calls under way."""

    async def start(self) -> int:
        self.told = []
        self.server = grpc.aio.server()
        method = grpc.stream_stream_rpc_method_handler(
            self.process, ProcessingRequest.FromString, ProcessingResponse.SerializeToString
        )
        handler = grpc.method_handlers_generic_handler(ExtProc.SERVICE, {"Process": method})
        self.server.add_generic_rpc_handlers((handler,))
        port: int = self.server.add_insecure_port("127.0.0.1:0")
        await self.server.start()
        return port

    async def process(self, _: Any, context: Any) -> None:
        properties: dict[str, Any] = {}
        stream = self.worker.host.http_stream(
            self.worker.plugins,
            properties=properties,
            buffer_limit=self.case.buffer_limit or 1 << 20,
            header_limits=None,
        )
        pump = Pump(self.worker.driver, stream, properties, context, begins=lambda *_: None, tell=self.told.append)
        self.open += 1
        try:
            await pump.run()
        finally:
            self.open -= 1


async def _ask_all(
    cases: Sequence[Case], folder: pathlib.Path, engine: Engine, filter: dict[str, Any]
) -> dict[str, tuple[Answer, list[str], list[str]]]:
    answers = {}
    processor = Processor()
    port = await processor.start()
    try:
        async with running(folder, {"ext_proc": port}, lambda _: [filter]) as envoy:
            assert envoy.upstream.server is not None
            envoy.upstream.paces_callouts = False
            upstream = f"http://127.0.0.1:{envoy.upstream.server.sockets[0].getsockname()[1]}"
            for case in cases:
                log = Lines()
                services = Services(log=log, clock=ManualClock(), clusters=Clusters({"upstream": upstream}))
                chain = [filter_config(at, each) for at, each in enumerate(case.filters)]
                worker = Worker(lambda services=services: Host(engine, services=services, properties=NODE), chain)
                running_worker = asyncio.ensure_future(worker.run())
                try:
                    await worker.ready()
                except ProxyWasmError:
                    answers[case.name] = Answer(started=False), log.messages, []
                    continue
                processor.worker, processor.case, processor.told = worker, case, []
                answer = await envoy.ask(dataclasses.replace(case, patience=max(case.patience, 1.0)))
                for _ in range(200):  # what filters log at the end comes a little after the response
                    if not processor.open:
                        break
                    await asyncio.sleep(0.01)
                await worker.stop()
                await running_worker
                answers[case.name] = answer, log.messages, processor.told
    finally:
        await processor.server.stop(0)
    return answers


def ask_ext_proc(
    cases: Sequence[Case], folder: pathlib.Path, engine: Engine, filter: dict[str, Any]
) -> dict[str, tuple[Answer, list[str], list[str]]]:
    """What Envoy did with each case, what the filters logged, and what the pump told of their modes."""
    return asyncio.run(_ask_all(cases, folder, engine, filter))
