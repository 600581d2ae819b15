"""The service ``envoy.service.auth.v3.Authorization``, in which filters decide, and the same over HTTP.

Over HTTP a gateway sends the request itself: its method, path, headers and body. A response with 200 allows the
request, and has the headers that filters added or changed; any other response is for the client. Envoy's
``http_service``, nginx's ``auth_request`` and Traefik's ``forwardAuth`` work in this way.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import Any

import grpc

from proxywasm_host.abi.values import PropertyValue
from proxywasm_host.envoy.application import Application, Generation, logger
from proxywasm_host.envoy.attributes import add_metadata, store_metadata
from proxywasm_host.envoy.decision import Decision, Question, decide
from proxywasm_host.envoy.messages import CheckRequest, CheckResponse
from proxywasm_host.envoy.mutation import changes, pairs_of, set_all
from proxywasm_host.envoy.settings import ExtAuthzSettings
from proxywasm_host.integrations.asgi.scope import Receive, Scope, Send, properties_of, target
from proxywasm_host.integrations.headers import LENGTH, address
from proxywasm_host.serve.server import at, beside, bound

__all__ = ["ExtAuthz"]

PERMISSION_DENIED = 7
SERVICE_UNAVAILABLE = 503
LARGEST_BODY = 1 << 20
"""Bytes of a body over HTTP; a larger one is answered 413."""


class ExtAuthz(Application[ExtAuthzSettings]):
    """The server of ``proxywasm ext-authz`` in one process."""

    SERVICE = "envoy.service.auth.v3.Authorization"
    fixed = (*Application.fixed, "http")

    def _methods(self) -> dict[str, Any]:
        return {
            "Check": grpc.unary_unary_rpc_method_handler(
                self._check, CheckRequest.FromString, CheckResponse.SerializeToString
            )
        }

    async def _open(self) -> None:
        self._around = contextlib.AsyncExitStack()
        if self._settings.http is not None:
            listening = self._around.enter_context(bound(self._settings.http, shared=True))
            await self._around.enter_async_context(beside(self._over_http, sockets=[listening], interface="asgi3"))
            logger.info("also listening for HTTP at http://%s", at(listening))

    async def _shut(self) -> None:
        await self._around.aclose()

    async def _decide(
        self, generation: Generation[ExtAuthzSettings], question: Question, properties: dict[str, PropertyValue]
    ) -> tuple[Decision, Mapping[str, bytes]]:
        stream = generation.stream(properties, question.authority, question.path)
        looked_at = self._tracer.begin(stream, generation.number, question.method, question.path)
        try:
            return await decide(generation.worker.driver, stream, question), stream.filter_state
        finally:
            if looked_at:
                self._tracer.end(stream)

    # -- gRPC ----------------------------------------------------------------------------------------------------

    async def _check(self, request: Any, context: Any) -> Any:
        async def call(generation: Generation[ExtAuthzSettings]) -> Any:
            properties: dict[str, PropertyValue] = {}
            question = asked(request.attributes, properties)
            decision, stored = await self._decide(generation, question, properties)
            if decision.failure is not None:
                failed = f"filter {decision.failure.plugin!r} failed: {decision.failure.kind}"
                await context.abort(grpc.StatusCode.UNAVAILABLE, failed)
            return answered(decision, stored)

        return await self._counted(context, call)

    # -- HTTP ----------------------------------------------------------------------------------------------------

    async def _over_http(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a question over HTTP, as an ASGI application."""
        body, more = b"", True
        while more and len(body) <= LARGEST_BODY:
            message = await receive()
            if message["type"] != "http.request":
                return
            body += message.get("body", b"")
            more = message.get("more_body", False)
        if more:
            await _respond(send, 413, [])
            return
        headers = [(name, value) for name, value in scope["headers"] if name != b"host"]
        host = next((value for name, value in scope["headers"] if name == b"host"), b"")
        method, scheme = scope["method"].encode("latin-1"), scope["scheme"].encode("latin-1")
        question = Question(method, target(scope), scheme, host, headers, body)
        status = _Status()

        async def call(generation: Generation[ExtAuthzSettings]) -> Decision:
            known = dict(properties_of(scope, {}).items())
            return (await self._decide(generation, question, known))[0]

        decision = await self._counted(status, call)
        if decision.after is not None:
            added = [pair for pair in changes(decision.before, decision.after) if pair[0][:1] != b":"]
            await _respond(send, 200, added)
        elif decision.response is None:
            await _respond(send, SERVICE_UNAVAILABLE, [])
        else:
            head = [pair for pair in decision.response.headers if pair[0] != LENGTH]
            await _respond(send, decision.response.status, head, decision.body)


class _Status:
    """The context of a call over HTTP, which has no gRPC status."""

    @staticmethod
    def code() -> None:
        return None


async def _respond(send: Send, status: int, headers: list[tuple[bytes, bytes]], body: bytes = b"") -> None:
    headers = [*headers, (LENGTH, b"%d" % len(body))]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def asked(attributes: Any, properties: dict[str, PropertyValue]) -> Question:
    """The question of a ``CheckRequest``, whose other contents are added to `properties`."""
    http = attributes.request.http
    for name in ("source", "destination"):
        peer = getattr(attributes, name)
        if peer.address.HasField("socket_address"):
            socket = peer.address.socket_address
            properties[f"{name}.address"] = address((socket.address, socket.port_value))
            properties[f"{name}.port"] = socket.port_value
    if attributes.source.principal:
        properties["connection.uri_san_peer_certificate"] = attributes.source.principal
    if attributes.tls_session.sni:
        properties["connection.requested_server_name"] = attributes.tls_session.sni
    if http.protocol:
        properties["request.protocol"] = http.protocol
    for entry in attributes.context_extensions:
        properties[f"context_extensions.{entry.key}"] = entry.value
    add_metadata(properties, "metadata", attributes.metadata_context)
    add_metadata(properties, "xds.route_metadata", attributes.route_metadata_context)
    pairs = pairs_of(http.header_map) or [(entry.key.encode(), entry.value.encode()) for entry in http.headers]
    headers = [pair for pair in pairs if pair[0][:1] != b":" and pair[0] != b"host"]
    body = http.raw_body or http.body.encode()
    return Question(
        http.method.encode(),
        http.path.encode() or b"/",
        http.scheme.encode() or b"http",
        http.host.encode(),
        headers,
        body,
    )


def answered(decision: Decision, stored: Mapping[str, bytes]) -> Any:
    """The ``CheckResponse`` for a decision."""
    response = CheckResponse()
    if stored:
        store_metadata(stored, response.dynamic_metadata)
    if decision.after is not None:
        allowed = response.ok_response
        allowed.SetInParent()
        set_all(changes(decision.before, decision.after), allowed.headers, as_text=True)
        names = {name for name, _ in decision.after}
        gone = dict.fromkeys(name.decode("latin-1") for name, _ in decision.before if name not in names)
        allowed.headers_to_remove.extend(gone)
        return response
    response.status.code = PERMISSION_DENIED
    denied = response.denied_response
    if decision.response is None:
        denied.status.code = SERVICE_UNAVAILABLE
        return response
    denied.status.code = decision.response.status
    set_all((pair for pair in decision.response.headers if pair[0] != LENGTH), denied.headers, as_text=True)
    denied.body = decision.body.decode("utf-8", "replace")
    return response
