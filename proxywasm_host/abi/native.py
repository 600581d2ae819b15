"""The C extension, where it was built: the marshaller and the hostcalls that only touch the state of a stream.

It is optional, and does the same as the Python code that it stands in for. ``PROXYWASM_NATIVE=no`` leaves it alone.
"""

from __future__ import annotations

from proxywasm_host.extension import NATIVE, NOTE

__all__ = ["NATIVE", "NOTE", "check_constants"]


def check_constants(**constants: int) -> None:
    """Compare numbers that stand in Python and in C. Raises: ImportError, if the extension has another."""
    for name, value in constants.items() if NATIVE is not None else ():
        if NATIVE.CONSTANTS[name] != value:
            raise ImportError(f"proxywasm_host._native has {NATIVE.CONSTANTS[name]} for {name}, Python {value}")
