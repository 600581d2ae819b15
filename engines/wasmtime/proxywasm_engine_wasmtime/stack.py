"""How far down a guest may go on the stack of a thread.

Wasmtime ends a guest with a trap when the guest has used `GUESTS`. It does not check whether the thread has as much: on
a smaller thread, a guest that recurses would end the process. So guests are refused on threads with less.
"""

from __future__ import annotations

import threading

from proxywasm_host.engine.stack import own_stack

__all__ = ["GUESTS", "check_stack"]

GUESTS = 512 << 10
"""Bytes for a guest."""
_NEEDED = GUESTS + (192 << 10)
"""With what Wasmtime and Python need in a host function."""


class _Here(threading.local):
    suffices = False


_here = _Here()


def check_stack() -> None:
    """Raises: RuntimeError, on a thread with too small a stack."""
    if _here.suffices:
        return
    stack = own_stack()
    if stack is not None and stack[1] < _NEEDED:
        raise RuntimeError(
            f"the stack of this thread is too small for guests of Wasmtime: it has {stack[1] >> 10} KiB of "
            f"{_NEEDED >> 10}; call threading.stack_size(1 << 20) before the thread is made"
        )
    _here.suffices = True
