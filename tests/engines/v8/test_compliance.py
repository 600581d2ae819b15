"""V8 passes the suite, on each of its routes."""

from __future__ import annotations

from proxywasm_host.testing import EngineComplianceSuite


class TestInThread(EngineComplianceSuite):
    engine = "proxywasm_engine_v8:V8Engine"
    options = {"route": "in-thread"}


class TestInThreadThroughCtypes(EngineComplianceSuite):
    engine = "proxywasm_engine_v8:V8Engine"
    options = {"route": "in-thread", "native": False}


class TestMiniRacer(EngineComplianceSuite):
    engine = "proxywasm_engine_v8:V8Engine"
    options = {"route": "mini-racer"}
