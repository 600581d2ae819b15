"""Checks the size of a thread's stack.

Wasmtime ends a guest with a trap when the guest has used `GUESTS` bytes of stack. It does not check whether the thread
has that much: on a smaller stack, a recursive guest would crash the process. So guests are refused on such threads.
"""

from __future__ import annotations

import threading

from proxywasm_host.engine.stack import own_stack

__all__ = ["GUESTS", "check_stack"]

GUESTS = 512 << 10
"""Bytes of stack that a guest may use."""
_NEEDED = GUESTS + (192 << 10)
"""The same, plus what Wasmtime and Python need in a host function."""


class _Here(threading.local):
    suffices = False


_here = _Here()


def check_stack() -> None:
    """Check the stack of this thread. Raises: RuntimeError if it is too small."""
    if _here.suffices:
        return
    stack = own_stack()
    if stack is not None and stack[1] < _NEEDED:
        raise RuntimeError(
            f"the stack of this thread is too small for guests of Wasmtime: it has {stack[1] >> 10} KiB of "
            f"{_NEEDED >> 10}; call threading.stack_size(1 << 20) before the thread is made"
        )
    _here.suffices = True
