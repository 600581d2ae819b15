"""The operations that Lua waits for. Each yields one effect, and returns the results for the coroutine.

They get the open connections of this run, by their numbers in Lua, and a function that makes tables. As in OpenResty, a
failure is ``nil`` and a word for the reason; nothing is raised in Lua.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from itertools import count
from typing import Any

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

__all__ = ["WAITS", "Wait"]

Wait = Generator[Effect, Any, tuple[Any, ...]]
Open = dict[int, object]
Table = Callable[[Any], LuaValue]

NUMBERS = count(1)
NOT_HERE = "bad request"
"""OpenResty's message for a connection of another request."""


def _sleep(_open: Open, _table: Table, seconds: float) -> Wait:
    yield Sleep(seconds)
    return ()


def _read_body(_open: Open, _table: Table) -> Wait:
    yield ReadRequestBody()
    return ()


def _http(
    _open: Open, table: Table, method: str, url: str, headers: LuaValue, body: str, seconds: float, verify: bool
) -> Wait:
    """`headers` is a sequence: name, value, name, value, …"""
    flat = [value.encode("latin-1") for _, value in headers.items()]
    pairs = list(zip(flat[::2], flat[1::2], strict=True))
    try:
        reply = yield HttpRequest(method, url, pairs, body.encode("latin-1"), seconds, verify)
    except EffectFailed as failure:
        return None, str(failure)
    flat_reply = [part.decode("latin-1") for pair in reply.headers for part in pair]
    return reply.status, table(flat_reply), reply.body


def _connect(
    opened: Open,
    _table: Table,
    host: str,
    port: int,
    seconds: float,
    tls: bool,
    server_name: str | None,
    verify: bool,
    datagrams: bool = False,
) -> Wait:
    try:
        connection = yield Connect(host, int(port), seconds, bool(tls), server_name, bool(verify), bool(datagrams))
    except EffectFailed as failure:
        return None, str(failure)
    number = next(NUMBERS)
    opened[number] = connection
    return (number,)


def _send(opened: Open, _table: Table, connection: int, data: str, seconds: float) -> Wait:
    if connection not in opened:
        return None, NOT_HERE
    try:
        yield Send(opened[connection], data.encode("latin-1"), seconds)
    except EffectFailed as failure:
        return None, str(failure)
    return (len(data),)


def _receive(opened: Open, _table: Table, connection: int, size: int, seconds: float) -> Wait:
    if connection not in opened:
        return None, NOT_HERE
    try:
        data = yield Receive(opened[connection], size, seconds)
    except EffectFailed as failure:
        return None, str(failure)
    return (data,)


def _close(opened: Open, _table: Table, connection: int) -> Wait:
    if connection not in opened:
        return None, NOT_HERE
    yield Close(opened.pop(connection))
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
