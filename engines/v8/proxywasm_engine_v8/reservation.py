"""Room for the memories of an instance, so that growth never moves them.

V8 reserves address space for a memory up to its maximum, and where there is not enough it quietly takes less, and
moves the memory when it grows. All reservations lie in V8's sandbox, usually 1 TiB: room for 192 guests that may have
4 GiB each, or for 3072 with a limit of 256 MiB. So an account is kept of what is reserved, by which an instance knows
whether its memory stays where it is.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from proxywasm_host.engine.protocol import Trap, TrapKind

if TYPE_CHECKING:
    from .binary import MemoryType

__all__ = ["Reservation"]

_PAGE = 65536
_SHARE = 3 / 4
_lock = threading.Lock()
_reserved = 0


class Reservation:
    """The memories of one instance, as ``new WebAssembly.Memory`` takes them.

    Args:
        memories: Of the module.
        limit: In bytes, for each of them.
        room: Bytes of address space for the memories of all instances.
        follows: Whether a memory may move where there is no room to reserve.

    Raises: Trap if they are beyond `limit` from the beginning, or if there is no room and they must not move.
    """

    def __init__(self, memories: Sequence[MemoryType], limit: int | None, room: int, *, follows: bool) -> None:
        global _reserved  # noqa: PLW0603 - as the sandbox, it is one for the process
        self._size = size = 0
        self.descriptors: list[dict[str, Any]] = []
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
            size += maximum * _PAGE
        with _lock:
            self._size = size
            _reserved += size
            self.is_safe = _reserved <= room * _SHARE
        if not self.is_safe and not follows:
            room_for = f"{size} bytes of address space for the guest's memory"
            raise Trap(TrapKind.MEMORY_LIMIT, f"there are no {room_for} left: set a lower limit of memory")

    def __del__(self) -> None:
        global _reserved  # noqa: PLW0603
        with _lock:
            _reserved -= self._size
