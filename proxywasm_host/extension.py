"""Optional C extensions, the library's own and those of engines, and what they may hand to each other.

They are released apart, so that what one hands to another is a capsule whose name carries the version of
``include/proxywasm_host.h``. Of another version it is left alone, and calls go through Python.
"""

from __future__ import annotations

import os
from importlib import import_module
from pathlib import Path
from typing import Any

__all__ = ["NATIVE_ABI", "get_include", "load"]

NATIVE_ABI = 1
"""As in ``include/proxywasm_host.h``."""


def load(name: str, revision: int) -> tuple[Any, str]:
    """The extension `name`, or ``None``; and whether it is in use, in words.

    It is left alone where ``PROXYWASM_NATIVE=no`` says so, where its ``REVISION`` is not `revision`, for then it was
    built from other sources than the Python code around it, and where it knows another native ABI than this core.
    """
    if os.environ.get("PROXYWASM_NATIVE", "").lower() in ("no", "0", "off", "false"):
        return None, "off, as PROXYWASM_NATIVE says"
    try:
        module = import_module(name)
    except ImportError as error:
        return None, "off: it was not built" if error.name == name else f"off: {error}"
    if revision != module.REVISION:
        return None, "off: it was built from other sources; install the package again"
    built_for = getattr(module, "NATIVE_ABI", 0)
    if built_for != NATIVE_ABI:
        package = name.partition(".")[0].replace("_", "-")
        return None, (
            f"off: it was built for native ABI {built_for}, and this proxywasm-host has {NATIVE_ABI}: "
            f"install {package} of a version that fits"
        )
    return module, "on"


def get_include() -> str:
    """The directory of ``proxywasm_host.h``, for engines that are built with a compiler."""
    return str(Path(__file__).parent / "include")
