"""Wasmer passes the suite."""

from __future__ import annotations

from proxywasm_host.testing import EngineComplianceSuite


class TestWasmer(EngineComplianceSuite):
    engine = "proxywasm_engine_wasmer:WasmerEngine"
