"""The PDK that plugin servers call: functions by name, which work on the `Context` of a request.

Source: the documentation of Kong's Plugin Development Kit. Text has one character for each byte.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import quote, unquote_plus, urlencode

from proxywasm_host.abi.types import LogLevel
from proxywasm_host.kong.context import PENDING_HEADERS, Context, Exit, Headers, Response
from proxywasm_host.kong.namespaces import variable

__all__ = ["FUNCTIONS", "TERMINAL", "serialize"]

TERMINAL = frozenset({"kong.response.exit", "kong.response.error"})
"""Functions that end the request and get no answer."""
MOST_ARGUMENTS = 1000
LEVELS = {
    **dict.fromkeys(("emerg", "alert", "crit"), LogLevel.CRITICAL),
    "err": LogLevel.ERROR,
    "warn": LogLevel.WARN,
    "notice": LogLevel.INFO,
    "info": LogLevel.INFO,
    "debug": LogLevel.DEBUG,
}


def _query(context: Context, most: int = 100) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for pair in context.request.query.split("&", MOST_ARGUMENTS)[: min(most or 100, MOST_ARGUMENTS)]:
        name, equals, value = pair.partition("=")
        if name:
            key = unquote_plus(name, encoding="latin-1")
            found.setdefault(key, []).append(unquote_plus(value, encoding="latin-1") if equals else "")
    return found


def _query_arg(context: Context, name: str) -> str | None:
    return next(iter(_query(context, MOST_ARGUMENTS).get(name, ())), None)


def _values(value: Any) -> str | list[str]:
    if isinstance(value, bool):
        return "true" if value else "false"
    return [str(each) for each in value] if isinstance(value, (list, tuple)) else str(value)


def _set(headers: Callable[[Context], Headers]) -> Callable[[Context, str, Any], None]:
    return lambda context, name, value: headers(context).set(name, _values(value))


def _add(headers: Callable[[Context], Headers]) -> Callable[[Context, str, Any], None]:
    def add(context: Context, name: str, value: Any) -> None:
        values = _values(value)
        for each in [values] if isinstance(values, str) else values:
            headers(context).add(name, each)

    return add


def _set_all(headers: Callable[[Context], Headers]) -> Callable[[Context, Mapping[str, Any]], None]:
    def set_all(context: Context, values: Mapping[str, Any]) -> None:
        for name, value in values.items():
            headers(context).set(name, _values(value))

    return set_all


def _get(headers: Callable[[Context], Headers]) -> Callable[[Context, str], str | None]:
    return lambda context, name: headers(context).get(name)


def _all(headers: Callable[[Context], Headers]) -> Callable[..., dict[str, list[str]]]:
    return lambda context, most=100: dict(list(headers(context).by_name().items())[: most or 100])


def _request(context: Context) -> Headers:
    return context.request.headers


def _response(context: Context) -> Headers:
    """Headers of the response; before it arrives, those that will be added to it."""
    if context.response is None:
        pending: Headers = context.state.setdefault(PENDING_HEADERS, Headers([]))
        return pending
    return context.response.headers


def _service_response(context: Context) -> Headers:
    return context.service_response.headers if context.service_response else Headers([])


def _status(response: Response | None) -> int | None:
    return response.status if response else None


def _exit(context: Context, status: int, body: Any = None, headers: Mapping[str, Any] | None = None) -> None:
    content, pairs = b"", Headers([])
    _set_all(lambda _: pairs)(context, headers or {})
    if isinstance(body, (dict, list)):
        content = json.dumps(body).encode()
        pairs.set("content-type", "application/json; charset=utf-8")
    elif body is not None:
        content = body if isinstance(body, bytes) else str(body).encode("latin-1", "replace")
    for name, value in _response(context):
        if context.response is None and pairs.get(name) is None:
            pairs.add(name, value)
    context.exit = Exit(int(status), pairs.pairs, content)


def _error(context: Context, status: int, message: Any = None, headers: Mapping[str, Any] | None = None) -> None:
    text = message if isinstance(message, str) else "An unexpected error occurred"
    _exit(context, status, {"message": text, "request_id": context.request.id}, headers)


def _log(level: LogLevel) -> Callable[..., None]:
    return lambda context, *values: context.log(level, "".join(map(_shown, values)))


def _shown(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _set_target(context: Context, host: str, port: int) -> None:
    if context.upstream is not None:
        context.upstream.host, context.upstream.port = host, int(port)


def _set_upstream(field: str) -> Callable[[Context, str], None]:
    def set_field(context: Context, value: str) -> None:
        if context.upstream is not None:
            setattr(context.upstream, field, value)

    return set_field


def _set_request(field: str) -> Callable[[Context, Any], None]:
    return lambda context, value: setattr(context.request, field, value)


def _set_query(context: Context, arguments: Mapping[str, Any]) -> None:
    pairs = [
        (name, each) for name, value in arguments.items() for each in (value if isinstance(value, list) else [value])
    ]
    context.request.query = urlencode([(name, _values(value)) for name, value in pairs], encoding="latin-1")


def _set_raw_body(context: Context, body: Any) -> None:
    context.request.body = body if isinstance(body, bytes) else str(body).encode("latin-1", "replace")


def _load_consumer(context: Context, id: str, by_username: bool = False) -> Any:
    for consumer in context.entities.get("consumers", ()):
        if consumer["id"] == id or (by_username and consumer.get("username") == id):
            return dict(consumer)
    return None


def _authenticate(context: Context, consumer: Any = None, credential: Any = None) -> None:
    context.consumer, context.credential = consumer, credential


def _set_status(context: Context, status: int) -> None:
    if context.response is not None:
        context.response.status = int(status)


def _set_log_value(context: Context, key: str, value: Any, *_: Any) -> None:
    context.log_values[key] = value


def serialize(context: Context) -> dict[str, Any]:
    """The record of a request that Kong's logging plugins write (``kong.log.serialize``)."""
    request, response, route = context.request, context.response, context.route
    target = request.raw_path + (f"?{request.query}" if request.query else "")
    entry: dict[str, Any] = {
        "request": {
            "id": request.id,
            "uri": target,
            "url": f"{request.scheme}://{request.host}:{request.port}{target}",
            "querystring": {name: _one(values) for name, values in _query(context).items()},
            "method": request.method,
            "headers": {name: _one(values) for name, values in request.headers.by_name().items()},
            "size": len(request.body or b""),
        },
        "response": {
            "status": _status(response),
            "headers": {name: _one(values) for name, values in response.headers.by_name().items()} if response else {},
        },
        "client_ip": context.client.forwarded_ip,
        "started_at": int(request.started * 1000),
        "source": response.source if response else None,
        "upstream_uri": context.upstream.path if context.upstream else "",
        "route": dict(route.route) if route else None,
        "service": dict(route.service) if route and route.service else None,
        "consumer": dict(context.consumer) if context.consumer else None,
        "authenticated_entity": {"id": context.credential["id"]} if context.credential else None,
    }
    for key, value in context.log_values.items():
        *into, last = key.split(".")
        place = entry
        for part in into:
            place = place.setdefault(part, {})
        if value is None:
            place.pop(last, None)
        else:
            place[last] = value
    return {key: value for key, value in entry.items() if value is not None}


def _one(values: list[str]) -> str | list[str]:
    return values[0] if len(values) == 1 else values


FUNCTIONS: dict[str, Callable[..., Any]] = {
    "kong.client.get_ip": lambda context: context.client.ip,
    "kong.client.get_forwarded_ip": lambda context: context.client.forwarded_ip,
    "kong.client.get_port": lambda context: context.client.port,
    "kong.client.get_forwarded_port": lambda context: context.client.forwarded_port,
    "kong.client.get_credential": lambda context: context.credential,
    "kong.client.get_consumer": lambda context: context.consumer,
    "kong.client.load_consumer": _load_consumer,
    "kong.client.authenticate": _authenticate,
    "kong.client.get_protocol": lambda context, *_: context.request.scheme,
    "kong.ctx.shared.get": lambda context, name: context.shared.get(name),
    "kong.ctx.shared.set": lambda context, name, value: context.shared.__setitem__(name, value),
    "kong.ip.is_trusted": lambda context, address: context.trusts(address),
    **{f"kong.log.{name}": _log(level) for name, level in LEVELS.items()},
    "kong.log.serialize": lambda context: json.dumps(serialize(context)),
    "kong.log.set_serialize_value": _set_log_value,
    "kong.nginx.get_var": variable,
    "kong.nginx.get_tls1_version_str": lambda context: "",
    "kong.nginx.get_ctx": lambda context, name: context.state.get(("ngx.ctx", name)),
    "kong.nginx.set_ctx": lambda context, name, value: context.state.__setitem__(("ngx.ctx", name), value),
    "kong.nginx.req_start_time": lambda context: context.request.started,
    "kong.nginx.get_subsystem": lambda context: "http",
    "kong.node.get_id": lambda context: context.node_id,
    "kong.node.get_memory_stats": lambda context: {"lua_shared_dicts": {}, "workers_lua_vms": [{"pid": os.getpid()}]},
    **{
        f"kong.request.get_{name}": (lambda field: lambda context: getattr(context.request, field))(name)
        for name in ("scheme", "host", "port", "forwarded_scheme", "forwarded_host", "forwarded_port", "method", "path")
    },
    "kong.request.get_forwarded_path": lambda context: context.request.forwarded_path,
    "kong.request.get_forwarded_prefix": lambda context: context.request.forwarded_prefix,
    "kong.request.get_http_version": lambda context: context.request.http_version,
    "kong.request.get_raw_path": lambda context: context.request.raw_path,
    "kong.request.get_path_with_query": lambda context: (
        context.request.raw_path + (f"?{context.request.query}" if context.request.query else "")
    ),
    "kong.request.get_raw_query": lambda context: context.request.query,
    "kong.request.get_query_arg": _query_arg,
    "kong.request.get_query": _query,
    "kong.request.get_header": _get(_request),
    "kong.request.get_headers": _all(_request),
    "kong.request.get_raw_body": lambda context: context.request.body or b"",
    "kong.request.get_uri_captures": lambda context: {
        "named": dict(context.route.captures) if context.route else {},
        "unnamed": list(context.route.unnamed_captures) if context.route else [],
    },
    "kong.response.get_status": lambda context: _status(context.response),
    "kong.response.get_header": _get(_response),
    "kong.response.get_headers": _all(_response),
    "kong.response.get_source": lambda context: context.response.source if context.response else "service",
    "kong.response.get_raw_body": lambda context: context.response.body if context.response else b"",
    "kong.response.set_status": _set_status,
    "kong.response.set_header": _set(_response),
    "kong.response.add_header": _add(_response),
    "kong.response.clear_header": lambda context, name: _response(context).remove(name),
    "kong.response.set_headers": _set_all(_response),
    "kong.response.exit": _exit,
    "kong.response.error": _error,
    "kong.router.get_route": lambda context: dict(context.route.route) if context.route else None,
    "kong.router.get_service": lambda context: (
        dict(context.route.service) if context.route and context.route.service else None
    ),
    "kong.service.set_upstream": _set_upstream("host"),
    "kong.service.set_target": _set_target,
    "kong.service.request.set_scheme": _set_upstream("scheme"),
    "kong.service.request.set_path": lambda context, path: _set_upstream("path")(
        context, quote(path, safe="/%:@!$&'()*+,;=-._~", encoding="latin-1")
    ),
    "kong.service.request.set_raw_query": _set_request("query"),
    "kong.service.request.set_query": _set_query,
    "kong.service.request.set_method": _set_request("method"),
    "kong.service.request.set_header": _set(_request),
    "kong.service.request.add_header": _add(_request),
    "kong.service.request.clear_header": lambda context, name: _request(context).remove(name),
    "kong.service.request.set_headers": _set_all(_request),
    "kong.service.request.set_raw_body": _set_raw_body,
    "kong.service.response.get_status": lambda context: _status(context.service_response),
    "kong.service.response.get_header": _get(_service_response),
    "kong.service.response.get_headers": _all(_service_response),
    "kong.service.response.get_raw_body": lambda context: (
        context.service_response.body if context.service_response else b""
    ),
}
