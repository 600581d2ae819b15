"""The same cases through our host, told in the same words as Envoy's answers."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from httpx2 import RemoteProtocolError

from proxywasm_host import ENVOY, FilterConfig, Host, Plugin, PluginError, Services
from proxywasm_host.abi.marshal import Call
from proxywasm_host.abi.types import LogLevel
from proxywasm_host.driver.http import no_answer
from proxywasm_host.engine.protocol import Engine
from proxywasm_host.runtime.effects import CalloutFailed, HttpCall, HttpCallReply
from proxywasm_host.services import ManualClock
from proxywasm_host.testing import ExchangeResult, Invocation, Message, Recorder, exchange
from tests.envoy.rig import (
    Answer,
    Callback,
    Case,
    Filter,
    Response,
    seen_request,
    seen_response,
    sent_pairs,
    steady_logs,
    without_framing,
)

LEVELS = {LogLevel.CRITICAL: "critical", LogLevel.ERROR: "error", LogLevel.WARN: "warning"}
PROPERTIES = {
    "request.protocol": "HTTP/1.1",
    "xds.cluster_name": "upstream",
    "xds.route_name": "only",
    "xds.virtual_host_name": "all",
    "xds.filter_chain_name": "",
    "xds.listener_direction": 0,
    "xds.cluster_metadata": None,
    "xds.listener_metadata": None,
    "xds.virtual_host_metadata": None,
    "connection.mtls": False,
    "connection.requested_server_name": "",
    "metadata": None,
    "metadata.filter_metadata": {},
    "xds.route_metadata.filter_metadata.my.key": "value",
    "upstream.num_endpoints": 1,
}
NODE = {"xds.node": {"id": "node-1", "metadata": {"KEY": "value"}, "locality": {"region": "r"}}}
SERVICE_TIME = (b"x-envoy-upstream-service-time", b"0")
"""What Envoy adds to the reply of a callout."""


@dataclass
class Told:
    """What is compared: one entry for each line that a person would look at."""

    upstream: list[object] = field(default_factory=list)
    client: list[object] = field(default_factory=list)
    logs: list[tuple[str, str]] = field(default_factory=list)
    callbacks: list[str] = field(default_factory=list)
    started: bool = True


def told_by_envoy(case: Case, answer: Answer) -> Told:
    told = Told(started=answer.started)
    request, response = answer.upstream_request, answer.client_response
    if request is not None:
        told.upstream = [_grouped(sent_pairs(request)), request.body, _lower(request.trailers), request.complete]
    if response is not None:
        told.client = [
            response.status,
            without_framing(response.headers),
            response.body,
            _lower(response.trailers),
            response.complete,
        ]
    told.logs = [(level, message) for _, level, message in steady_logs(answer.logs, case)]
    told.callbacks = _transcript([callback for callback in answer.callbacks if not _ends_a_root(callback)])
    return told


def _grouped(pairs: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    """Pseudo headers sorted, for HTTP/1.1 does not tell their order; the others as they are."""
    return sorted(pair for pair in pairs if pair[0].startswith(b":")) + [
        pair for pair in pairs if not pair[0].startswith(b":")
    ]


def _line(plugin: str, name: str, args: tuple[object, ...], result: object) -> str:
    """A callback without contexts, whose ids are the host's own business."""
    shown = "" if name == "proxy_on_context_create" else ", ".join(map(str, args[1:]))
    return f"{plugin}: {name}({shown}){'' if result is None else f' = {result}'}"


def _lower(pairs: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    return [(name.lower(), value) for name, value in pairs]


def _ends_a_root(callback: Callback) -> bool:
    """Envoy takes a chain whose filter failed down when it comes to it, as likely as not before the first request."""
    return callback.name in ("proxy_on_done", "proxy_on_delete") and str(callback.args[0]).startswith("root")


def _transcript(callbacks: list[Callback]) -> list[str]:
    lines = []
    for callback in callbacks:
        lines.append(_line(callback.plugin, callback.name, callback.args, callback.result))
        lines += [f"  {call.name} = {call.status}" for call in callback.events if call.name != "proxy_log"]
    return lines


def told_by_us(case: Case, engine: Engine) -> Told:
    recorder, clock, told = Recorder(), ManualClock(), Told()
    services = Services(log=recorder, clock=clock, clusters={"upstream"}, random=lambda size: b"\xff" * size)
    with Host(engine, services=services, listener=recorder, properties=NODE) as host:
        try:
            plugins = [_load(host, i, f) for i, f in enumerate(case.filters)]
            loaded = len(recorder.timeline)
            for _ in range(case.repeat):
                _tell(told, _one(host, plugins, recorder, case))
                clock.advance(case.pause)
                if case.pause or case.linger:
                    _tick(plugins)
            told.callbacks = _callbacks(recorder.timeline[loaded:])
        except PluginError:
            told.started = False
    lines = [("", LEVELS.get(line.level, LogLevel(line.level).name.lower()), line.message) for line in recorder.logs]
    told.logs = [(level, message) for _, level, message in steady_logs(lines, case)]
    return told


def _tick(plugins: list[Plugin]) -> None:
    """Let time pass: a few ticks for those that want them."""
    for _ in range(5):
        for plugin in plugins:
            plugin.tick()


def _load(host: Host, index: int, f: Filter) -> Plugin:
    return host.load_plugin(filter_config(index, f))


def filter_config(index: int, f: Filter) -> FilterConfig:
    """A filter of a case as our hosts load it."""
    return FilterConfig(
        Path(f.path),
        name=f.name or f"plugin{index}",
        configuration=f.config,
        vm_configuration=f.vm_config,
        root_id=f.root_id,
        vm_id=f.vm_id or f"own {index}",
        environment=f.env,
        capabilities=frozenset(f.capabilities) or None,
        failure_policy="fail_open" if f.fail_open else (f.policy or "FAIL_CLOSED").lower(),
        reload_interval=float(f.back_off.removesuffix("s") or 1),
        profile=dataclasses.replace(ENVOY, fail_open_spares_stream=f.fail_open),
        allow_on_headers_stop_iteration=f.allow_on_headers_stop_iteration,
    )


def _one(host: Host, plugins, recorder: Recorder, case: Case) -> ExchangeResult:
    request, response = seen_request(case.request), seen_response(case.response, case.request.method)
    return exchange(
        host,
        plugins,
        Message(request.headers, request.chunks, request.trailers),
        Message(response.headers, response.chunks, response.trailers),
        recorder=recorder,
        properties=PROPERTIES,
        buffer_limit=1 << 20 if case.buffer_limit is None else case.buffer_limit,
        callouts={"upstream": lambda call: _reply(call, case.callouts)},
        late_replies=True,
        ticks=3,
    )


def _reply(call, callouts: Mapping[str, Response]):
    path = dict(call.headers).get(b":path", b"").decode() if isinstance(call, HttpCall) else ""
    response = callouts.get(path)
    if response is None or (
        response.headers and not response.chunks and dict(response.headers).get("content-length", "0") != "0"
    ):
        return [CalloutFailed()]  # nothing came, or the body that was promised did not
    if response.reset:
        return [no_answer(RemoteProtocolError("the server has disconnected"))]
    seen = seen_response(response)
    return [HttpCallReply([*seen.headers, SERVICE_TIME], b"".join(seen.chunks), seen.trailers)]


def _tell(told: Told, result: ExchangeResult) -> None:
    request, response = result.upstream_request, result.client_response
    told.upstream = []
    if request is not None:
        wire = [pair for pair in without_framing(request.headers) if pair[0] != b":scheme"]
        told.upstream = [_grouped(wire), request.body, request.trailers, request.complete]
    told.client = []
    if response is not None:
        headers = [pair for pair in without_framing(response.headers) if not pair[0].startswith(b":")]
        body = b"" if response.status in (204, 304) else response.body
        told.client = [response.status, headers, body, response.trailers, response.complete]


def _callbacks(timeline: list[object]) -> list[str]:
    lines = []
    for invocation in timeline:
        if isinstance(invocation, Invocation):
            result = "trap" if invocation.failed else invocation.result
            lines.append(_line(invocation.plugin, invocation.name, invocation.arguments, result))
            lines += [
                f"  {event.row.name} = {event.status if event.row.returns else None}"
                for event in invocation.events
                if isinstance(event, Call) and event.row.name != "proxy_log"
            ]
    return lines
