"""V8 on separate threads."""

from __future__ import annotations

import ctypes
import os
import threading

from .interrupts import Interrupts
from .isolate import MiniRacerIsolate
from .library import Library

__all__ = ["MiniRacer"]

_SANDBOX = 1 << 40


class MiniRacer:
    """The route with separate threads, see `routes.Route`. Raises: AttributeError if a function is missing."""

    room = _SANDBOX
    follows = forks = False

    def __init__(self, loaded: ctypes.CDLL, version: str, note: str) -> None:
        self.library = Library(loaded)
        self.interrupts = Interrupts(ctypes.CDLL(loaded._name))
        self.sees_loops = self.interrupts.possible
        self.version = version
        self.note = note
        self._lock = threading.Lock()
        self._workshop: MiniRacerIsolate | None = None

    def isolate(self) -> MiniRacerIsolate:
        """Make an isolate."""
        return MiniRacerIsolate(self)

    def compiling_isolate(self) -> MiniRacerIsolate:
        """The isolate in which modules are compiled; each process has another one."""
        with self._lock:
            if self._workshop is None or self._workshop.thread.process != os.getpid():
                self._workshop = self.isolate()
            return self._workshop
