"""Wasmtime passes the suite on both of its routes."""

from __future__ import annotations

from proxywasm_host.testing import EngineComplianceSuite


class TestWasmtime(EngineComplianceSuite):
    engine = "proxywasm_engine_wasmtime:WasmtimeEngine"
    options = {"route": "ctypes"}


class TestWasmtimeObjects(EngineComplianceSuite):
    engine = "proxywasm_engine_wasmtime:WasmtimeEngine"
    options = {"route": "objects"}
