"""V8's start in this process: which library, which flags, and whether to trust it."""

from __future__ import annotations

import ctypes
import threading

from .facts import KNOWN
from .isolate import V8
from .library import Library

__all__ = ["FLAGS", "start_v8"]

FLAGS = ("--single-threaded", "--wasm-sync-tier-up")
_lock = threading.Lock()
_started: V8 | None = None


def start_v8() -> V8:
    """V8, started once per process. Raises: EngineUnavailable."""
    global _started  # noqa: PLW0603 - V8 itself is one for the process
    with _lock:
        if _started is None:
            _started = _start()
        return _started


def _start() -> V8:
    from py_mini_racer._dll import init_mini_racer  # noqa: PLC0415

    loaded = init_mini_racer(flags=FLAGS, ignore_duplicate_init=True)
    loaded.mr_v8_version.restype = ctypes.c_char_p
    number = loaded.mr_v8_version().decode()
    v8 = V8(Library(loaded), KNOWN[number])
    v8.version = number
    v8.note = "in the calling thread"
    return v8
