"""Which route to V8 is taken, and what is said of it."""

from __future__ import annotations

import re
import sys

import pytest

from proxywasm_engine_v8 import V8Engine, selfcheck, start
from proxywasm_engine_v8.in_thread.facts import KNOWN
from proxywasm_host import open_engine
from proxywasm_host.engine.protocol import HostFunction, Limits
from proxywasm_host.engine.smoke import smoke_test
from proxywasm_host.errors import EngineUnavailable
from proxywasm_host.extension import load
from proxywasm_host.testing.guest import type_of
from tests.support import wat

from .support import ROUTES, TEXT, function, run


def _lack(*_: object) -> None:
    raise AttributeError("undefined symbol: _ZN2v8")


class TestStart:
    @pytest.fixture(autouse=True)
    def _anew(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(start, "_started", {})

    def test_the_calling_thread_is_taken_where_it_is_safe(self) -> None:
        assert V8Engine().note.startswith("in the calling thread")
        assert V8Engine(route="in-thread").note.startswith("in the calling thread")

    def test_it_is_called_from_c_where_that_was_built(self, monkeypatch: pytest.MonkeyPatch) -> None:
        built, state = load("proxywasm_engine_v8._native")
        how = "from C" if built else f"through ctypes (the C extension is {state})"
        assert V8Engine().note.startswith(f"in the calling thread, {how}")
        note = "in the calling thread, through ctypes (the C extension is not requested)"
        assert V8Engine(native=False).note.startswith(note)
        monkeypatch.setitem(sys.modules, "proxywasm_engine_v8._native", None)
        monkeypatch.delenv("PROXYWASM_NATIVE", raising=False)
        monkeypatch.setattr(start, "_started", {})
        engine = V8Engine()
        smoke_test(engine)
        assert engine.note.startswith("in the calling thread, through ctypes (the C extension is off")

    def test_the_other_route_can_be_asked_for(self, monkeypatch: pytest.MonkeyPatch) -> None:
        assert V8Engine(route="mini-racer").note.startswith("on separate threads, which is slower")
        monkeypatch.setenv("PROXYWASM_V8_ROUTE", "mini-racer")
        assert open_engine("v8").note == V8Engine(route="mini-racer").note

    def test_there_are_two(self) -> None:
        with pytest.raises(ValueError, match="route 'fast' is neither 'in-thread' nor 'mini-racer'"):
            V8Engine(route="fast")

    def test_both_can_be_used_in_one_process(self) -> None:
        modules = [V8Engine(route=route).compile(wat(TEXT)) for route in ROUTES]
        ask = HostFunction("h", "f", type_of("i32 -> i32"), lambda a: a + 1)
        instances = [module.instantiate([ask], Limits()) for module in modules]
        assert [function(instance, "calls")(3) for instance in instances] == [2, 2]
        for instance in instances:
            instance.close()

    def test_an_unknown_v8_is_left_on_its_own_threads(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(start, "KNOWN", {"1.2.3.4": next(iter(KNOWN.values()))})
        engine = V8Engine()
        smoke_test(engine)
        assert re.match(
            r"on separate threads.* not one of the supported versions \(1\.2\.3\.4\): .*pip install .*mini-racer", engine.note
        )
        with pytest.raises(EngineUnavailable, match=r"not one of the supported versions \(1\.2\.3\.4\)") as caught:
            V8Engine(route="in-thread")
        assert "mini-racer" in caught.value.remedy

    def test_a_v8_that_lacks_functions_is_left_on_its_own_threads(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(start, "Library", _lack)
        engine = V8Engine()
        smoke_test(engine)
        assert re.match(r"on separate threads.* lacks a required function .*_ZN2v8", engine.note)
        with pytest.raises(EngineUnavailable, match=r"lacks a required function .*_ZN2v8"):
            V8Engine(route="in-thread")

    def test_a_mini_racer_that_lacks_functions_is_not_used(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(start, "Library", _lack)
        monkeypatch.setattr(start, "MiniRacer", _lack)
        for route in (None, "mini-racer"):
            with pytest.raises(EngineUnavailable, match="lacks a required function") as caught:
                V8Engine(route=route)
            assert "mini-racer" in caught.value.remedy

    def test_without_v8s_own_functions_a_loop_is_ended_all_the_same(self) -> None:
        done = run("""
            import ctypes
            from proxywasm_engine_v8 import backtrace
            backtrace._PROTOTYPES["trace"] = ("_ZN2v8NotThere", None, [])
            engine = V8Engine(self_check=False)
            print(engine.note)
            module = engine.compile(wat(TEXT))
            instance = module.instantiate([HostFunction("h", "f", type_of("i32 -> i32"), abs)], Limits(deadline=0.1))
            for _ in range(20):
                try:
                    function(instance, "spin")()
                except Trap as trap:
                    assert (trap.kind.name, trap.frames) == ("DEADLINE", ())
                print(function(instance, "one")())
        """)
        assert done.stderr == ""
        note, *ones = done.stdout.splitlines()
        assert "NotThere" in note
        assert ones == ["1"] * 20

    def test_without_the_wheel(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "py_mini_racer", None)
        with pytest.raises(EngineUnavailable, match="cannot be imported"):
            V8Engine()

    def test_a_failed_check_is_told_and_asked_again(self, monkeypatch: pytest.MonkeyPatch, tmp_path: object) -> None:
        monkeypatch.setenv("PROXYWASM_CACHE_DIR", str(tmp_path))
        monkeypatch.setattr(selfcheck, "_PROGRAM", "import os; os.kill(os.getpid(), 11)")
        for route in [*ROUTES, *ROUTES, None]:
            with pytest.raises(EngineUnavailable, match="exit code -11") as caught:
                V8Engine(route=route)
            assert "PROXYWASM_V8_SELF_CHECK" in caught.value.remedy

    def test_one_that_fails_in_the_calling_thread_leaves_the_other(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: object
    ) -> None:
        monkeypatch.setenv("PROXYWASM_CACHE_DIR", str(tmp_path))
        monkeypatch.setattr(
            selfcheck, "_PROGRAM", f"import os; {{route!r}} == 'mini-racer' or os.abort(); {selfcheck._PROGRAM}"
        )
        engine = V8Engine()
        smoke_test(engine)
        assert re.match(
            r"on separate threads.* not safe to use in the calling thread, .* exit code -6.*SELF_CHECK", engine.note
        )

    def test_a_check_that_went_well_is_remembered(self, monkeypatch: pytest.MonkeyPatch, tmp_path: object) -> None:
        monkeypatch.setenv("PROXYWASM_CACHE_DIR", f"{tmp_path}/new")
        program = selfcheck._PROGRAM
        V8Engine()
        monkeypatch.setattr(start, "_started", {})
        monkeypatch.setattr(selfcheck, "_PROGRAM", "raise SystemExit(1)")
        V8Engine()
        monkeypatch.setattr(start, "_started", {})
        with monkeypatch.context() as other_sources, pytest.raises(EngineUnavailable):
            other_sources.setattr(selfcheck, "checksum", lambda _: 1)
            V8Engine()
        monkeypatch.setattr(start, "_started", {})
        monkeypatch.setenv("PROXYWASM_CACHE_DIR", "")
        with pytest.raises(EngineUnavailable):
            V8Engine()
        monkeypatch.setattr(selfcheck, "_PROGRAM", program)
        V8Engine()

    def test_the_check_sees_wrong_facts(self, monkeypatch: pytest.MonkeyPatch) -> None:
        done = run("""
            from dataclasses import replace
            from proxywasm_engine_v8 import selfcheck
            from proxywasm_engine_v8.in_thread import facts
            for version, known in facts.KNOWN.items():
                facts.KNOWN[version] = replace(known, scope_in_isolate=known.scope_in_isolate + 8)
            selfcheck.main("in-thread", native=False)
        """)
        assert done.returncode != 0
        assert "all is well" not in done.stdout
