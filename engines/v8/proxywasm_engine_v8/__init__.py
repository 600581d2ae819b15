"""V8 as an engine of `proxywasm_host`."""

from __future__ import annotations

from .engine import V8Engine

__all__ = ["V8Engine"]
