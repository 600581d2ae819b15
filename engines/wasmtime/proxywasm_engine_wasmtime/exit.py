"""Silences wasmtime-py's objects at the end of the process.

Objects that still exist when the interpreter clears its modules call functions that are gone, and each prints an
ignored exception. Nothing needs to be freed at that time, so the objects are made to own nothing.
"""

from __future__ import annotations

import atexit
import weakref
from contextlib import suppress
from typing import Any, TypeVar

__all__ = ["quiet_at_exit"]

_T = TypeVar("_T")
_alive: weakref.WeakSet[Any] = weakref.WeakSet()


def quiet_at_exit(managed: _T) -> _T:
    """Return `managed`, which will print nothing if it outlives the interpreter."""
    _alive.add(managed)
    return managed


@atexit.register
def _disown() -> None:
    for managed in list(_alive):
        with suppress(ValueError):  # already closed
            managed._consume()
