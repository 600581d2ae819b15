"""Loads the C extension, if it was built: the marshaller and the hostcalls that only touch the state of a stream.

It is optional, and its results are those of the Python code that it replaces. ``PROXYWASM_NATIVE=no`` turns it off.
"""

from __future__ import annotations

from proxywasm_host import extension
from proxywasm_host.extension import NATIVE, NOTE

__all__ = ["NATIVE", "NOTE", "check_constants"]


def check_constants(**constants: int) -> None:
    """Compare constants of Python and C. Raises: ImportError, if they differ."""
    extension.check_constants(NATIVE, **constants)
