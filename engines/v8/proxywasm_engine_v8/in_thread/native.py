"""Makes the trampolines in C, see ``native/``."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from proxywasm_engine_v8.routes import Link

from .library import Callback, Library
from .stack import stack_limit

if TYPE_CHECKING:
    from proxywasm_host.engine.protocol import FunctionType, HostFunction

    from .calls import InThreadCalls
    from .isolate import InThreadIsolate

__all__ = ["native_link", "use"]

_CALLED = (
    *("run", "interrupt", "terminate", "lock", "unlock", "enter", "leave", "context_enter", "context_exit"),
    *("isolate_stack_limit", "extend", "drop_handles", "current", "be_in", "thread_data"),
)
"""Functions of V8 that the extension calls, in the order of ``Api``."""
_LETTERS = {"i32": "i", "i64": "I", "f32": "f", "f64": "F"}


def use(native: Any, library: Library) -> None:
    """Pass the addresses of V8's functions to the extension."""
    native.use(
        lambda: stack_limit(library.stack_start()),
        [ctypes.cast(getattr(library, name), ctypes.c_void_p).value for name in _CALLED],
    )


def native_link(
    isolate: InThreadIsolate,
    calls: InThreadCalls,
    guests: Sequence[FunctionType],
    functions: Sequence[HostFunction],
) -> Link:
    """Make the trampolines of one instance."""
    native, watch = isolate.route.native, calls.watch
    made = native.Trampolines(
        isolate,
        isolate.affinity,
        calls.raised,
        calls.problem,
        (isolate.handles[1], isolate.page_at),
        watch and (watch, ctypes.addressof(watch.numbers), watch.seconds),
    )
    made.imports([(function.call, _letters(function.type)) for function in functions])
    entries = [made.guest(_letters(type)) for type in guests]

    def connect(handles: Sequence[int]) -> None:
        for entry, handle in zip(entries, handles, strict=True):
            entry.connect(handle)

    return Link(entries, [Callback(native.HOST_CALLED)] * len(functions), made.shut, connect)


def _letters(type: FunctionType) -> tuple[str, str]:
    return "".join(map(_LETTERS.__getitem__, type.params)), "".join(map(_LETTERS.__getitem__, type.results))
