"""How far down V8 may go on the stack of a thread.

V8 uses 984 KiB from the beginning of a thread's stack, whatever its size. That is right for 8 MiB, but crashes
where guests run deep on a thread with less. So V8 gets another limit for such a thread, which it has to drop for the
next thread.
"""

from __future__ import annotations

from proxywasm_host.engine.stack import own_stack

__all__ = ["stack_limit"]

_V8S = 984 << 10
_ASIDE = 160 << 10
"""What is left below V8's limit, for V8's own functions and for Python's in a host function."""


def _lowest() -> int | None:
    """The same for a stack that is too small for what V8 takes, else ``None``."""
    stack = own_stack()
    if stack is None or stack[1] >= 2 * _V8S:
        return None
    lowest, size = stack
    return lowest + min(_ASIDE + 4096, size // 2)


def stack_limit(start: int) -> int:
    """The address below which V8 must not go on this thread's stack, which begins at `start`."""
    return _lowest() or start - _V8S
