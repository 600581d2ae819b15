"""How far down V8 may go on the stack of a thread.

V8 takes 984 KiB from where the stack of a thread begins, whatever the thread has. That is right for the usual 8 MiB,
and a crash where guests run deep on a thread that was made with less. So such a thread is given a limit of its own; and
what one was given, V8 has to be told not to hold for the next one.
"""

from __future__ import annotations

import ctypes
import threading
from typing import Any

__all__ = ["stack_limit"]

_V8S = 984 << 10
_ASIDE = 160 << 10
"""What is left below V8's limit, for V8's own functions and for Python's in a host function."""


def _open_libc() -> Any:
    try:
        libc = ctypes.CDLL(None)
        libc.pthread_self.restype = ctypes.c_void_p
        libc.pthread_getattr_np.argtypes = [ctypes.c_void_p, ctypes.c_void_p]
        libc.pthread_attr_getstack.argtypes = [ctypes.c_void_p] * 3
        libc.pthread_attr_destroy.argtypes = [ctypes.c_void_p]
    except (AttributeError, OSError, TypeError):
        return None
    return libc


_libc = _open_libc()


def _lowest() -> int | None:
    """The same for a stack that is too small for what V8 takes, else ``None``."""
    if _libc is None or threading.current_thread() is threading.main_thread():
        return None
    attributes, lowest, size = (ctypes.c_char * 128)(), ctypes.c_size_t(), ctypes.c_size_t()
    if _libc.pthread_getattr_np(_libc.pthread_self(), attributes):
        return None
    _libc.pthread_attr_getstack(attributes, ctypes.byref(lowest), ctypes.byref(size))
    _libc.pthread_attr_destroy(attributes)
    if size.value >= 2 * _V8S:
        return None
    return lowest.value + min(_ASIDE + 4096, size.value // 2)


def stack_limit(start: int) -> int:
    """The address below which V8 must not go on this thread's stack, which begins at `start`."""
    return _lowest() or start - _V8S
