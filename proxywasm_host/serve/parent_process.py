"""Ends a process when the one that started it ends, for any reason."""

from __future__ import annotations

import ctypes
import os
import signal

__all__ = ["end_with_parent"]

PR_SET_PDEATHSIG = 1
"""prctl(2): the signal that a process gets when the thread that started it ends."""


def end_with_parent(parent: int) -> None:
    """Get SIGTERM when `parent`, which has started this process from its main thread, has ended."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, int(signal.SIGTERM), 0, 0, 0)
    if os.getppid() != parent:  # it had ended before
        os.kill(os.getpid(), signal.SIGTERM)
