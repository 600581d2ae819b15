"""Headroom on Python's stack before a guest is entered.

If Python's stack is full, Python raises before any ``try`` of a host function runs. ctypes then gives native code
random memory as the result, which may end the process. So the host enters a guest only with headroom for the first
steps of a host function, and for the clean-up after a failed call.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from typing import Any

__all__ = ["headroom"]


def headroom(calls: int) -> Callable[[], object]:
    """A function that raises RecursionError unless there is room for `calls` calls of Python functions in each other.

    On CPython < 3.12 one number counts these and calls in C; since then each has its own. There is room for twice as
    many of those, and some to spare: for what C calls of Python, and Python of C.
    """
    classes: Any = type(None)
    for _ in range(2 * calls + 4):
        classes = (classes,)
    check: Callable[[], object] = partial(isinstance, None, classes)  # calls itself for each, at the speed of C
    if sys.version_info >= (3, 12):
        for _ in range(calls):
            check = _around(check)
    return check


def _around(inner: Callable[[], object]) -> Callable[[], object]:
    def outer() -> None:
        inner()

    return outer
