"""V8's start in this process: which library, which flags, and whether to trust it.

V8 starts once per process, with flags for the whole process. Ours are:

* ``--single-threaded``, as mini-racer has it by default: V8 makes no threads, so a process that has it may fork.
* ``--wasm-sync-tier-up``: hot functions are compiled anew with optimisation. Without threads this is else left out,
  and guests run half as fast.
* ``--max-old-space-size`` and ``--wasm-max-table-size`` (in MiB, in elements): what little of a guest lies in V8's own
  heap, its tables above all, cannot fill it. Memory that WebAssembly calls so is elsewhere.
"""

from __future__ import annotations

import ctypes
import threading
from importlib.metadata import version
from pathlib import Path

from proxywasm_host.errors import EngineUnavailable

from .facts import KNOWN
from .isolate import V8
from .library import Library
from .selfcheck import check_once

__all__ = ["FLAGS", "start_v8"]

FLAGS = ("--single-threaded", "--wasm-sync-tier-up", "--max-old-space-size=256", "--wasm-max-table-size=1000000")
_REMEDY = "pip install --upgrade proxywasm-engine-v8 'mini-racer==0.14.1'"
_lock = threading.Lock()
_started: V8 | None = None


def start_v8(*, self_check: bool) -> V8:
    """V8, started once per process. Raises: EngineUnavailable."""
    global _started  # noqa: PLW0603 - V8 itself is one for the process
    with _lock:
        if _started is None:
            _started = _start(self_check=self_check)
        return _started


def _start(*, self_check: bool) -> V8:
    try:
        from py_mini_racer import _dll  # noqa: PLC0415 - what is wrong with it is told as our own error
    except ImportError as error:
        raise EngineUnavailable("v8", f"not usable: mini-racer cannot be imported ({error})", _REMEDY) from error
    wheel = version("mini-racer")
    ours = _dll._dll_handle is None
    try:
        loaded = _dll.init_mini_racer(flags=FLAGS, ignore_duplicate_init=True)
        loaded.mr_v8_version.restype = ctypes.c_char_p
        number: str = loaded.mr_v8_version().decode()
        facts = KNOWN.get(number)
        if facts is None:
            reason = f"not usable: V8 {number} of mini-racer {wheel} is none of those known here ({', '.join(KNOWN)})"
            raise EngineUnavailable("v8", reason, _REMEDY)
        library = Library(loaded)
    except (AttributeError, OSError) as error:
        raise EngineUnavailable(
            "v8", f"not usable: mini-racer {wheel} lacks what is called ({error})", _REMEDY
        ) from error
    if self_check and (problem := check_once(Path(library.path), number)):
        reason = f"not usable: V8 {number} of mini-racer {wheel} is not safe to use here, {problem}"
        raise EngineUnavailable("v8", reason, "set PROXYWASM_V8_SELF_CHECK=no if you are sure, or use another engine")
    note = "in the calling thread" if ours else "in the calling thread, with the flags that mini-racer was started with"
    return V8(library, facts, number, note)
