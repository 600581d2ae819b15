"""Wasmtime passes the suite on each of its routes."""

from __future__ import annotations

from proxywasm_host.testing import EngineComplianceSuite

from .routes import needs_native


@needs_native
class TestWasmtimeNative(EngineComplianceSuite):
    engine = "proxywasm_engine_wasmtime:WasmtimeEngine"
    options = {"route": "native"}


class TestWasmtime(EngineComplianceSuite):
    engine = "proxywasm_engine_wasmtime:WasmtimeEngine"
    options = {"route": "ctypes"}


class TestWasmtimeObjects(EngineComplianceSuite):
    engine = "proxywasm_engine_wasmtime:WasmtimeEngine"
    options = {"route": "objects"}
