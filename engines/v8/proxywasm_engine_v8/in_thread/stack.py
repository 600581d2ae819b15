"""How far down V8 may go on the stack of a thread.

V8 takes 984 KiB from where the stack of a thread begins, whatever the thread has. That is right for the usual 8 MiB,
and a crash where guests run deep on a thread that was made with less. So such a thread is given a limit of its own; and
what one was given, V8 has to be told not to hold for the next one.
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
