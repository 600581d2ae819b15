"""Address space for the memories of instances, so that growth does not move them.

V8 reserves address space for a memory up to its maximum. If there is too little, V8 reserves less without an error, and
moves the memory when it grows. All reservations are in V8's sandbox, usually 1 TiB. Three quarters of it suffice for
192 guests that may have 4 GiB each, or for 3072 with a limit of 256 MiB. This module counts the reserved bytes, to
determine whether the memory of an instance can move.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from proxywasm_host.engine.protocol import Trap, TrapKind

if TYPE_CHECKING:
    from .binary import MemoryType

__all__ = ["Reservation"]

_PAGE = 65536
_SHARE = 3 / 4
_lock = threading.RLock()  # the garbage collector may free a reservation while it is held
_reserved = 0


def _after_fork() -> None:
    """Reset the lock in a child process: a thread of the parent may have held it."""
    global _lock  # noqa: PLW0603
    _lock = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


class Reservation:
    """The memories of one instance, as arguments of ``new WebAssembly.Memory``.

    Args:
        memories: The memories of the module.
        limit: Limit of each memory in bytes.
        room: Bytes of address space for the memories of all instances.
        follows: Whether a memory may move if there is no address space left to reserve.

    Raises: Trap if a memory is larger than `limit` from the beginning, or if no address space is left and memories must
        not move.
    """

    def __init__(self, memories: Sequence[MemoryType], limit: int | None, room: int, *, follows: bool) -> None:
        global _reserved  # noqa: PLW0603 - like the sandbox, shared by the whole process
        self._size = size = 0
        self.descriptors: list[dict[str, Any]] = []
        for memory in memories:
            maximum = memory.maximum if limit is None else min(memory.maximum, limit // _PAGE)
            if memory.minimum > maximum:
                wanted = memory.minimum * _PAGE
                raise Trap(
                    TrapKind.MEMORY_LIMIT, f"the guest begins with {wanted} bytes of memory, but its limit is {limit}"
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
            room_for = f"{size} bytes of address space left for the guest's memory"
            raise Trap(TrapKind.MEMORY_LIMIT, f"V8 does not have {room_for}: set a lower limit for memory")

    def __del__(self) -> None:
        global _reserved  # noqa: PLW0603
        with _lock:
            _reserved -= self._size
