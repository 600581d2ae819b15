"""A running module and its memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from proxywasm_host.engine.adapter import memory_capsule
from proxywasm_host.engine.protocol import Instance, Memory

from . import _native

if TYPE_CHECKING:
    from .module import WasmerModule

__all__ = ["WasmerInstance", "WasmerMemory"]


class WasmerMemory:
    """A view of linear memory, which never moves: address space up to its maximum is reserved."""

    __slots__ = ("_native", "_size", "native_range", "view")

    def __init__(self, native: _native.Instance) -> None:
        self._native = native
        self._size = native.size
        self.native_range = memory_capsule(native.range(), _native.NATIVE_ABI)
        self.view = memoryview(bytearray())
        self.refresh()

    def refresh(self) -> bool:
        """Extend `view` to the whole memory. Returns whether the memory has grown."""
        if self._size() == len(self.view):
            return False
        self.view = self._native.view()
        return True

    def release(self) -> None:
        """Release the bytes: `view` becomes empty, and earlier views raise ``ValueError`` when used."""
        view, self.view, self._size = self.view, memoryview(bytearray()), int
        view.release()


class WasmerInstance:
    """A running module."""

    __slots__ = ("__weakref__", "_bind", "_functions", "_memory", "_module", "_native", "memory")

    def __init__(self, module: WasmerModule, native: _native.Instance) -> None:
        self._module = module
        self._native = native
        self._functions: dict[str, Callable[..., Any]] = {}
        self._bind: Callable[[Instance], None] | None = None
        self._memory = WasmerMemory(native) if native.has_memory() else None
        self.memory: Memory | None = self._memory

    def start(self, bind: Callable[[Instance], None] | None) -> None:
        """Run the start function. `bind` is called when memory is usable."""
        try:
            self._native.start(lambda: bind(self) if bind is not None else None)
        except BaseException:
            self.close()
            raise

    def function(self, name: str) -> Callable[..., Any] | None:
        """The exported function `name`, or ``None``. Raises: TypeError if its type has values other than numbers."""
        call = self._functions.get(name)
        if call is None and name in self._module.function_exports:
            self._module.refuse_other_types(name)
            call = self._functions[name] = self._native.function(name)
        return call

    def close(self) -> None:
        """Free everything. Inside a host function, refuse further calls and free the rest when the guest has returned.

        Raises: RuntimeError if another thread is inside.
        """
        self._native.close()
        if self._memory is not None:
            self._memory.release()
