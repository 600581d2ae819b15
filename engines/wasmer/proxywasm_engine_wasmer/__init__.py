"""Wasmer as an engine of `proxywasm_host`."""

from __future__ import annotations

from .engine import WasmerEngine

__all__ = ["WasmerEngine"]
