"""The C extension, where it was built: the marshaller and the hostcalls that only touch the state of a stream.

It is optional, and does the same as the Python code that it stands in for. ``PROXYWASM_NATIVE=no`` leaves it alone.
"""

from __future__ import annotations

from proxywasm_host.extension import load

__all__ = ["NATIVE", "NOTE", "REVISION"]

REVISION = 12
"""As in ``native/native.h``."""
NATIVE, NOTE = load("proxywasm_host._native", REVISION)
"""The extension, or ``None``; and whether it is in use, in words."""
