"""The C extension, where it was built: the marshaller and the hostcalls that only touch the state of a stream.

It is optional, and does the same as the Python code that it stands in for. ``PROXYWASM_NATIVE=no`` leaves it alone.
"""

from __future__ import annotations

import os
from importlib import import_module
from typing import Any, Final

__all__ = ["NATIVE", "NOTE"]

REVISION: Final = 3
"""That of the C sources that belong to this code (``native/native.h``)."""


def _load() -> tuple[Any, str]:
    if os.environ.get("PROXYWASM_NATIVE", "").lower() in ("no", "0", "off", "false"):
        return None, "off, as PROXYWASM_NATIVE says"
    try:
        module = import_module("proxywasm_host._native")
    except ImportError as error:
        return None, f"off: {error}" if error.name != "proxywasm_host._native" else "off: it was not built"
    if module.REVISION != REVISION:
        return None, "off: it was built from other sources; install the package again"
    return module, "on"


NATIVE, NOTE = _load()
"""The extension, or ``None``; and whether it is in use, in words."""
