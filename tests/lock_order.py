"""Records in which order the threads of a program take the locks of `proxywasm_host`, in a process of its own.

    from tests.lock_order import check      # before proxywasm_host is imported
    …
    check()

Two orders that contradict each other are a deadlock that waits for its moment, so no thread needs to wait in the test.
"""

from __future__ import annotations

import linecache
import sys
import threading
from graphlib import TopologicalSorter
from typing import Any

assert not any(name.startswith("proxywasm_host") for name in sys.modules), "its locks are made already"

_held = threading.local()
_before: dict[str, set[str]] = {}
"""By lock: those that a thread held when it took it. A lock is the line that makes it."""
_make = {"Lock": threading.Lock, "RLock": threading.RLock}


class Recorded:
    """A lock that notes which others its thread holds."""

    def __init__(self, lock: Any, name: str) -> None:
        self._lock = lock
        self._name = name

    def __getattr__(self, name: str) -> Any:
        return getattr(self._lock, name)

    def acquire(self, *args: Any, **options: Any) -> bool:
        names = _held.__dict__.setdefault("names", [])
        if self._name not in names:
            _before.setdefault(self._name, set()).update(names)
        taken: bool = self._lock.acquire(*args, **options)
        if taken:
            names.append(self._name)
        return taken

    def release(self) -> None:
        _held.names.reverse()
        _held.names.remove(self._name)
        _held.names.reverse()
        self._lock.release()

    def __enter__(self) -> bool:
        return self.acquire()

    def __exit__(self, *_: object) -> None:
        self.release()


def _recording(kind: str) -> Any:
    def make() -> Any:
        lock, caller = _make[kind](), sys._getframe(1)
        while caller.f_code.co_name == "fork_lock" and caller.f_back is not None:
            caller = caller.f_back
        file = caller.f_code.co_filename
        if "/proxywasm_host/" not in file:
            return lock
        line = linecache.getline(file, caller.f_lineno).strip()
        return Recorded(lock, f"{file.rpartition('/proxywasm_host/')[2]}: {line}")

    return make


threading.Lock = _recording("Lock")
threading.RLock = _recording("RLock")  # type: ignore[misc, assignment]


def check(*needed: str) -> None:
    """Check that the order has no circle, and that these locks (parts of their names) were taken. Raises: CycleError."""
    TopologicalSorter(_before).prepare()
    for each in needed:
        assert any(each in name for name in _before), (each, sorted(_before))
