"""The crossings in C, see ``native/``."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from proxywasm_engine_v8.routes import Link

from .library import Callback, Library

if TYPE_CHECKING:
    from proxywasm_host.engine.protocol import FunctionType, HostFunction

    from .calls import InThreadCalls
    from .isolate import InThreadIsolate

__all__ = ["REVISION", "native_link", "use"]

REVISION = 2
"""As in ``native/native.h``."""
_LETTERS = {"i32": "i", "i64": "I", "f32": "f", "f64": "F"}


def use(native: Any, library: Library) -> None:
    """Hand over what the extension calls of V8's."""
    names = "call", "lock", "unlock", "enter", "leave", "drop_handles", "interrupt", "terminate"
    native.use(*(ctypes.cast(getattr(library, name), ctypes.c_void_p).value for name in names))


def native_link(
    isolate: InThreadIsolate,
    calls: InThreadCalls,
    guests: Sequence[FunctionType],
    functions: Sequence[HostFunction],
) -> Link:
    """The crossings of one instance."""
    native, watch = isolate.route.native, calls.watch
    places = isolate.pointer, ctypes.addressof(isolate.locker), *isolate.handles, ctypes.addressof(isolate.scope)
    made = native.Crossings(
        isolate,
        calls.raised,
        calls.problem,
        isolate.limit_stack,
        (*places, isolate.page_at, ctypes.addressof(isolate.visitors)),
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
