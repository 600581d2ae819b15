"""What Lua waits for: each name yields one effect, and gives what the coroutine goes on with.

As in OpenResty a failure is ``nil`` with a word that says why; nothing is raised in Lua.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import TYPE_CHECKING, Any

from proxywasm_host.kong.lua.values import LuaValue
from proxywasm_host.kong.plugin import (
    Close,
    Connect,
    Effect,
    EffectFailed,
    HttpRequest,
    ReadRequestBody,
    Receive,
    Send,
    Sleep,
)

if TYPE_CHECKING:
    from proxywasm_host.kong.lua.runtime import Runtime

__all__ = ["WAITS", "Wait"]

Wait = Generator[Effect, Any, tuple[Any, ...]]


def _sleep(_runtime: Runtime, seconds: float) -> Wait:
    yield Sleep(seconds)
    return ()


def _read_body(_runtime: Runtime) -> Wait:
    yield ReadRequestBody()
    return ()


def _http(runtime: Runtime, method: str, url: str, headers: LuaValue, body: str, seconds: float, verify: bool) -> Wait:
    """`headers` is a sequence: name, value, name, value, …"""
    flat = [value.encode("latin-1") for _, value in headers.items()]
    pairs = list(zip(flat[::2], flat[1::2], strict=True))
    try:
        reply = yield HttpRequest(method, url, pairs, body.encode("latin-1"), seconds, verify)
    except EffectFailed as failure:
        return None, str(failure)
    flat_reply = [part.decode("latin-1") for pair in reply.headers for part in pair]
    return reply.status, runtime.table(flat_reply), reply.body


def _connect(
    runtime: Runtime, host: str, port: int, seconds: float, tls: bool, server_name: str | None, verify: bool
) -> Wait:
    try:
        connection = yield Connect(host, int(port), seconds, bool(tls), server_name, bool(verify))
    except EffectFailed as failure:
        return None, str(failure)
    return (runtime.keep(connection),)


def _send(runtime: Runtime, connection: int, data: str, seconds: float) -> Wait:
    try:
        yield Send(runtime.kept[connection], data.encode("latin-1"), seconds)
    except EffectFailed as failure:
        return None, str(failure)
    return (len(data),)


def _receive(runtime: Runtime, connection: int, size: int, seconds: float) -> Wait:
    try:
        data = yield Receive(runtime.kept[connection], size, seconds)
    except EffectFailed as failure:
        return None, str(failure)
    return (data,)


def _close(runtime: Runtime, connection: int) -> Wait:
    yield Close(runtime.kept.pop(connection))
    return (True,)


WAITS: dict[str, Callable[..., Wait]] = {
    "sleep": _sleep,
    "read_body": _read_body,
    "http": _http,
    "connect": _connect,
    "send": _send,
    "receive": _receive,
    "close": _close,
}
