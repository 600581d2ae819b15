"""Reading files that a configuration names, again and again while the server runs."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

__all__ = ["check", "read"]


def read(path: Path) -> bytes:
    """The content of a file. Raises: OSError; also for a pipe or a device, which could block forever."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with open(descriptor, "rb") as file:
        _check(path, os.fstat(descriptor))
        return file.read()


def check(path: Path) -> None:
    """Refuse a file that could block a reader forever. Raises: OSError."""
    _check(path, path.stat())


def _check(path: Path, status: os.stat_result) -> None:
    if not stat.S_ISREG(status.st_mode) and not stat.S_ISDIR(status.st_mode):  # reading a directory raises anyway
        raise OSError(errno.EINVAL, "it is a pipe or a device, not a file", str(path))
