"""Checks that Python's stack has headroom before a guest is entered.

If Python's stack is full, Python raises before any ``try`` of a host function runs. Then ctypes returns random memory
to native code, which may end the process. So the host enters a guest only if there is headroom for the first steps of a
host function, and for the clean-up after a failed call.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from typing import Any

__all__ = ["headroom"]


def headroom(calls: int) -> Callable[[], object]:
    """Make a function that raises RecursionError unless Python functions can nest `calls` deep.

    The function also requires that calls in C can nest twice as deep, plus a margin. CPython < 3.12 counts both kinds
    of calls together, later versions separately.
    """
    classes: Any = type(None)
    for _ in range(2 * calls + 4):
        classes = (classes,)
    check: Callable[[], object] = partial(isinstance, None, classes)  # recurses for each level, in C
    if sys.version_info >= (3, 12):
        for _ in range(calls):
            check = _around(check)
    return check


def _around(inner: Callable[[], object]) -> Callable[[], object]:
    def outer() -> None:
        inner()

    return outer
