"""Reads the stack of an endless guest, and optimises functions at once: mini-racer has no functions for this.

V8's interface has them, and the library usually exports them. If it does not, such a guest is still ended, but its trap
has no backtrace, and functions are optimised when they are hot.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from ctypes import c_int, c_uint32, c_void_p
from typing import Any

from proxywasm_engine_v8.backtrace import OPTIMISE, Backtrace

__all__ = ["Interrupt", "Interrupts"]

Interrupt = ctypes.CFUNCTYPE(None, c_void_p, c_void_p)


def _nothing() -> None:
    return None


class Interrupts:
    """V8's functions for interrupts, if the library exports them."""

    def __init__(self, library: ctypes.CDLL) -> None:
        self.current: Callable[[], int | None] = _nothing
        """Returns the isolate of the calling thread."""
        self.optimise: Callable[[], object] = _nothing
        """Optimises the guest's function in element 0 of the global object. Must be called on V8's thread, in a
        callback of its script."""
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
        self.optimise = _optimiser(library) or _nothing
        self.possible = True


def _optimiser(library: ctypes.CDLL) -> Callable[[], object] | None:
    types: dict[str, list[Any]] = {
        "_ZN2v87Isolate10GetCurrentEv": [],
        "_ZN2v87Isolate17GetCurrentContextEv": [c_void_p],
        "_ZN2v87Context6GlobalEv": [c_void_p],
        "_ZN2v86Object3GetENS_5LocalINS_7ContextEEEj": [c_void_p, c_void_p, c_uint32],
        OPTIMISE: [c_int, c_void_p, c_void_p],
    }
    found = []
    for symbol, parameters in types.items():
        try:
            function = library[symbol]
        except AttributeError:
            return None
        function.restype, function.argtypes = c_void_p, parameters
        found.append(function)
    current, context_of, global_of, get, optimise = found

    def run() -> None:
        isolate = current()
        context = context_of(isolate)
        optimise(1, get(global_of(context), context, 0), isolate)

    return run
