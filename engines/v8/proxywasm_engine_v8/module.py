"""Compiled code, shared by all of its instances."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence

from proxywasm_host.engine.adapter import check_functions, is_numeric
from proxywasm_host.engine.protocol import (
    Export,
    FunctionType,
    HostFunction,
    Import,
    Instance,
    InvalidModule,
    Limits,
)
from proxywasm_host.engine.recursion import headroom

from .binary import Binary
from .bridge import exports_bridge, imports_bridge
from .instance import V8Instance
from .routes import Isolate, Route

__all__ = ["V8Module"]

_START = FunctionType((), ())
_headroom = headroom(50)


class V8Module:
    """A module that V8 has compiled.

    `compiling_isolate` holds it and its two bridges. Meanwhile, V8 reuses their code when other isolates compile the
    same bytes.
    """

    def __init__(self, route: Route, compiling_isolate: Isolate, binary: Binary, compiled: int) -> None:
        self.route = route
        self.binary = binary
        self.is_optimised = False
        """Whether the slow functions are optimised, which happens when the first instance is made."""
        self.imports: Sequence[Import] = tuple(binary.imports)
        self.exports: Sequence[Export] = tuple(binary.exports)
        self.callable_exports = {
            item.name: item.type for item in self.exports if item.type is not None and is_numeric(item.type)
        }
        self.callees = {**self.callable_exports, **({binary.start_name: _START} if binary.start_name else {})}
        wanted = tuple(item.type for item in self.imports if item.type is not None and is_numeric(item.type))
        self.codes = (imports_bridge(wanted), binary.rewritten, exports_bridge(tuple(self.callees.values())))
        held = [compiled, *(compiling_isolate.compile(code) for code in (self.codes[0], self.codes[2]))]
        weakref.finalize(self, _drop, compiling_isolate, held).atexit = False

    def instantiate(
        self, functions: Sequence[HostFunction], limits: Limits, bind: Callable[[Instance], None] | None = None
    ) -> Instance:
        """Make an instance, see the protocol. Raises: LinkError, Trap."""
        _headroom()  # for the whole instantiation, with a start function and the host functions that it calls
        check_functions(self.imports, functions)
        return V8Instance(self, functions, limits, bind)

    def serialise(self) -> bytes:
        """Not supported. Raises: InvalidModule."""
        raise InvalidModule("V8 compiles a function when it is first called: there is nothing to serialise")

    def refuse_other_types(self, name: str) -> None:
        """Raise TypeError if `name` is an exported function that cannot be called with plain numbers."""
        for item in self.exports:
            if item.name == name and item.type is not None and not is_numeric(item.type):
                raise TypeError(f"the exported function {name} {item.type} cannot be called with plain numbers")


def _drop(compiling_isolate: Isolate, held: Sequence[int]) -> None:
    for handle in held:
        compiling_isolate.drop(handle)
