"""Wasmtime as an engine of `proxywasm_host`."""

from __future__ import annotations

from .engine import WasmtimeEngine

__all__ = ["WasmtimeEngine"]
