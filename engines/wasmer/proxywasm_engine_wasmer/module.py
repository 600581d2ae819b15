"""Compiled code, shared by all of its instances."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from proxywasm_host.engine.adapter import check_functions, is_numeric
from proxywasm_host.engine.protocol import (
    Export,
    FunctionType,
    HostFunction,
    Import,
    Instance,
    Limits,
    LinkError,
    Trap,
    TrapKind,
)

from . import _native
from .instance import WasmerInstance
from .traps import trap_maker

__all__ = ["WasmerModule"]


class WasmerModule:
    """A module that Wasmer has compiled."""

    def __init__(self, native: _native.Module, identity: bytes) -> None:
        self._native = native
        self._identity = identity
        self.imports: Sequence[Import] = tuple(
            Import(module, name, kind, _function_type(signature)) for module, name, kind, signature in native.imports()
        )
        self.exports: Sequence[Export] = tuple(
            Export(name, kind, _function_type(signature)) for name, kind, signature in native.exports()
        )
        self._name = native.name() or ""
        self._initial_memory = native.initial_memory()
        self.function_exports = {item.name: item.type for item in self.exports if item.type is not None}

    def instantiate(
        self, functions: Sequence[HostFunction], limits: Limits, bind: Callable[[Instance], None] | None = None
    ) -> Instance:
        """Make an instance, see the protocol. Raises: LinkError, Trap."""
        check_functions(self.imports, functions)
        if limits.memory is not None and self._initial_memory > limits.memory:
            raise Trap(
                TrapKind.MEMORY_LIMIT,
                f"the module begins with {self._initial_memory} bytes of memory, but the limit is {limits.memory}",
            )
        handlers = [function.call for function in functions]
        try:
            native = self._native.instantiate(
                handlers, trap_maker(self._name, limits.deadline), limits.memory, limits.deadline
            )
        except ValueError as error:
            raise LinkError(str(error)) from None
        instance = WasmerInstance(self, native)
        instance.start(bind)
        return instance

    def serialise(self) -> bytes:
        """The compiled code, for `WasmerEngine.deserialise` with the same fingerprint."""
        return self._identity + self._native.serialise()

    def refuse_other_types(self, name: str) -> None:
        """Raise TypeError if the exported function `name` cannot be called with plain numbers."""
        type = self.function_exports[name]
        if not is_numeric(type):
            raise TypeError(f"the exported function {name} {type} cannot be called with plain numbers")


def _function_type(signature: tuple[list[str], list[str]] | None) -> FunctionType | None:
    return None if signature is None else FunctionType(tuple(signature[0]), tuple(signature[1]))
