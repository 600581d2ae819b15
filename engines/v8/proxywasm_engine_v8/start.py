"""Starts V8 in this process, and chooses the library, the flags and the route.

V8 starts once per process, with flags for the whole process:

* ``--single-threaded``, mini-racer's default: V8 makes no threads, so the process may fork.
* ``--wasm-sync-tier-up``: hot functions are compiled again with optimisation. Without threads, V8 does not do this by
  default, and guests run half as fast.
* ``--experimental-wasm-compilation-hints``: V8 compiles the functions with hints at once (see `binary`).
* ``--max-old-space-size`` and ``--wasm-max-table-size`` (in MiB, in elements): the few parts of a guest in V8's heap,
  above all its tables, cannot fill it. Linear memory is not in this heap.
"""

from __future__ import annotations

import ctypes
import os
import threading
from importlib.metadata import version
from pathlib import Path

from proxywasm_host import remedy
from proxywasm_host.errors import EngineUnavailable

from .address_space import AT_ITS_START, lacking
from .extension import load
from .in_thread import InThread
from .in_thread.facts import KNOWN
from .in_thread.library import Library
from .mini_racer import MiniRacer
from .routes import Route
from .selfcheck import check_once

__all__ = ["FLAGS", "IN_THREAD", "MINI_RACER", "start_v8"]

IN_THREAD, MINI_RACER = "in-thread", "mini-racer"
"""The names of the routes."""
FLAGS = (
    "--single-threaded",
    "--wasm-sync-tier-up",
    "--experimental-wasm-compilation-hints",
    "--max-old-space-size=256",
    "--wasm-max-table-size=1000000",
)
_OTHERS_FLAGS = ", with the flags that mini-racer was started with"
_lock = threading.Lock()
_started: dict[tuple[str | None, bool], Route] = {}


def start_v8(route: str | None, *, native: bool, self_check: bool) -> Route:
    """Return a route by name, or the best that is safe. Each is made once per process. Raises: EngineUnavailable."""
    with _lock:
        if (route, native) not in _started:
            _started[route, native] = _Start(native=native, self_check=self_check).take(route)
        return _started[route, native]


def _after_fork() -> None:
    """Reset the lock in a child process: a thread of the parent may have held it."""
    global _lock  # noqa: PLW0603
    _lock = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def _upgrade() -> str:
    return remedy.install_engine("proxywasm-engine-v8", "mini-racer==0.14.1", upgrade=True)


class _Start:
    """Loads mini-racer's library and starts V8, without any other call. Raises: EngineUnavailable."""

    def __init__(self, *, native: bool, self_check: bool) -> None:
        try:
            from py_mini_racer import _dll  # noqa: PLC0415 - problems with it become errors of ours
        except ImportError as error:
            raise EngineUnavailable("v8", f"not usable: mini-racer cannot be imported ({error})", _upgrade()) from error
        self._native = native
        self._self_check = self_check
        self._wheel = version("mini-racer")
        self._flags = "" if _dll._dll_handle is None else _OTHERS_FLAGS
        if _dll._dll_handle is None and (reason := lacking(AT_ITS_START)):
            raise EngineUnavailable("v8", f"not usable: {reason}", "remove the limit, or use another engine")
        try:
            self._loaded = _dll.init_mini_racer(flags=FLAGS, ignore_duplicate_init=True)
            self._loaded.mr_v8_version.restype = ctypes.c_char_p
            self._version: str = self._loaded.mr_v8_version().decode()
        except (AttributeError, OSError) as error:
            raise self._lacking(error) from error

    def take(self, route: str | None) -> Route:
        """Make a route by name, or the best that is safe."""
        if route == MINI_RACER:
            return self._mini_racer("as requested")
        if route == IN_THREAD:
            return self._in_thread()
        try:
            return self._in_thread()
        except EngineUnavailable as error:
            return self._mini_racer(f"{error.reason.removeprefix('not usable: ')}: {error.remedy}")

    def _in_thread(self) -> Route:
        facts = KNOWN.get(self._version)
        if facts is None:
            known = f"is not one of the supported versions ({', '.join(KNOWN)})"
            raise EngineUnavailable("v8", f"not usable: {self._what} {known}", _upgrade())
        try:
            library = Library(self._loaded, facts)
        except AttributeError as error:
            raise self._lacking(error) from error
        self._check(IN_THREAD)
        native, state = load() if self._native else (None, "not requested")
        how = "from C" if native else f"through ctypes (the C extension is {state})"
        return InThread(library, facts, self._version, f"in the calling thread, {how}{self._flags}", native)

    def _mini_racer(self, why: str) -> Route:
        note = f"on separate threads, which is slower{self._flags} ({why})"
        try:
            route = MiniRacer(self._loaded, self._version, note)
        except AttributeError as error:
            raise self._lacking(error) from error
        self._check(MINI_RACER)
        return route

    @property
    def _what(self) -> str:
        return f"V8 {self._version} of mini-racer {self._wheel}"

    def _check(self, route: str) -> None:
        """Check the route in a child process. Raises: EngineUnavailable if it does not work."""
        problem = self._self_check and check_once(route, Path(self._loaded._name), self._version, native=self._native)
        if problem:
            reason = f"not usable: {self._what} is not safe to use {_WHERE[route]}, {problem}"
            remedy = "set PROXYWASM_V8_SELF_CHECK=no if you are sure, or use another engine"
            raise EngineUnavailable("v8", reason, remedy)

    def _lacking(self, error: Exception) -> EngineUnavailable:
        reason = f"not usable: mini-racer {self._wheel} lacks a required function ({error})"
        return EngineUnavailable("v8", reason, _upgrade())


_WHERE = {IN_THREAD: "in the calling thread", MINI_RACER: "on separate threads"}
