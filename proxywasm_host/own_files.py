"""Writes files completely or not at all, and opens files of a cache only if no other user can write to them."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from io import FileIO
from pathlib import Path

__all__ = ["TEMPORARY", "NotOursError", "check_own", "open_own", "replace_file", "write_temporary"]

TEMPORARY = ".tmp-"
"""Prefix of the names of files that are being written."""
OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH
READ_ONLY = os.O_RDONLY | sum(getattr(os, name, 0) for name in ("O_NOFOLLOW", "O_NONBLOCK", "O_BINARY"))
"""Opening a pipe with these flags does not block; then it is refused because it is not a plain file."""


class NotOursError(OSError):
    """A file that another user may have written."""


@contextmanager
def open_own(path: Path, others: int = OTHERS_WRITE) -> Iterator[FileIO]:
    """Open a plain file of this user. Its mode must have none of the bits `others`. Raises: OSError."""
    descriptor = os.open(path, READ_ONLY)
    with open(descriptor, "rb", buffering=0) as file:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise NotOursError(f"{path.name} is not a plain file")
        check_own(status, path, others)
        yield file


def check_own(status: os.stat_result, path: Path, others: int = OTHERS_WRITE) -> None:
    """Check the owner and mode of a file. Raises: NotOursError, if another user owns it or may write to it."""
    if not hasattr(os, "geteuid"):  # on Windows, permissions are inherited from the user's own directory
        return
    if status.st_uid != os.geteuid():
        raise NotOursError(f"{path.name} belongs to another user")
    if status.st_mode & others:
        raise NotOursError(f"{path.name} is open to others (mode {stat.S_IMODE(status.st_mode):o})")


def replace_file(path: Path, *parts: bytes, private: bool = True) -> None:
    """Write a file completely or not at all. Raises: OSError.

    Only this user may read a `private` file. Any other file keeps its mode; a new one gets the default mode.
    """
    temporary = write_temporary(path.parent, *parts, mode=0o600 if private else 0o666)
    try:
        if not private and path.exists():
            temporary.chmod(stat.S_IMODE(path.stat().st_mode))
        temporary.replace(path)
    except OSError:
        temporary.unlink()
        raise


def write_temporary(directory: Path, *parts: bytes, mode: int = 0o600) -> Path:
    """Write a new file, by default readable only by this user, and return its path. Raises: OSError."""
    path = directory / f"{TEMPORARY}{os.urandom(8).hex()}"
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    try:
        with open(descriptor, "wb") as file:
            file.writelines(parts)
    except OSError:
        path.unlink()
        raise
    return path
