"""Keeps Wasmtime's signal handlers in front of others.

Most traps are signals: an invalid access to memory is a SIGSEGV, ``unreachable`` a SIGILL. Wasmtime installs its
handlers once per process, in front of the existing ones, and passes other signals on to them. A handler that is
installed later (by ``faulthandler.enable()``, which pytest calls too) runs before Wasmtime's, and ends the process at
the next trap. So Wasmtime's handlers are put in front again when an instance is made. This also happens at an outermost
call if faulthandler was enabled since the last one, or disabled, which restores the handlers that it found. (A check of
the handlers themselves needs a system call, which takes longer than a call of the guest.) The alternative, code with
explicit checks, is twice as large, takes twice as long to compile, and accesses memory a tenth slower.
"""

from __future__ import annotations

import ctypes
import signal
from faulthandler import is_enabled
from typing import Any

import wasmtime._ffi as ffi

from proxywasm_host.engine.adapter import handlers_changed

__all__ = ["SEEN", "bring_forward", "is_enabled", "remember"]

_SIGNALS = [getattr(signal, name) for name in ("SIGSEGV", "SIGILL", "SIGFPE", "SIGBUS") if hasattr(signal, name)]
_Action = ctypes.c_void_p * 32
"""At least the size of a ``struct sigaction``, which on Linux and macOS begins with the address of the handler."""


def _open_libc() -> Any:
    try:
        libc = ctypes.CDLL(None)
    except (OSError, TypeError):  # Windows, which has no such signals
        return None
    return libc if hasattr(libc, "sigaction") and hasattr(libc, "dladdr") else None


_libc = _open_libc()


class _Origin(ctypes.Structure):
    """``Dl_info``: the library that contains an address."""

    _fields_ = [
        ("path", ctypes.c_char_p),
        ("base", ctypes.c_void_p),
        ("symbol", ctypes.c_char_p),
        ("address", ctypes.c_void_p),
    ]


_wasmtimes: dict[int, ctypes.Array[ctypes.c_void_p]] = {}


def remember() -> None:
    """Record Wasmtime's handlers. Must be called after the first engine, which installs them, is made."""
    ours = _library(ctypes.cast(ffi.dll.wasm_engine_new, ctypes.c_void_p).value)
    for number in _SIGNALS:
        action = _current(number)
        if ours is not None and number not in _wasmtimes and _library(action[0]) == ours:
            _wasmtimes[number] = action
    handlers_changed()


SEEN = [False]
"""Whether faulthandler was enabled at the last call of `bring_forward`. If that has changed, call it again."""


def bring_forward() -> None:
    """Put Wasmtime's handlers in front if others were installed after them."""
    SEEN[0] = is_enabled()
    for number, action in _wasmtimes.items():
        if _current(number)[0] != action[0]:
            _libc.sigaction(number, action, None)
            handlers_changed()


def _current(number: int) -> ctypes.Array[ctypes.c_void_p]:
    action = _Action()
    if _libc is not None:
        _libc.sigaction(number, None, action)
    return action


def _library(address: int | None) -> int | None:
    origin = _Origin()
    if _libc is None or not _libc.dladdr(ctypes.c_void_p(address), ctypes.byref(origin)):
        return None
    base: int | None = origin.base
    return base
