"""What is Wasmtime's alone: its two routes, its self-check, signals, forks."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
import warnings
from pathlib import Path

import pytest

from proxywasm_engine_wasmtime import WasmtimeEngine
from proxywasm_engine_wasmtime import engine as engine_module
from proxywasm_engine_wasmtime.capi import CApi
from proxywasm_engine_wasmtime.deadline import TICK
from proxywasm_host.engine.exception_table import extend_try
from proxywasm_host.engine.protocol import HostFunction, Limits, Trap, TrapKind
from proxywasm_host.errors import EngineUnavailable
from proxywasm_host.testing.guest import type_of
from tests.support import wat

from .routes import NATIVE, NOTE, ROUTES, needs_native

SPIN = '(module (func (export "spin") (loop $l (br $l))) (func (export "one") (result i32) (i32.const 1)))'
TRAPS = """(module (memory 1)
  (func (export "unreachable") unreachable) (func (export "load") (drop (i32.load (i32.const 65533)))))"""
CALLS = """(module (import "h" "f" (func $f (param i32) (result i32)))
  (func (export "calls") (param i32)
    (loop $l (drop (call $f (i32.const 1))) (br_if $l (local.tee 0 (i32.sub (local.get 0) (i32.const 1))))))
  (func (export "late") (param i32)
    (loop $l (br_if $l (local.tee 0 (i32.sub (local.get 0) (i32.const 1))))) (drop (call $f (i32.const 1)))))"""


def run(program: str) -> subprocess.CompletedProcess[str]:
    """Run `program` in a process of its own."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    command = [sys.executable, "-c", textwrap.dedent(program)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)


class TestRoutes:
    def test_the_fastest_one_is_taken(self) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            note = WasmtimeEngine().note
        assert note == ("C API from C" if NATIVE else f"C API through ctypes (the C extension is {NOTE})")

    @pytest.mark.parametrize(("route", "note"), [("native", "C API from C"), ("ctypes", "C API through ctypes")])
    def test_the_fast_ones_can_be_asked_for(self, route: str, note: str) -> None:
        if route in ROUTES:
            assert WasmtimeEngine(route=route).note == note  # type: ignore[arg-type]
        else:
            with pytest.raises(EngineUnavailable, match="the C extension of the engine is off"):
                WasmtimeEngine(route=route)  # type: ignore[arg-type]

    def test_where_nothing_was_built_ctypes_does_it(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(engine_module, "load", lambda *_: (None, "off: it was not built"))
        assert WasmtimeEngine().note == "C API through ctypes (the C extension is off: it was not built)"
        with pytest.raises(EngineUnavailable, match="it was not built"):
            WasmtimeEngine(route="native")

    def test_the_other_one_can_be_asked_for(self) -> None:
        assert "as requested" in WasmtimeEngine(route="objects").note

    def test_a_missing_symbol_is_told_and_the_other_route_is_taken(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def no_api() -> CApi:
            raise AttributeError("undefined symbol: wasmtime_func_call_unchecked")

        monkeypatch.setattr(engine_module, "CApi", no_api)
        with pytest.warns(RuntimeWarning, match="many times slower.*undefined symbol"):
            engine = WasmtimeEngine()
        assert "undefined symbol" in engine.note
        instance = engine.compile(wat(SPIN)).instantiate([], Limits())
        one = instance.function("one")
        assert one is not None
        assert one() == 1
        with pytest.raises(EngineUnavailable, match="undefined symbol"):
            WasmtimeEngine(route="ctypes")

    def test_a_difference_is_told_and_the_other_route_is_taken(self, monkeypatch: pytest.MonkeyPatch) -> None:
        answers = iter([[1], [2]] * len(ROUTES))
        monkeypatch.setattr(engine_module, "transcript", lambda *_: next(answers))
        with pytest.warns(RuntimeWarning, match=r"got \[2\], not \[1\]"):
            assert WasmtimeEngine()._api is None

    def test_the_check_is_quick(self) -> None:
        WasmtimeEngine()
        times = []
        for _ in range(5):
            began = time.process_time()
            WasmtimeEngine(parallel_compilation=False)
            times.append(time.process_time() - began)
        assert min(times) < 0.05


class TestOptions:
    @pytest.mark.parametrize("options", [{"route": "fast"}, {"optimise": "size"}])
    def test_wrong_values_are_refused(self, options: dict[str, str]) -> None:
        with pytest.raises(ValueError, match="neither"):
            WasmtimeEngine(**options)  # type: ignore[arg-type]

    def test_the_fingerprint_depends_on_what_changes_code(self) -> None:
        prints = {
            WasmtimeEngine(route="objects").fingerprint,
            WasmtimeEngine(route="objects", optimise="none").fingerprint,
            WasmtimeEngine(route="objects", deadline=False).fingerprint,
        }
        assert len(prints) == 3
        assert WasmtimeEngine().fingerprint in prints

    def test_code_that_is_not_optimised_runs(self) -> None:
        engine = WasmtimeEngine(optimise="none")
        one = engine.compile(wat(SPIN)).instantiate([], Limits()).function("one")
        assert one is not None
        assert one() == 1

    @pytest.mark.parametrize("route", ROUTES)
    def test_without_deadlines(self, route: str) -> None:
        engine = WasmtimeEngine(route=route, deadline=False)  # type: ignore[arg-type]
        assert not engine.capabilities.deadline
        module = engine.compile(wat(SPIN))
        one = module.instantiate([], Limits()).function("one")
        assert one is not None
        assert one() == 1
        with pytest.raises(ValueError, match="deadline=False"):
            module.instantiate([], Limits(deadline=1))


class TestSignals:
    """A signal that arrives while the guest runs is handled where Python code begins again: nothing may get lost."""

    @pytest.fixture(autouse=True)
    def _alarm(self):  # type: ignore[no-untyped-def]
        class Rang(BaseException):
            pass

        def ring(*_: object) -> None:
            raise Rang

        self.Rang = Rang
        before = signal.signal(signal.SIGALRM, ring)
        yield
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)

    def unraisable(self, monkeypatch: pytest.MonkeyPatch) -> list[object]:
        lost: list[object] = []
        monkeypatch.setattr(sys, "unraisablehook", lost.append)
        return lost

    @pytest.mark.parametrize("route", ROUTES[:-1])
    @pytest.mark.parametrize(("name", "rounds"), [("late", 1 << 28), ("calls", 1 << 30)])
    def test_in_a_guest_that_calls_the_host(
        self, monkeypatch: pytest.MonkeyPatch, name: str, rounds: int, route: str
    ) -> None:
        lost = self.unraisable(monkeypatch)
        module = WasmtimeEngine(route=route).compile(wat(CALLS))
        instance = module.instantiate([HostFunction("h", "f", type_of("i32 -> i32"), lambda a: a)], Limits())
        call = instance.function(name)
        assert call is not None
        for delay in (0.01, 0.02):
            signal.setitimer(signal.ITIMER_REAL, delay)
            with pytest.raises(self.Rang):
                call(rounds)
        call(1)
        assert lost == []

    @pytest.mark.parametrize("route", ROUTES[:-1])
    def test_in_an_endless_loop_with_a_deadline(self, monkeypatch: pytest.MonkeyPatch, route: str) -> None:
        lost = self.unraisable(monkeypatch)
        instance = WasmtimeEngine(route=route).compile(wat(SPIN)).instantiate([], Limits(deadline=5))
        spin, one = instance.function("spin"), instance.function("one")
        assert spin is not None
        assert one is not None
        began = time.monotonic()
        signal.setitimer(signal.ITIMER_REAL, 0.02)
        with pytest.raises(self.Rang):
            spin()
        assert time.monotonic() - began < 1
        assert one() == 1
        assert lost == []

    @needs_native
    def test_in_an_endless_loop_without_one(self) -> None:
        spin = WasmtimeEngine(route="native").compile(wat(SPIN)).instantiate([], Limits()).function("spin")
        assert spin is not None
        for _ in range(2):
            signal.setitimer(signal.ITIMER_REAL, 0.02)
            with pytest.raises(self.Rang):
                spin()

    def test_handlers_that_are_installed_later_do_not_stand_in_the_way(self) -> None:
        done = run(f"""
            import faulthandler
            from proxywasm_engine_wasmtime import WasmtimeEngine
            from proxywasm_host.engine.protocol import Limits, Trap
            module = WasmtimeEngine().compile({wat(TRAPS)!r})
            faulthandler.enable()
            instance = module.instantiate([], Limits())
            for name in ("unreachable", "load"):
                try:
                    instance.function(name)()
                except Trap as trap:
                    print(trap.kind.name)
        """)
        assert (done.stdout.split(), done.returncode) == (["UNREACHABLE", "OUT_OF_BOUNDS"], 0)

    def test_code_without_a_try_stays_as_it_is(self) -> None:
        code = (lambda: 1).__code__
        assert extend_try(code) is code


class TestTicker:
    def threads(self) -> list[str]:
        return [thread.name for thread in threading.enumerate() if "epoch" in thread.name]

    def test_it_runs_only_while_there_is_something_to_watch(self, monkeypatch: pytest.MonkeyPatch) -> None:
        while self.threads():
            time.sleep(TICK)
        monkeypatch.setattr("proxywasm_engine_wasmtime.deadline._QUIET_TICKS", 3)
        module = WasmtimeEngine(route="ctypes").compile(wat(SPIN))
        free = module.instantiate([], Limits()).function("one")
        watched = module.instantiate([], Limits(deadline=1)).function("one")
        assert free is not None
        assert watched is not None
        for _ in range(2):
            watched()
            assert len(self.threads()) == 1
            while self.threads():
                time.sleep(TICK)
        free()
        assert self.threads() == []


@needs_native
class TestNativeThreads:
    """A guest that runs for long lets other threads run, whether its code looks at the epoch or not."""

    @pytest.mark.parametrize("deadline", [True, False])
    def test_other_threads_have_their_turn(self, deadline: bool) -> None:
        engine = WasmtimeEngine(route="native", deadline=deadline)
        instance = engine.compile(wat(CALLS)).instantiate(
            [HostFunction("h", "f", type_of("i32 -> i32"), lambda a: a)], Limits()
        )
        late = instance.function("late")
        assert late is not None
        thread = threading.Thread(target=late, args=(1 << 29,))
        thread.start()
        turns = 0
        while thread.is_alive():
            turns += 1
            time.sleep(0)
        assert turns > 100

    def test_the_epoch_moves_only_while_guests_are_called(self) -> None:
        engine = WasmtimeEngine(route="native")
        assert engine._api is not None
        ticker = engine._api.native_ticker
        one = engine.compile(wat(SPIN)).instantiate([], Limits()).function("one")
        assert one is not None
        for _ in range(2):
            one()
            assert ticker.running
            until = time.monotonic() + 20
            while ticker.running and time.monotonic() < until:
                time.sleep(0.05)
            assert not ticker.running

    def test_an_engine_that_goes_takes_its_thread_along(self) -> None:
        def threads() -> set[str]:
            return {path.name for path in Path("/proc/self/task").iterdir()}

        before = threads()
        engine = WasmtimeEngine(route="native", parallel_compilation=False)
        one = engine.compile(wat(SPIN)).instantiate([], Limits()).function("one")
        assert one is not None
        one()
        started = threads() - before
        assert started
        del engine, one
        gc.collect()
        until = time.monotonic() + 20  # a thread that was joined stands there for a moment yet
        while started & threads() and time.monotonic() < until:
            time.sleep(0.01)
        assert not started & threads()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
@pytest.mark.parametrize("route", ROUTES)
def test_a_child_process_compiles_calls_and_keeps_deadlines(route: str) -> None:
    engine = WasmtimeEngine(route=route)  # type: ignore[arg-type]
    many = wat("(module " + "(func (drop (i32.const 1)))" * 200 + ")")
    engine.compile(many)
    spin = engine.compile(wat(SPIN)).instantiate([], Limits(deadline=0.05)).function("spin")
    assert spin is not None
    with pytest.raises(Trap):
        spin()
    child = os.fork()
    if not child:
        signal.alarm(20)
        try:
            engine.compile(many).instantiate([], Limits())
            spin()
        except Trap as trap:
            os._exit(0 if trap.kind is TrapKind.DEADLINE else 2)
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


@pytest.mark.parametrize("route", ROUTES)
def test_a_process_that_keeps_all_until_its_end_ends_in_silence(route: str) -> None:
    done = run(f"""
        import atexit
        import gc
        import sys

        @atexit.register  # first, so it runs last: what an ending interpreter does to modules, in an order of its own
        def take_apart():
            gc.collect()
            for name, module in sys.modules.items():
                if name.startswith("wasmtime."):
                    module.ffi = None

        from proxywasm_engine_wasmtime import WasmtimeEngine
        from proxywasm_host.engine.protocol import HostFunction, Limits
        engine = WasmtimeEngine(route={route!r})
        module = engine.compile({wat(CALLS)!r})
        function = HostFunction("h", "f", module.imports[0].type, lambda a: a)
        instances = [module.instantiate([function], Limits(deadline=1)) for _ in range(3)]
        calls = [instance.function("calls") for instance in instances]
        calls[0](10)
        print("done")
    """)
    assert (done.stdout, done.stderr, done.returncode) == ("done\n", "", 0)
