"""Optional C extensions: the library's own, and those of engines."""

from __future__ import annotations

import os
from importlib import import_module
from typing import Any

__all__ = ["load"]


def load(name: str, revision: int) -> tuple[Any, str]:
    """The extension `name`, or ``None``; and whether it is in use, in words.

    It is left alone where ``PROXYWASM_NATIVE=no`` says so, and where its ``REVISION`` is not `revision`: then it was
    built from other sources than the Python code around it.
    """
    if os.environ.get("PROXYWASM_NATIVE", "").lower() in ("no", "0", "off", "false"):
        return None, "off, as PROXYWASM_NATIVE says"
    try:
        module = import_module(name)
    except ImportError as error:
        return None, "off: it was not built" if error.name == name else f"off: {error}"
    if revision != module.REVISION:
        return None, "off: it was built from other sources; install the package again"
    return module, "on"
