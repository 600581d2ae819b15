"""Ends a process when its parent ends, for whatever reason."""

from __future__ import annotations

import ctypes
import os
import signal

__all__ = ["end_with_parent"]

PR_SET_PDEATHSIG = 1
"""prctl(2): the signal that a process gets when the thread that started it ends."""


def end_with_parent(parent: int) -> None:
    """Send this process SIGTERM when its parent ends; `parent` has started it from its main thread."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, int(signal.SIGTERM), 0, 0, 0)
    if os.getppid() != parent:  # the parent has ended already
        os.kill(os.getpid(), signal.SIGTERM)
