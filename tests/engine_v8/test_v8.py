"""What is particular to V8: isolates, handles, signals, its heap, its flags, the ends of processes."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
import weakref
from collections.abc import Callable, Iterator

import pytest

from proxywasm_engine_v8 import V8Engine, reservation, selfcheck, start
from proxywasm_engine_v8.binary import Binary, Malformed
from proxywasm_engine_v8.deadline import TICK
from proxywasm_engine_v8.facts import KNOWN
from proxywasm_host.engine.protocol import (
    HostFunction,
    Instance,
    InvalidModule,
    Limits,
    Trap,
    TrapKind,
)
from proxywasm_host.errors import EngineUnavailable
from tests.engine.conftest import type_of, wasm

TEXT = """(module (import "h" "f" (func $f (param i32) (result i32))) (memory (export "memory") 1)
  (func (export "calls") (param i32) (result i32) (local i32)
    (loop $l (local.set 1 (call $f (local.get 0)))
      (br_if $l (local.tee 0 (i32.sub (local.get 0) (i32.const 1))))) (local.get 1))
  (func $spin (export "spin") (loop $l (br $l)))
  (func $recurse (export "recurse") (param i32)
    (call $recurse (i32.add (local.get 0) (i32.const 1))) (i32.store (i32.const 0) (local.get 0)))
  (func (export "one") (result i32) (i32.const 1))
  (func (export "grow") (result i32) (memory.grow (i32.const 1))))"""

TRAPS = """(module (memory (export "memory") 1) (func (export "unreachable") unreachable)
  (func (export "load") (drop (i32.load (i32.const 65533))))
  (func (export "divide") (param i32) (drop (i32.div_s (i32.const 1) (local.get 0))))
  (func $recurse (export "recurse") (param i32)
    (call $recurse (i32.add (local.get 0) (i32.const 1))) (i32.store (i32.const 0) (local.get 0))))"""


def instantiate(handler: Callable[[int], object] = lambda a: a, limits: Limits = Limits()) -> Instance:  # noqa: B008
    module = V8Engine().compile(wasm(TEXT))
    return module.instantiate([HostFunction("h", "f", type_of("i32 -> i32"), handler)], limits)


def function(instance: Instance, name: str) -> Callable[..., object]:
    found = instance.function(name)
    assert found is not None
    return found


def run(program: str) -> subprocess.CompletedProcess[str]:
    """Run a program in a process of its own, with ``instantiate`` and ``function`` at hand."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    head = "from tests.engine_v8.test_v8 import *\n"
    return subprocess.run(
        [
            sys.executable,
            "-X",
            "faulthandler",
            "-W",
            "ignore::DeprecationWarning",
            "-c",
            head + textwrap.dedent(program),
        ],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
    )


def in_background(call: Callable[..., object], *arguments: object) -> None:
    """Have `call` under way on a thread that the process does not wait for."""
    threading.Thread(target=call, args=arguments, daemon=True).start()
    time.sleep(0.1)


class TestHandles:
    def test_none_are_left_by_calls(self) -> None:
        def nested(rest: int) -> int:
            one()
            return rest

        instance = instantiate(nested)
        one, calls = function(instance, "one"), function(instance, "calls")
        calls(20_000)
        for _ in range(20_000):
            one()
        isolate = instance._isolate  # type: ignore[attr-defined]
        with isolate.entered():
            assert isolate.library.handles(isolate.pointer) == 0
        instance.close()

    def test_none_are_left_by_a_host_function_that_calls_much(self) -> None:
        seen = []

        def nested(rest: int) -> int:
            isolate = instance._isolate  # type: ignore[attr-defined]
            before = isolate.library.handles(isolate.pointer)
            for _ in range(5000):
                one()
            seen.append(isolate.library.handles(isolate.pointer) - before)
            return rest

        instance = instantiate(nested)
        one = function(instance, "one")
        function(instance, "calls")(1)
        assert seen == [0]
        instance.close()


class TestThreads:
    def test_an_instance_moves_between_threads(self) -> None:
        instance = instantiate()
        calls = function(instance, "calls")
        results: list[object] = []
        for _ in range(50):
            thread = threading.Thread(target=lambda: results.append(calls(3)))
            thread.start()
            thread.join()
            results.append(calls(2))
        assert results == [1] * 100
        instance.close()

    @pytest.mark.parametrize("size", [256, 512, 1024])
    def test_small_stacks_overflow_as_a_trap(self, size: int) -> None:
        instance = instantiate()
        kinds = []

        def work() -> None:
            try:
                function(instance, "recurse")(0)
            except Trap as trap:
                kinds.append(trap.kind)

        before = threading.stack_size(size << 10)
        try:
            thread = threading.Thread(target=work)
            thread.start()
        finally:
            threading.stack_size(before)
        thread.join()
        assert kinds == [TrapKind.STACK_OVERFLOW]
        instance.close()

    def test_guests_within_guests_on_other_threads(self) -> None:
        def outer(_: int) -> int:
            results: list[object] = []
            thread = threading.Thread(target=lambda: results.append(function(third, "calls")(1)))
            thread.start()
            thread.join()
            (result,) = results
            assert isinstance(result, int)
            inner = function(second, "calls")(1)
            assert isinstance(inner, int)
            return inner + result

        first, second, third = instantiate(outer), instantiate(lambda a: a + 1), instantiate(lambda a: a + 5)
        assert [function(first, "calls")(2) for _ in range(20)] == [8] * 20
        for instance in (first, second, third):
            instance.close()


class TestSignals:
    class Rang(Exception):
        pass

    @pytest.fixture(autouse=True)
    def _alarm(self) -> Iterator[None]:
        self.armed = True

        def handler(*_: object) -> None:
            if self.armed:
                raise self.Rang

        before = signal.signal(signal.SIGALRM, handler)
        yield
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)

    def test_an_endless_loop_with_a_deadline_is_left(self) -> None:
        instance = instantiate(limits=Limits(deadline=10))
        signal.setitimer(signal.ITIMER_REAL, 0.05)
        began = time.monotonic()
        with pytest.raises(self.Rang):
            function(instance, "spin")()
        assert time.monotonic() - began < 5
        assert function(instance, "one")() == 1
        instance.close()

    @pytest.mark.parametrize("name", ["one", "calls"])
    def test_one_at_any_moment_leaves_nothing_locked(self, name: str) -> None:
        instance = instantiate()
        call = function(instance, name)
        arguments = (1 << 30,) if name == "calls" else ()
        for microseconds in range(20, 420):
            self.armed = True
            try:
                signal.setitimer(signal.ITIMER_REAL, microseconds * 1e-6)
                while True:
                    call(*arguments)
            except self.Rang:
                self.armed = False
        isolate = instance._isolate  # type: ignore[attr-defined]
        assert not isolate.library.locked(isolate.pointer)
        assert not isolate.library.isolate_is_used(isolate.pointer)
        assert function(instance, "one")() == 1
        instance.close()

    @pytest.mark.parametrize("order", ["wv", "vw", "fwv", "fvw", "wvf", "vwf", "wfv"])
    def test_wasmtime_and_faulthandler_in_the_same_process(self, order: str) -> None:
        done = run(f"""
            import faulthandler
            from proxywasm_engine_wasmtime import WasmtimeEngine
            faulthandler.disable()
            engines = []
            for letter in {order!r}:
                if letter == "f":
                    faulthandler.enable()
                else:
                    engines.append((WasmtimeEngine if letter == "w" else V8Engine)())
            instances = [engine.compile(wasm(TRAPS)).instantiate([], Limits()) for engine in engines]
            for _ in range(2):
                for instance in instances:
                    for name, arguments in ("unreachable", ()), ("load", ()), ("divide", (0,)), ("recurse", (0,)):
                        try:
                            function(instance, name)(*arguments)
                        except Trap as trap:
                            print(trap.kind.name)
        """)
        kinds = ["UNREACHABLE", "OUT_OF_BOUNDS", "DIVIDE_BY_ZERO", "STACK_OVERFLOW"]
        assert (done.stdout.split(), done.stderr, done.returncode) == (kinds * 4, "", 0)

    def test_v8_installs_no_handlers(self) -> None:
        done = run("""
            import ctypes
            libc = ctypes.CDLL(None)
            def handlers():
                actions = []
                for number in (4, 7, 8, 11):
                    action = (ctypes.c_void_p * 32)()
                    libc.sigaction(number, None, action)
                    actions.append(action[0])
                return actions
            before = handlers()
            instance = V8Engine().compile(wasm(TRAPS)).instantiate([], Limits())
            try:
                function(instance, "load")()
            except Trap:
                print(handlers() == before)
        """)
        assert (done.stdout, done.stderr) == ("True\n", "")


class TestLimits:
    def test_a_table_that_grows_for_ever_ends_at_a_bound(self) -> None:
        text = """(module (table $t 1 funcref) (func (export "grow") (param i32) (result i32)
          (table.grow $t (ref.null func) (local.get 0))))"""
        grow = function(V8Engine().compile(wasm(text)).instantiate([], Limits()), "grow")
        answers = [grow(100_000) for _ in range(20)]
        assert answers[-1] == 0xFFFFFFFF
        assert answers[0] == 1

    @pytest.mark.parametrize(
        ("text", "what"),
        [("(type (array i64))", "garbage"), ("(type (struct))", "garbage"), ("(table 1 funcref)" * 17, "17|16 tables")],
    )
    def test_what_could_fill_v8s_heap_is_refused(self, text: str, what: str) -> None:
        with pytest.raises(InvalidModule, match=what):
            V8Engine().compile(wasm(f"(module {text})"))

    def test_without_room_to_reserve_memory_may_move(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(reservation, "_SHARE", 0)
        instance = instantiate()
        memory = instance.memory
        assert memory is not None
        memory.view[3] = 7
        assert function(instance, "grow")() == 1
        assert len(memory.view) == 2 * 65536
        assert not memory.refresh()
        assert memory.view[3] == 7
        instance.close()
        assert len(memory.view) == 0
        assert not memory.refresh()

    def test_what_is_reserved_is_given_back(self) -> None:
        before = reservation._reserved
        instance = instantiate()
        assert reservation._reserved == before + (4 << 30)
        instance.close()
        del instance
        assert reservation._reserved == before


class TestDeadline:
    def threads(self) -> list[threading.Thread]:
        return [thread for thread in threading.enumerate() if "deadlines" in thread.name]

    def test_the_thread_runs_only_while_there_is_something_to_watch(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("proxywasm_engine_v8.deadline._QUIET_TICKS", 3)
        while self.threads():
            time.sleep(TICK)
        instance = instantiate(limits=Limits(deadline=1))
        for _ in range(2):
            assert function(instance, "one")() == 1
            assert len(self.threads()) == 1
            while self.threads():
                time.sleep(TICK)
        instance.close()

    def test_one_that_is_caught_strikes_again(self) -> None:
        def handler(rest: int) -> int:
            with pytest.raises(Trap) as caught:
                spin()
            kinds.append(caught.value.kind)
            return rest

        kinds: list[TrapKind] = []
        instance = instantiate(handler, Limits(deadline=0.05))
        spin = function(instance, "spin")
        with pytest.raises(Trap) as caught:
            function(instance, "calls")(1 << 30)
        assert caught.value.kind is TrapKind.DEADLINE
        assert set(kinds) == {TrapKind.DEADLINE}
        assert function(instance, "one")() == 1
        instance.close()


class TestStart:
    @pytest.fixture(autouse=True)
    def _anew(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(start, "_started", None)

    def test_another_v8_is_not_used(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(start, "KNOWN", {"1.2.3.4": next(iter(KNOWN.values()))})
        with pytest.raises(EngineUnavailable, match=r"none of those known here \(1\.2\.3\.4\)") as caught:
            V8Engine()
        assert "mini-racer" in caught.value.remedy

    def test_missing_functions_are_told(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def lack(_: object) -> None:
            raise AttributeError("undefined symbol: _ZN2v8")

        monkeypatch.setattr(start, "Library", lack)
        with pytest.raises(EngineUnavailable, match=r"lacks what is called .*_ZN2v8"):
            V8Engine()

    def test_without_the_wheel(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "py_mini_racer", None)
        with pytest.raises(EngineUnavailable, match="cannot be imported"):
            V8Engine()

    def test_a_failed_check_is_told_and_asked_again(self, monkeypatch: pytest.MonkeyPatch, tmp_path: object) -> None:
        monkeypatch.setenv("PROXYWASM_CACHE_DIR", str(tmp_path))
        monkeypatch.setattr(selfcheck, "_PROGRAM", "import os; os.kill(os.getpid(), 11)")
        for _ in range(2):
            with pytest.raises(EngineUnavailable, match="exit code -11") as caught:
                V8Engine()
        assert "PROXYWASM_V8_SELF_CHECK" in caught.value.remedy

    def test_a_check_that_went_well_is_remembered(self, monkeypatch: pytest.MonkeyPatch, tmp_path: object) -> None:
        monkeypatch.setenv("PROXYWASM_CACHE_DIR", f"{tmp_path}/new")
        program = selfcheck._PROGRAM
        V8Engine()
        monkeypatch.setattr(start, "_started", None)
        monkeypatch.setattr(selfcheck, "_PROGRAM", "raise SystemExit(1)")
        V8Engine()
        monkeypatch.setattr(start, "_started", None)
        monkeypatch.setenv("PROXYWASM_CACHE_DIR", "")
        with pytest.raises(EngineUnavailable):
            V8Engine()
        monkeypatch.setattr(selfcheck, "_PROGRAM", program)
        V8Engine()

    def test_the_check_sees_wrong_facts(self, monkeypatch: pytest.MonkeyPatch) -> None:
        done = run("""
            from dataclasses import replace
            from proxywasm_engine_v8 import facts, selfcheck
            for version, known in facts.KNOWN.items():
                facts.KNOWN[version] = replace(known, scope_in_isolate=known.scope_in_isolate + 8)
            selfcheck.main()
        """)
        assert done.returncode != 0
        assert "all is well" not in done.stdout


class TestDropping:
    def test_an_instance_makes_no_cycle(self) -> None:
        instance = instantiate(limits=Limits(deadline=1))
        function(instance, "calls")(3)
        reference = weakref.ref(instance._isolate)  # type: ignore[attr-defined]
        gc.disable()
        try:
            del instance
            assert reference() is None
        finally:
            gc.enable()


class TestBinary:
    def test_positions_are_those_of_the_module_as_it_came(self) -> None:
        text = """(module (import "h" "f" (func $f)) (memory (export "memory") 1) (start $go)
          (func $go) (func $other (export "other") unreachable))"""
        instance = (
            V8Engine().compile(wasm(text)).instantiate([HostFunction("h", "f", type_of(""), lambda: None)], Limits())
        )
        with pytest.raises(Trap) as caught:
            function(instance, "other")()
        (frame,) = caught.value.frames
        assert frame.function == "other"
        assert wasm(text)[frame.offset or 0] == 0
        instance.close()

    def test_the_start_function_is_not_to_be_seen(self) -> None:
        module = V8Engine().compile(wasm('(module (func $go) (start $go) (func (export "start 0")))'))
        assert [export.name for export in module.exports] == ["start 0"]
        instance = module.instantiate([], Limits())
        assert instance.function("start 0") is not None
        assert instance.function("start 1") is None
        instance.close()

    def test_several_memories(self) -> None:
        text = """(module (memory 1) (memory (export "memory") 2) (memory 3)
          (func (export "grow") (param i32) (result i32) (memory.grow 1 (local.get 0))))"""
        instance = V8Engine().compile(wasm(text)).instantiate([], Limits(memory=3 * 65536))
        assert instance.memory is not None
        assert len(instance.memory.view) == 2 * 65536
        assert [function(instance, "grow")(count) for count in (2, 1)] == [0xFFFFFFFF, 2]
        instance.close()

    @pytest.mark.parametrize(
        "bytecode", [b"\0asm\1\0\0\0\5", b"\0asm\1\0\0\0\7\4\1\1a\0\0", b"\0asm\1\0\0\0\1\2\1\x30"]
    )
    def test_nonsense(self, bytecode: bytes) -> None:
        with pytest.raises(Malformed):
            Binary(bytecode)
        with pytest.raises(InvalidModule):
            V8Engine().compile(bytecode)

    def test_names_that_are_torn_are_left_out(self) -> None:
        torn = wasm('(module (func $fall (export "f") unreachable))').replace(b"\x04fall", b"\x7ffall")
        instance = V8Engine().compile(torn).instantiate([], Limits())
        with pytest.raises(Trap) as caught:
            function(instance, "f")()
        assert [frame.function for frame in caught.value.frames] == ["<wasm function 0>"]


class TestEnds:
    """However a process ends, it ends in silence."""

    @pytest.mark.parametrize(
        ("program", "code"),
        [
            ("keep = [instantiate() for _ in range(3)]; keep.append(keep)", 0),
            ("in_background(function(instantiate(), 'spin'))", 0),
            ("spin = function(instantiate(limits=Limits(deadline=9)), 'spin'); in_background(spin)", 0),
            ("calls = function(instantiate(lambda _: time.sleep(9)), 'calls'); in_background(calls, 1)", 0),
            ("function(instantiate(lambda _: sys.exit(3)), 'calls')(1)", 3),
            ("function(instantiate(lambda _: os._exit(4)), 'calls')(1)", 4),
            ("import atexit; guest = instantiate(); atexit.register(guest.close)", 0),
            ("import atexit; one = function(instantiate(), 'one'); atexit.register(lambda: one())", 0),
        ],
    )
    def test_of_a_process(self, program: str, code: int) -> None:
        done = run(program)
        assert (done.stdout, done.stderr, done.returncode) == ("", "", code)

    @pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
    def test_a_child_process_goes_on(self) -> None:
        done = run("""
            guest = instantiate(limits=Limits(deadline=0.1))
            function(guest, "one")()
            child = os.fork()
            if not child:
                signal.alarm(20)
                assert function(guest, "one")() == 1
                try:
                    function(guest, "spin")()
                except Trap as trap:
                    assert trap.kind is TrapKind.DEADLINE
                function(instantiate(), "calls")(10)
                V8Engine().compile(wasm("(module)")).instantiate([], Limits()).close()
                os._exit(0)
            print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), function(guest, "one")())
        """)
        assert (done.stdout, done.stderr, done.returncode) == ("0 1\n", "", 0)

    def test_together_with_mini_racer_itself(self) -> None:
        done = run("""
            from py_mini_racer import MiniRacer
            guest = instantiate()
            racer = MiniRacer()
            print(racer.eval("6 * 7"), function(guest, "calls")(3))
            del racer
            print(function(guest, "one")())
        """)
        assert (done.stdout, done.stderr, done.returncode) == ("42 1\n1\n", "", 0)

    def test_after_mini_racer_itself(self) -> None:
        done = run("""
            from py_mini_racer import MiniRacer
            racer = MiniRacer()
            print(racer.eval("6 * 7"), function(instantiate(), "calls")(3))
            print(V8Engine().note)
            del racer  # some Pythons wait for it at their end
        """)
        assert (done.stdout, done.returncode) == (
            "42 1\nin the calling thread, with the flags that mini-racer was started with\n",
            0,
        )
