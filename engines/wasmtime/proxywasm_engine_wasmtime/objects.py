"""The slow route: the same instance made of wasmtime-py's objects, through its documented interface.

A call takes about twenty times as long. The fast routes are checked against this one, which is used instead if they do
not fit the installed wheel.
"""

from __future__ import annotations

import math
import weakref
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from threading import get_ident
from typing import TYPE_CHECKING, Any

import wasmtime

from proxywasm_host.engine.protocol import (
    FunctionType,
    HostFunction,
    Instance,
    Limits,
    Memory,
    Trap,
    TrapKind,
)
from proxywasm_host.engine.recursion import headroom

from . import traps
from .deadline import NEVER, TICK
from .errors import MAX_NESTED, NESTED_TOO_DEEPLY, another_thread, closed, link_failure
from .exit import quiet_at_exit
from .instance import OTHER_LIMITS
from .signals import SEEN, bring_forward, is_enabled
from .stack import check_stack

if TYPE_CHECKING:
    from .module import WasmtimeModule

__all__ = ["ObjectsInstance", "ObjectsMemory"]

_BITS = {"i32": 32, "i64": 64}
_headroom = headroom(32)  # wasmtime-py makes some nested calls before it calls a host function


class _HostRaised(Exception):
    """Passes through wasmtime-py instead of the exception of a host function."""


class ObjectsMemory:
    """A view of linear memory."""

    __slots__ = ("_memory", "_store", "view")

    def __init__(self, store: wasmtime.Store, memory: wasmtime.Memory) -> None:
        self._store = store
        self._memory: wasmtime.Memory | None = memory
        self.view = memoryview(bytearray())
        self.refresh()

    def refresh(self) -> bool:
        """Extend `view` to the whole memory. Returns whether the memory has grown."""
        if self._memory is None or self._memory.data_len(self._store) == len(self.view):
            return False
        self.view = memoryview(self._memory.get_buffer_ptr(self._store)).cast("B")
        return True

    def release(self) -> None:
        """Release the bytes, as `FastMemory.release` does."""
        view, self.view, self._memory = self.view, memoryview(bytearray()), None
        view.release()


class ObjectsInstance:
    """A running module."""

    def __init__(
        self,
        module: WasmtimeModule,
        functions: Sequence[HostFunction],
        limits: Limits,
        bind: Callable[[Instance], None] | None,
    ) -> None:
        self.memory: Memory | None = None
        self._memory: ObjectsMemory | None = None
        self._module = module
        self._bind = bind
        self._deadline = limits.deadline
        self._depth = self._owner_thread = 0  # as in `trampolines`
        self._error: BaseException | None = None
        self._closed = self._attached = False
        self._functions: dict[str, Callable[..., Any]] = {}
        self._store = store = quiet_at_exit(wasmtime.Store(module.engine))
        if limits.memory is not None:
            elements, _, tables, memories = OTHER_LIMITS
            store.set_limits(memory_size=limits.memory, table_elements=elements, tables=tables, memories=memories)
        if module.interruptible:
            store.set_epoch_deadline(NEVER)
        imports = [
            wasmtime.Func(store, type, self._host(function), access_caller=True)
            for type, function in zip(module.import_types, functions, strict=True)
        ]
        try:
            instance = self._inside(lambda: wasmtime.Instance(store, module.module, imports))
        except Trap as trap:
            self.close()
            raise link_failure(trap) or trap from None
        except BaseException:
            self.close()
            raise
        if not self._attached:
            self._attach(instance.exports(store).get)

    def function(self, name: str) -> Callable[..., Any] | None:
        """The exported function `name`, or ``None``. Raises: TypeError if its type has values other than numbers."""
        call = self._functions.get(name)
        if call is None:
            self._module.refuse_other_types(name)
        return call

    def close(self) -> None:
        """Free the store, as `FastInstance.close` does."""
        self._refuse_other_threads()
        self._closed = True
        if self._memory is not None:
            self._memory.release()
        if not self._depth:
            self._store.close()

    def _refuse_other_threads(self) -> None:
        if self._depth > 0 or (self._depth and self._owner_thread != get_ident()):
            raise another_thread()

    def _inside(self, run: Callable[[], Any]) -> Any:
        _headroom()
        self._refuse_other_threads()
        if self._closed:
            raise closed()
        if self._depth < -MAX_NESTED:
            raise RecursionError(NESTED_TOO_DEEPLY)
        watched = self._deadline is not None and not self._depth
        if watched:
            self._store.set_epoch_deadline(math.ceil((self._deadline or 0) / TICK) + 1)
        check_stack()
        if is_enabled() is not SEEN[0]:
            bring_forward()
        self._depth = 1 - self._depth
        self._owner_thread = get_ident()
        failure: BaseException | None = None
        try:
            with self._module.ticker.held() if watched else nullcontext():
                return run()
        except _HostRaised:
            pass
        except wasmtime.Trap as trap:
            failure = self._translated(trap)
        except wasmtime.WasmtimeError as error:
            failure = Trap(TrapKind.OTHER, traps.cause(str(error)))
        finally:
            self._depth = 1 - self._depth
        if self._error is not None:
            failure, self._error = self._error, None
        try:
            raise failure or Trap(TrapKind.OTHER, "stopped by wasmtime-py, with an exception of another instance")
        finally:
            del failure  # no reference cycle with its own traceback

    def _translated(self, trap: wasmtime.Trap) -> Trap:
        made = traps.from_object(trap)
        if made.kind is TrapKind.DEADLINE:
            return Trap(made.kind, f"deadline of {self._deadline:g} s exceeded", made.frames)
        return made

    def _host(self, function: HostFunction) -> Callable[..., Any]:
        call, params, results = function.call, function.type.params, function.type.results
        reference = weakref.ref(self)  # weak, because wasmtime-py holds `host` as long as our store exists

        def host(caller: wasmtime.Caller, *values: Any) -> Any:
            this = reference()
            if this is None:  # only as a precaution: the caller of the guest holds it
                raise _HostRaised
            this._depth = -this._depth
            try:
                if not this._attached:
                    this._attach(caller.get)
                result = call(*map(_to_host, params, values))
                return _to_guest(results[0], result) if results else None
            except BaseException as error:  # noqa: BLE001 - the outermost call raises it
                this._error = error
                raise _HostRaised from None
            finally:
                this._depth = -this._depth

        return host

    def _guest(self, function: wasmtime.Func, type: FunctionType) -> Callable[..., Any]:
        store, params, results = self._store, type.params, type.results

        def call(*values: Any) -> Any:
            if len(values) != len(params):
                raise TypeError(f"expected {len(params)} arguments, got {len(values)}")
            arguments = list(map(_to_guest, params, values))
            result = self._inside(lambda: function(store, *arguments))
            return _to_host(results[0], result) if results else None

        return call

    def _attach(self, get: Callable[[str], Any]) -> None:
        self._attached = True
        for name, type in self._module.callable_exports.items():
            found = get(name)
            if isinstance(found, wasmtime.Func):
                self._functions[name] = self._guest(found, type)
        memory = get("memory")
        if isinstance(memory, wasmtime.Memory):
            self.memory = self._memory = ObjectsMemory(self._store, memory)
        bind, self._bind = self._bind, None
        if bind is not None:
            bind(self)


def _to_host(kind: str, value: Any) -> Any:
    return value & (1 << _BITS[kind]) - 1 if kind in _BITS else value


def _to_guest(kind: str, value: Any) -> Any:
    if kind not in _BITS:
        return float(value)
    half = 1 << _BITS[kind] - 1
    return (value + half & 2 * half - 1) - half
