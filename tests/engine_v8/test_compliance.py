"""V8 passes the suite."""

from __future__ import annotations

from proxywasm_host.testing import EngineComplianceSuite


class TestV8(EngineComplianceSuite):
    engine = "proxywasm_engine_v8:V8Engine"
