"""The compliance suite as others use it: how an engine is named, what is skipped, and that it finds what is wrong."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from proxywasm_host.testing import EngineComplianceSuite
from proxywasm_host.testing.compliance.assembled import TABLE, wasm

from .assemble import assembled


def outcomes(directory: Path, program: str, *options: str) -> tuple[dict[str, set[str]], str]:
    """Run pytest on `program`, away from this project. Returns names of tests by their outcome, and all that was said."""
    path = directory / "test_theirs.py"
    head = "from proxywasm_host.testing import EngineComplianceSuite\n"
    path.write_text(head + textwrap.dedent(program))
    command = [sys.executable, "-m", "pytest", "-q", "-rA", "-p", "no:cacheprovider", "-W", "error", *options, path]
    done = subprocess.run(command, cwd=directory, capture_output=True, text=True, timeout=100)
    found: dict[str, set[str]] = {}
    for line in done.stdout.splitlines():
        word, _, test = line.partition(" ")
        if word in ("PASSED", "FAILED", "ERROR"):
            found.setdefault(word, set()).add(test.partition(" ")[0].partition("::")[2])
    return found, done.stdout


def test_an_engine_is_named_in_any_of_these_ways(tmp_path):
    found, _ = outcomes(
        tmp_path,
        """
        import pytest
        from proxywasm_engine_wasmtime import WasmtimeEngine

        class TestTarget(EngineComplianceSuite):
            engine = "proxywasm_engine_wasmtime:WasmtimeEngine"
            options = {"route": "objects"}

            def test_which(self, engine):
                assert "objects" in engine.note

        class TestClass(EngineComplianceSuite):
            engine = WasmtimeEngine

            def test_which(self, engine):
                assert type(engine) is WasmtimeEngine

        class TestName(EngineComplianceSuite):
            engine = "wasmtime"

            def test_which(self, engine):
                import proxywasm_host
                assert engine is proxywasm_host.open_engine("wasmtime")

        class TestFixture(EngineComplianceSuite):
            @pytest.fixture
            def engine(self):
                return WasmtimeEngine(optimise="none")

            def test_which(self, engine):
                assert engine._optimise == "none"
        """,
        "-k",
        "which or no_result",
    )
    assert found == {
        "PASSED": {
            f"Test{way}::test_{name}"
            for way in ("Target", "Class", "Name", "Fixture")
            for name in ("which", "no_result_is_none")
        }
    }


def test_one_that_is_not_named_is_asked_for(tmp_path):
    found, said = outcomes(tmp_path, "class TestNone(EngineComplianceSuite): pass", "-k", "no_result")
    assert found == {"ERROR": {"TestNone::test_no_result_is_none"}}
    assert 'set the engine to test: engine = "package.module:Class"' in said


def test_what_an_engine_does_not_declare_is_skipped_and_told(tmp_path):
    found, said = outcomes(
        tmp_path,
        """
        from proxywasm_engine_wasmtime import WasmtimeEngine
        from proxywasm_host.engine.protocol import Capabilities

        class Poor(WasmtimeEngine):
            name = "poor"

            def __init__(self):
                super().__init__()
                self.capabilities = Capabilities(fork=True)

        class TestPoor(EngineComplianceSuite):
            engine = Poor
            seconds = 0.1
        """,
    )
    assert found.keys() == {"PASSED"}
    for capability in ("serialise", "memory_limit", "deadline", "backtrace", "validation"):
        assert f"poor does not declare the capability '{capability}'" in said


FAULTS = """
from proxywasm_engine_wasmtime import WasmtimeEngine
from proxywasm_engine_wasmtime import instance, traps
from proxywasm_host.engine.protocol import Trap, TrapKind

def faulty(fault):
    class Faulty(WasmtimeEngine):
        def compile(self, bytecode):
            module = super().compile(bytecode)
            instantiate = module.instantiate
            module.instantiate = lambda functions, limits, bind=None: fault(instantiate, functions, limits, bind)
            return module
    return Faulty

def forgets_limits(instantiate, functions, limits, bind):
    return instantiate(functions, type(limits)(), bind)

def binds_late(instantiate, functions, limits, bind):
    made = instantiate(functions, limits)
    if bind is not None:
        bind(made)
    return made

kept = []
def keeps_all(instantiate, functions, limits, bind):
    made = instantiate(functions, limits, bind)
    kept.append((made, functions, bytearray(b"x" * 20000)))
    return made

def deaf(instantiate, functions, limits, bind):
    made = instantiate(functions, limits, bind)
    if made.memory is not None:
        made.memory = type("Deaf", (), {"view": made.memory.view, "refresh": lambda self: False})()
    return made

class Unstamped(WasmtimeEngine):
    def compile(self, bytecode):
        module = super().compile(bytecode)
        module._identity = b""
        return module

class TestLimits(EngineComplianceSuite):
    engine = faulty(forgets_limits)
    seconds = 0.1

class TestBind(EngineComplianceSuite):
    engine = faulty(binds_late)
    seconds = 0.1

class TestLeak(EngineComplianceSuite):
    engine = faulty(keeps_all)
    seconds = 0.1

class TestDeaf(EngineComplianceSuite):
    engine = faulty(deaf)
    seconds = 0.1

class TestUnstamped(EngineComplianceSuite):
    engine = Unstamped
    seconds = 0.1
"""


FOUND = {
    "TestLimits::test_growth_beyond_it_answers_minus_one",
    "TestLimits::test_a_module_that_begins_beyond_it_is_not_started",
    "TestBind::test_memory_and_functions_can_be_used_while_it_runs",
    "TestLeak::test_an_instance_that_is_dropped_is_collected",
    "TestLeak::test_memory_stays_flat_over_thousands_of_instances",
    "TestDeaf::test_growth_is_seen_after_a_refresh",
    "TestDeaf::test_growth_is_seen_in_the_middle_of_a_host_call",
    "TestUnstamped::test_what_another_version_serialised_is_refused",
    "TestUnstamped::test_there_and_back",
}


def test_it_finds_what_is_wrong(tmp_path):
    names = " or ".join(sorted(test.partition("::")[2] for test in FOUND))
    found, _ = outcomes(tmp_path, FAULTS, "-k", names)
    assert found["FAILED"] == FOUND


def test_names_of_tests_do_not_hide_each_other():
    parts = [vars(part) for part in EngineComplianceSuite.__mro__]
    names = [name for part in parts for name in part if name.startswith("test_")]
    assert len(names) == len(set(names)) > 70


def test_guests_are_what_their_texts_say():
    assert TABLE.read_text() == assembled()


def test_other_texts_are_not_known():
    with pytest.raises(LookupError, match="run tests/testing/assemble"):
        wasm("(module (func))")


def test_pytest_is_imported_with_the_suite_only():
    program = """
        import sys
        from proxywasm_host.testing import Guest
        assert not {"pytest", "_pytest"} & sys.modules.keys()
        from proxywasm_host.testing import EngineComplianceSuite
        assert "pytest" in sys.modules
        assert "wasmtime" not in sys.modules
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(program)], check=True)


def test_an_engine_that_lets_a_second_thread_wait_is_told(tmp_path):
    found, said = outcomes(
        tmp_path,
        """
        import threading
        from proxywasm_engine_wasmtime import WasmtimeEngine
        from proxywasm_host.testing.compliance import threads

        threads.PATIENCE = 0.2

        class Patient:
            def __init__(self, inner):
                self._inner, self._lock = inner, threading.RLock()

            def __getattr__(self, name):
                return getattr(self._inner, name)

        class Module(Patient):
            def instantiate(self, *args):
                return Instance(self._inner.instantiate(*args))

        class Instance(Patient):
            def function(self, name):
                call = self._inner.function(name)
                def patient(*args):
                    with self._lock:
                        return call(*args)
                return patient

            def close(self):
                with self._lock:
                    self._inner.close()

        class Engine(WasmtimeEngine):
            def compile(self, bytecode):
                return Module(super().compile(bytecode))

        class TestPatient(EngineComplianceSuite):
            engine = Engine
        """,
        "-k",
        "second_thread_is_refused_while_a_host or take_turns",
    )
    assert found == {
        "PASSED": {"TestPatient::test_threads_take_turns_in_one_instance"},
        "FAILED": {"TestPatient::test_a_second_thread_is_refused_while_a_host_function_runs"},
    }
    assert "TimeoutError" in said
