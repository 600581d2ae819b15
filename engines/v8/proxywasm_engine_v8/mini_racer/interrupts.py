"""What mini-racer has no function for: to learn where a guest is that never ends.

V8's own interface has, and the library usually exports it. Where it does not, such a guest is ended all the same, and
its trap has no backtrace.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from ctypes import c_void_p

from proxywasm_engine_v8.backtrace import Backtrace

__all__ = ["Interrupt", "Interrupts"]

Interrupt = ctypes.CFUNCTYPE(None, c_void_p, c_void_p)


def _nothing() -> None:
    return None


class Interrupts:
    """The functions of V8's that it takes, if they are there."""

    def __init__(self, library: ctypes.CDLL) -> None:
        self.current: Callable[[], int | None] = _nothing
        """The isolate of the thread that asks."""
        self.possible = False
        try:
            self.backtrace = Backtrace(library)
            self.request = library["_ZN2v87Isolate16RequestInterruptEPFvPS0_PvES2_"]
            current = library["_ZN2v87Isolate10GetCurrentEv"]
        except AttributeError:
            return
        self.request.restype = None
        self.request.argtypes = [c_void_p, Interrupt, c_void_p]
        current.restype = c_void_p
        current.argtypes = []
        self.current = current
        self.possible = True
