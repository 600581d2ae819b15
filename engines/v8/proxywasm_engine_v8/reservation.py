"""Room for the memories of an instance, so that growth never moves them.

V8 reserves address space for a memory up to its maximum, and where there is not enough it quietly takes less, and
moves the memory when it grows. All reservations lie in V8's sandbox, usually 1 TiB. So an account is kept of what is
reserved, and who would go beyond gets an error that says what to do.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from proxywasm_host.engine.protocol import Trap, TrapKind

if TYPE_CHECKING:
    from .binary import MemoryType
    from .isolate import V8

__all__ = ["Reservation"]

_PAGE = 65536
_SHARE = 3 / 4
_lock = threading.Lock()
_reserved = 0


class Reservation:
    """The memories of one instance, as ``new WebAssembly.Memory`` takes them. Raises: Trap if there is no room."""

    def __init__(self, memories: Sequence[MemoryType], limit: int | None, v8: V8) -> None:
        global _reserved  # noqa: PLW0603 - as the sandbox, it is one for the process
        self.descriptors: list[dict[str, Any]] = []
        self._size = 0
        for memory in memories:
            maximum = memory.maximum if limit is None else min(memory.maximum, limit // _PAGE)
            if memory.minimum > maximum:
                wanted = memory.minimum * _PAGE
                raise Trap(
                    TrapKind.MEMORY_LIMIT, f"the guest begins with {wanted} bytes of memory, its limit is {limit}"
                )
            self.descriptors.append(
                {"initial": memory.minimum, "maximum": maximum, "shared": memory.shared, "wide": memory.wide}
            )
            self._size += maximum * _PAGE
        with _lock:
            if _reserved + self._size > v8.room * _SHARE:
                size, self._size = self._size, 0
                raise Trap(
                    TrapKind.MEMORY_LIMIT,
                    f"no room to reserve {size} bytes of address space beside {_reserved} of other guests: "
                    "give guests a memory limit",
                )
            _reserved += self._size

    def __del__(self) -> None:
        global _reserved  # noqa: PLW0603
        with _lock:
            _reserved -= self._size
