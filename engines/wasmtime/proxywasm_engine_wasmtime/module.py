"""Compiled code, shared by all of its instances."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import wasmtime

from proxywasm_host.engine.adapter import check_functions, is_numeric
from proxywasm_host.engine.protocol import Export, FunctionType, HostFunction, Import, Instance, Limits
from proxywasm_host.engine.recursion import headroom

from . import signals
from .exit import quiet_at_exit
from .instance import FastInstance
from .making import making
from .objects import ObjectsInstance
from .stack import check_stack

if TYPE_CHECKING:
    from .capi import CApi
    from .deadline import Ticker

__all__ = ["WasmtimeModule"]

_headroom = headroom(50)
_KINDS = {
    wasmtime.FuncType: "function",
    wasmtime.MemoryType: "memory",
    wasmtime.TableType: "table",
    wasmtime.GlobalType: "global",
}


class WasmtimeModule:
    """A module that Wasmtime has compiled."""

    def __init__(
        self,
        engine: wasmtime.Engine,
        module: wasmtime.Module,
        api: CApi | None,
        ticker: Ticker,
        identity: bytes,
        *,
        interruptible: bool,
    ) -> None:
        self.engine = engine
        self.module = quiet_at_exit(module)
        self.ticker = ticker
        self.interruptible = interruptible
        self._api = api
        self._identity = identity
        imports, exports = module.imports, module.exports
        self.imports: Sequence[Import] = tuple(
            Import(item.module, item.name or "", *_kind(item.type)) for item in imports
        )
        self.import_types = [
            _function_type(item.type) for item in self.imports if item.type is not None and is_numeric(item.type)
        ]
        self.exports: Sequence[Export] = tuple(Export(item.name, *_kind(item.type)) for item in exports)
        self.callable_exports = {
            item.name: item.type for item in self.exports if item.type is not None and is_numeric(item.type)
        }
        self.has_memory = any(item.name == "memory" and item.kind == "memory" for item in self.exports)

    def instantiate(
        self, functions: Sequence[HostFunction], limits: Limits, bind: Callable[[Instance], None] | None = None
    ) -> Instance:
        """Make an instance, see the protocol.

        Raises: LinkError, Trap; ValueError for a deadline if the engine has the option ``deadline=False``.
        """
        if limits.deadline is not None and not self.interruptible:
            raise ValueError("this engine was opened with deadline=False: its guests cannot be stopped")
        _headroom()  # for the whole instantiation, with a start function and the host functions that it calls
        check_functions(self.imports, functions)
        check_stack()
        signals.bring_forward()
        with making.own:
            if self._api is not None:
                return FastInstance(self._api, self, functions, limits, bind)
            return ObjectsInstance(self, functions, limits, bind)

    def serialise(self) -> bytes:
        """The compiled code, for `WasmtimeEngine.deserialise` with the same fingerprint."""
        return self._identity + bytes(self.module.serialize())

    def refuse_other_types(self, name: str) -> None:
        """Raise TypeError if `name` is an exported function that cannot be called with plain numbers."""
        for item in self.exports:
            if item.name == name and item.type is not None and not is_numeric(item.type):
                raise TypeError(f"the exported function {name} {item.type} cannot be called with plain numbers")


def _function_type(type: FunctionType) -> wasmtime.FuncType:
    params, results = ([getattr(wasmtime.ValType, kind)() for kind in kinds] for kinds in (type.params, type.results))
    return quiet_at_exit(wasmtime.FuncType(params, results))


def _kind(type: Any) -> tuple[str, FunctionType | None]:
    if isinstance(type, wasmtime.FuncType):
        return "function", FunctionType(tuple(map(str, type.params)), tuple(map(str, type.results)))
    return _KINDS.get(type.__class__, "tag"), None
