"""The guest's linear memory as a view, without a copy."""

from __future__ import annotations

import ctypes

from proxywasm_host.engine.adapter import memory_capsule

from .routes import Isolate

__all__ = ["MEMORY_ABI", "MovingMemory", "V8Memory"]

MEMORY_ABI = 1
"""The version of ``proxywasm_host.h`` that defines the layout of `V8Memory._range`, a ``Proxywasm_memory``."""


class V8Memory:
    """A view of linear memory that never moves, see `Reservation`."""

    __slots__ = ("_isolate", "_range", "native_range", "view")

    def __init__(self, isolate: Isolate) -> None:
        self._isolate: Isolate | None = isolate
        self._range = (ctypes.c_uint64 * 2)()
        self.native_range = memory_capsule(ctypes.addressof(self._range), MEMORY_ABI)
        self.view = memoryview(bytearray())
        self.refresh()

    def refresh(self) -> bool:
        """Extend `view` to the whole memory. Returns whether the memory has grown."""
        if self._isolate is None:
            return False
        base, size = self._isolate.memory()
        if size == len(self.view):
            return False
        if self._range[0] and base != self._range[0]:
            raise RuntimeError("V8 has moved a memory although address space was reserved for it")
        self._range[0], self._range[1] = base, size
        self.view = memoryview((ctypes.c_ubyte * size).from_address(base)).cast("B")
        return True

    def release(self) -> None:
        """Release the bytes: `view` becomes empty, and earlier views raise ``ValueError`` when used."""
        view, self.view, self._isolate = self.view, memoryview(bytearray()), None
        self._range[1] = 0
        view.release()


class MovingMemory:
    """Linear memory that may move when it grows: each access to `view` calls V8 and makes a new one."""

    __slots__ = ("_fixed", "_isolate")

    def __init__(self, isolate: Isolate) -> None:
        self._isolate: Isolate | None = isolate
        self._fixed = V8Memory(isolate)

    @property
    def view(self) -> memoryview:
        """The whole memory."""
        self.refresh()
        return self._fixed.view

    def refresh(self) -> bool:
        """Extend `view` to the whole memory. Returns whether the memory has grown."""
        if self._isolate is None:
            return False
        size = len(self._fixed.view)
        self._fixed = V8Memory(self._isolate)
        return len(self._fixed.view) != size

    def release(self) -> None:
        """Release the bytes, as `V8Memory.release` does."""
        self._isolate = None
        self._fixed.release()
