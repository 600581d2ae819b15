"""Finds the stack of a thread, which guests share with Python."""

from __future__ import annotations

import ctypes
import threading
from typing import Any

__all__ = ["own_stack"]


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


def own_stack() -> tuple[int, int] | None:
    """The lowest address and the size of this thread's stack; ``None`` for the main thread, or if unknown."""
    if _libc is None or threading.current_thread() is threading.main_thread():
        return None
    attributes, lowest, size = (ctypes.c_char * 128)(), ctypes.c_size_t(), ctypes.c_size_t()
    if _libc.pthread_getattr_np(_libc.pthread_self(), attributes):
        return None
    _libc.pthread_attr_getstack(attributes, ctypes.byref(lowest), ctypes.byref(size))
    _libc.pthread_attr_destroy(attributes)
    return lowest.value, size.value
