"""Loads the engine's C extension, see ``native/``."""

from __future__ import annotations

from typing import Any

from proxywasm_host import extension

__all__ = ["NATIVE", "load"]


def load() -> tuple[Any, str]:
    """The extension, or ``None``; and a text that says whether it is in use."""
    return extension.load("proxywasm_engine_v8._native")


NATIVE = load()[0]
"""The extension, or ``None``, at the import of this package."""
