"""Properties that filters share with the gateway: ``kong.…`` and ``ngx.…``, as text.

Sources: ``kong/runloop/wasm/properties.lua`` and ``kong/runloop/wasm.lua``; ``ngx.`` are variables of nginx.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from typing import Any

from proxywasm_host.abi.marshal import Refusal
from proxywasm_host.abi.types import Status
from proxywasm_host.kong.context import Context

__all__ = ["KONG", "VERSION", "read", "variable", "write"]

KONG = frozenset({"kong", "ngx"})
"""The namespaces of these properties."""
VERSION = "3.9.0"
"""Version of Kong Gateway whose behaviour is implemented here."""
SHARED = "kong.ctx.shared."
CONFIGURATION = {
    "version": VERSION,
    "plugins": "bundled",
    "wasm": "true",
    "database": "off",
    "router_flavor": "traditional",
}


def _text(value: Any) -> str:
    if value is None:
        raise LookupError
    if isinstance(value, str):
        return value
    return json.dumps(value, separators=(",", ":"))


READ: dict[str, Callable[[Context], Any]] = {
    "kong.client.protocol": lambda context: context.request.scheme,
    "kong.nginx.subsystem": lambda _: "http",
    "kong.node.memory_stats": lambda _: {"workers_lua_vms": [{"pid": os.getpid()}]},
    "kong.request.forwarded_host": lambda context: context.request.forwarded_host,
    "kong.request.forwarded_port": lambda context: context.request.forwarded_port,
    "kong.request.forwarded_scheme": lambda context: context.request.forwarded_scheme,
    "kong.request.port": lambda context: context.request.port,
    "kong.response.source": lambda context: context.response and context.response.source,
    "kong.response.status": lambda context: context.response and context.response.status,
    "kong.router.route": lambda context: context.route and dict(context.route.route),
    "kong.router.service": lambda context: context.route and context.route.service and dict(context.route.service),
    "kong.route_id": lambda context: context.route and context.route.route["id"],
    "kong.route_name": lambda context: context.route and context.route.route.get("name"),
    "kong.service_id": lambda context: context.route and context.route.service and context.route.service["id"],
    "kong.service_name": lambda context: context.route and context.route.service and context.route.service.get("name"),
    "kong.service.response.status": lambda context: context.service_response and context.service_response.status,
    "kong.version": lambda _: VERSION,
}


def read(context: Context, node_id: str, name: str) -> str:
    """The value of a property. Raises: LookupError."""
    if name.startswith("ngx."):
        return _text(variable(context, name.removeprefix("ngx.")))
    if name.startswith(SHARED):
        return _text(context.shared.get(name.removeprefix(SHARED)))
    if name.startswith("kong.configuration."):
        return CONFIGURATION[name.removeprefix("kong.configuration.")]
    if name == "kong.node.id":
        return node_id
    find = READ.get(name)
    if find is None:
        raise LookupError(name)
    return _text(find(context))


def variable(context: Context, name: str) -> str | None:
    """A variable of nginx; ``None`` if a request does not have it."""
    request = context.request
    if name.startswith(("http_", "sent_http_")):
        prefix, _, header = name.partition("http_")
        headers = request.headers if not prefix else context.response and context.response.headers
        return headers.get(header.replace("_", "-")) if headers else None
    if name.startswith("arg_"):
        pairs = [pair.partition("=") for pair in request.query.split("&")]
        return next((value for key, _, value in pairs if key.lower() == name[4:].lower()), None)
    upstream = context.upstream
    values = {
        "args": request.query,
        "host": request.host,
        "hostname": os.uname().nodename,
        "is_args": "?" if request.query else "",
        "query_string": request.query,
        "remote_addr": context.client.forwarded_ip,
        "remote_port": str(context.client.port),
        "request_id": request.id,
        "request_method": request.method,
        "request_uri": request.raw_path + (f"?{request.query}" if request.query else ""),
        "scheme": request.scheme,
        "server_port": str(request.port),
        "server_protocol": f"HTTP/{request.http_version:g}",
        "status": str(context.response.status) if context.response else None,
        "upstream_host": upstream.host_header if upstream else None,
        "upstream_scheme": upstream.scheme if upstream else None,
        "upstream_uri": upstream.path if upstream else None,
        "uri": request.path,
    }
    return values.get(name)


def write(context: Context, name: str, value: bytes) -> Refusal | None:
    """Set one of Kong's properties; `value` is text."""
    text = value.decode("latin-1")
    if name.startswith(SHARED):
        context.shared[name.removeprefix(SHARED)] = text
        return None
    if name == "kong.response.status":
        return _set_status(context, text)
    upstream = context.upstream
    if name in {"kong.service.target", "kong.service.upstream", "kong.service.request.scheme"}:
        if upstream is None:
            return Refusal(Status.BAD_ARGUMENT, "{0} can be set until the request goes upstream", name)
        if name == "kong.service.request.scheme":
            upstream.scheme = text
        elif name == "kong.service.upstream":
            upstream.host = text
        else:
            host, colon, port = text.rpartition(":")
            if not colon or not port.isdigit():
                return Refusal(Status.BAD_ARGUMENT, "{0!r} is not a target: write it as host:port", text)
            upstream.host, upstream.port = host, int(port)
        return None
    return Refusal(Status.BAD_ARGUMENT, "property {0} cannot be set", name)


def _set_status(context: Context, text: str) -> Refusal | None:
    if not text.isdigit() or not 100 <= int(text) <= 599 or context.response is None:
        return Refusal(Status.BAD_ARGUMENT, "{0!r} is not a status, or there is no response yet", text)
    context.response.status = int(text)
    return None
