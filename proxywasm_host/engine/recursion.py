"""Headroom on Python's stack before a guest is entered.

What Python raises when its stack is full strikes before any ``try``, and what ctypes then hands to native code is
whatever was in memory, which may end the process. So a guest is entered only if there is headroom for the first steps
of a host function, and for those that clear away what a failed call has left.
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
