"""Describes callbacks, hostcalls and effects in one line each, without layout or colours."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from typing import Any

from proxywasm_host.abi.marshal import Call, Refusal
from proxywasm_host.abi.table import WASI, Callback
from proxywasm_host.abi.types import BufferType, DataAction, HeadersAction, MapType, StreamType
from proxywasm_host.runtime import effects
from proxywasm_host.runtime.failure import describe
from proxywasm_host.services.log import printable
from proxywasm_host.testing import InputEvent, Invocation
from proxywasm_host.testing.timeline import should_not_be_refused

__all__ = [
    "action_text",
    "callback_text",
    "effect_text",
    "event_text",
    "hostcall_text",
    "is_worth_telling",
    "plural",
    "quoted",
    "text",
]

SHOWN = 60
"""Maximum number of characters of a value in a line."""

PAUSE = "PAUSE"
CALLER = {"request": "client", "response": "upstream"}


def text(data: bytes) -> str:
    r"""A header name or value as `printable` text; bytes that are not UTF-8 become ``\\xff``."""
    return printable(data.decode("utf-8", "backslashreplace"))


def quoted(data: bytes) -> str:
    """The beginning of some content in quotes, with the size of the content if it was shortened."""
    shown = repr(data[:SHOWN])[1:]
    return shown if len(data) <= SHOWN else f"{shown}… ({len(data)} bytes)"


def plural(number: int, what: str) -> str:
    """A number with its noun: ``1 filter``, ``2 filters``."""
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


# -- Callbacks ---------------------------------------------------------------------------------------------------------

PHRASES: dict[str, Callable[[int], str]] = {
    "context": lambda _: "",
    "parent": lambda parent: f"of {parent}" if parent else "root",
    "headers": lambda number: plural(number, "header"),
    "trailers": lambda number: plural(number, "trailer"),
    "size": lambda size: plural(size, "byte"),
    "body_size": lambda size: plural(size, "byte"),
    "vm_configuration_size": lambda size: plural(size, "byte"),
    "configuration_size": lambda size: plural(size, "byte"),
    "arguments_size": lambda size: plural(size, "byte"),
    "end_of_stream": lambda end: "end of stream" if end else "",
    "token": lambda token: f"token {token}",
}


def callback_text(invocation: Invocation) -> str:
    """A callback as ``on_request_headers(4 headers, end of stream)``."""
    row, arguments = invocation.row, invocation.arguments
    words = [
        PHRASES.get(param, lambda value, param=param: f"{param} {value}")(value)
        for param, value in zip(row.params, arguments, strict=False)
    ]
    shown = ", ".join(filter(None, words))
    return f"{row.key}({shown})" if shown else row.key


def action_text(row: Callback, result: int | None) -> str:
    """The name of a callback's result; empty if the callback has no result."""
    if row.result is None or result is None:
        return ""
    if row.result is bool:
        return "true" if result else "false"
    if result == 1 and row.result in (HeadersAction, DataAction):
        return PAUSE
    try:
        return row.result(result).name
    except ValueError:
        return f"{result} (no action)"


# -- Hostcalls ---------------------------------------------------------------------------------------------------------

WASI_NAMES = frozenset(row.name for row in WASI)
READS = frozenset(
    f"proxy_{name}"
    for name in (
        *("log", "get_log_level", "get_current_time_nanoseconds", "get_status", "set_effective_context"),
        *("get_header_map_value", "get_header_map_pairs", "get_header_map_size", "get_buffer_bytes"),
        *("get_buffer_status", "get_configuration", "get_property", "get_shared_data", "resolve_shared_queue"),
        *("define_metric", "get_metric", "get_upstream_hosts"),
    )
) | {"emscripten_notify_memory_growth", "pthread_equal"}


def is_worth_telling(call: Call) -> bool:
    """Whether a hostcall deserves a line, because it changed something or its refusal matters."""
    if call.row.name in WASI_NAMES:
        return False
    if isinstance(call.result, Refusal):
        return should_not_be_refused(call)
    return call.row.name not in READS


def _map_of(callback: str) -> int | None:
    return {
        "on_request_headers": MapType.REQUEST_HEADERS,
        "on_request_trailers": MapType.REQUEST_TRAILERS,
        "on_response_headers": MapType.RESPONSE_HEADERS,
        "on_response_trailers": MapType.RESPONSE_TRAILERS,
    }.get(callback)


def _place(map: int, callback: str) -> str:
    """The name of a map in parentheses; empty if the callback implies it."""
    return "" if map == _map_of(callback) else f" ({MapType(map).name.lower().replace('_', ' ')})"


def _buffer_change(buffer: int, start: int, length: int, data: bytes) -> str:
    which = BufferType(buffer).name.lower().replace("_", " ")
    if start == 0 and length == 0:
        return f"{quoted(data)} before the {which}"
    where = f"from byte {start}" if start else "whole" if length >= 1 << 20 else f"first {plural(length, 'byte')}"
    return f"{which}, {where}: {quoted(data)}"


def hostcall_text(call: Call, callback: str) -> tuple[str, str]:
    """A hostcall as (verb, object). `callback` is the key of the current callback."""
    if isinstance(call.result, Refusal) or call.args is None:
        return "refused", describe(call).removeprefix("proxy_")
    args: tuple[Any, ...] = call.args
    name = call.row.name.removeprefix("proxy_")
    if name in ("add_header_map_value", "replace_header_map_value"):
        verb = "adds" if name.startswith("add") else "replaces"
        return verb, f"{text(args[1])}: {text(args[2])}{_place(args[0], callback)}"
    if name == "remove_header_map_value":
        return "removes", f"{text(args[1])}{_place(args[0], callback)}"
    if name == "set_header_map_pairs":
        return (
            "sets all",
            f"{', '.join(f'{text(key)}: {text(value)}' for key, value in args[1])}{_place(args[0], callback)}",
        )
    if name == "set_buffer_bytes":
        return "writes", _buffer_change(*args)
    if name == "send_local_response":
        details = f" ({text(args[1])})" if args[1] else ""
        return "answers", f"{args[0]}{details}{' ' + quoted(args[2]) if args[2] else ''}"
    if name in ("continue_stream", "close_stream"):
        return "resumes" if name.startswith("continue") else "closes", f"the {StreamType(args[0]).name.lower()}"
    if name in ("continue_request", "continue_response"):
        return "resumes", f"the {name.removeprefix('continue_')}"
    if name == "set_property":
        return "property", f"{text(args[0].replace(bytes(1), b'.'))} = {quoted(args[1])}"
    return "calls", describe(call).removeprefix("proxy_").removesuffix(" = OK")


# -- Effects and marks -------------------------------------------------------------------------------------------------


def event_text(mark: InputEvent) -> str:
    """A heading for an event that is fed to the filters."""
    which, _, part = mark.what.partition(" ")
    if which not in CALLER:
        return {"tick": "time passes: tick", "end": "the stream ends"}.get(mark.what, mark.what)
    if part == "body" and mark.size == 0 and mark.end_stream:
        return f"{CALLER[which]} ends the {which}"
    size = plural(mark.size, "byte") + " of body" if part == "body" else f"{which} {part}"
    return f"{CALLER[which]} sends {size}{', end of stream' if mark.end_stream else ''}"


def effect_text(effect: effects.Effect) -> str:
    """An effect of the filters, in a few words."""
    end = ", end of stream" if getattr(effect, "end_stream", False) else ""
    if isinstance(effect, (effects.RequestHeaders, effects.ResponseHeaders)):
        return f"{_receiver(effect)} gets headers{end}"
    if isinstance(effect, (effects.RequestBody, effects.ResponseBody)):
        part = f"{plural(len(effect.data), 'byte')} of body{end}" if effect.data else "the end"
        return f"{_receiver(effect)} gets {part}"
    if isinstance(effect, (effects.RequestTrailers, effects.ResponseTrailers)):
        return f"{_receiver(effect)} gets trailers, end of stream"
    if isinstance(effect, effects.ResetStream):
        return f"the stream is reset: {effect.details}"
    if isinstance(effect, effects.SetTickPeriod):
        return f"ticks each {effect.milliseconds} ms" if effect.milliseconds else "no more ticks"
    if isinstance(effect, effects.HttpCall):
        headers = dict(effect.headers)
        return f"callout {effect.token} to {effect.cluster}: {text(headers[b':method'])} {text(headers[b':path'])}"
    if isinstance(effect, (effects.GrpcCall, effects.GrpcStream)):
        return f"callout {effect.token} to {effect.cluster}: gRPC {effect.service}/{effect.method}"
    shown = [f"{f.name}={getattr(effect, f.name)!r}" for f in fields(effect) if f.repr]
    return f"{type(effect).__name__}({', '.join(shown)})"


def _receiver(effect: object) -> str:
    return "upstream" if type(effect).__name__.startswith("Request") else "the client"
