"""Limits V8's use of a thread's stack.

V8 uses 984 KiB from the beginning of a thread's stack, whatever the size of the stack. That is safe for 8 MiB, but with
a small stack deep guests crash the process. So V8 gets another limit on such a thread, and a new one on the next
thread.
"""

from __future__ import annotations

from proxywasm_host.engine.stack import own_stack

__all__ = ["stack_limit"]

_V8S = 984 << 10
_ASIDE = 160 << 10
"""Bytes left below V8's limit, for V8's own functions and for the Python code of a host function."""


def _lowest() -> int | None:
    """The result of `stack_limit` for a stack that is too small for V8's default limit, else ``None``."""
    stack = own_stack()
    if stack is None or stack[1] >= 2 * _V8S:
        return None
    lowest, size = stack
    return lowest + min(_ASIDE + 4096, size // 2)


def stack_limit(start: int) -> int:
    """The lowest address that V8 may use on this thread's stack, which begins at `start`."""
    return _lowest() or start - _V8S
