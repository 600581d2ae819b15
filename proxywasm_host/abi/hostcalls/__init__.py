"""The handlers of hostcalls: a function for each row of the table, with the same name.

A handler is called as ``handler(vm, *inputs)``. It returns ``None`` for OK, the result or the tuple of results of its
row, or a `Refusal` with the status and the reason. It never sees an address, an engine or the network.
"""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any, Final

from proxywasm_host.abi.hostcalls import (
    basics,
    buffers,
    callouts,
    foreign,
    headers,
    metrics,
    properties,
    shared,
    streams,
    wasi,
)
from proxywasm_host.abi.marshal import Refusal
from proxywasm_host.abi.native import NATIVE
from proxywasm_host.abi.table import HOSTCALLS, WASI
from proxywasm_host.services import SystemClock

__all__ = ["HANDLERS", "WASI_HANDLERS"]

Handler = Callable[..., Any]

MODULES: Final = (basics, headers, buffers, properties, streams, shared, metrics, callouts, foreign)


def _find(name: str, modules: tuple[ModuleType, ...]) -> Handler:
    for module in modules:
        handler: Handler | None = getattr(module, name, None)
        if handler is not None:
            return handler
    raise LookupError(f"no handler for {name}")


def _refuse(name: str, errno: int) -> Handler:
    refusal = Refusal(errno, f"{name} is not available: filters have no files and no sockets")
    return lambda *_: refusal


HANDLERS: Final[dict[str, Handler]] = {row.name: _find(row.name, MODULES) for row in HOSTCALLS}
"""Handlers of the ``env`` module."""

WASI_HANDLERS: Final[dict[str, Handler]] = {
    **{name: _refuse(name, errno) for errno, names in wasi.ALWAYS_REFUSED.items() for name in names},
    **dict.fromkeys(wasi.ACCEPTED_FOR_STREAMS, wasi._accepted_for_streams),
}
"""Handlers of WASI, for both of its module names."""
WASI_HANDLERS.update({row.name: _find(row.name, (wasi,)) for row in WASI if row.name not in WASI_HANDLERS})

if NATIVE is not None:
    # Some of these have a native handler in C, which calls them for unusual cases.
    NATIVE.use(handlers=HANDLERS, inline_headers=headers.INLINE, not_found=headers.not_found, system_clock=SystemClock)
