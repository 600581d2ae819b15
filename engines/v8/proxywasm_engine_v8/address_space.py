"""Checks that the process may have the address space that V8 reserves.

V8 ends the process when a reservation fails, so the limit (``ulimit -v``, ``RLIMIT_AS``) is checked first. The versions
of V8 in `in_thread.facts` reserve 1422 GiB when they start, mostly for the sandbox, which contains all memories, and
1.6 GiB for each isolate (measured).
"""

from __future__ import annotations

import os

try:
    import resource
except ImportError:  # Windows, which has no such limits
    resource = None  # type: ignore[assignment]

__all__ = ["AT_ITS_START", "FOR_AN_ISOLATE", "lacking"]

GIB = 1 << 30
AT_ITS_START = 1424 * GIB
FOR_AN_ISOLATE = 2 * GIB


def lacking(wanted: int) -> str:
    """Why `wanted` bytes of address space are not available, in words; empty if they are."""
    limit = _limit()
    if limit is None:
        return ""
    left = limit - _used()
    if left >= wanted:
        return ""
    return (
        f"V8 reserves {wanted // GIB} GiB of address space, and of the {limit / GIB:g} GiB that this process may have "
        f"(ulimit -v) {max(left, 0) / GIB:.1f} are left"
    )


def _limit() -> int | None:
    if resource is None:
        return None
    soft = resource.getrlimit(resource.RLIMIT_AS)[0]
    return None if soft == resource.RLIM_INFINITY else soft


def _used() -> int:
    try:
        with open("/proc/self/statm", "rb") as file:
            return int(file.read().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0
