"""What is particular to V8 on each way into it: threads, signals, limits, the binary format, the ends of processes."""

from __future__ import annotations

import gc
import re
import signal
import threading
import time
import weakref
from collections.abc import Iterator

import pytest

from proxywasm_engine_v8 import reservation
from proxywasm_engine_v8.binary import Binary, Malformed
from proxywasm_host.engine.protocol import HostFunction, InvalidModule, Limits, Trap, TrapKind
from proxywasm_host.testing.guest import type_of
from tests.support import wat

from .support import WAYS, function, instantiate, run, take_way, v8


@pytest.fixture(autouse=True, params=WAYS)
def _way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    take_way(request.param, monkeypatch)


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
        # The first comes when every line has run: coverage has a lock of its own, which it takes at lines that are new.
        for microseconds in (20_000, *range(20, 420)):
            self.armed = True
            try:
                signal.setitimer(signal.ITIMER_REAL, microseconds * 1e-6)
                while True:
                    call(*arguments)
            except self.Rang:
                self.armed = False
        results: list[object] = []
        thread = threading.Thread(target=lambda: results.append(function(instance, "one")()), daemon=True)
        thread.start()
        thread.join(10)
        assert results == [1]
        assert function(instance, "one")() == 1
        instance.close()


class TestLimits:
    def test_a_table_that_grows_for_ever_ends_at_a_bound(self) -> None:
        text = """(module (table $t 1 funcref) (func (export "grow") (param i32) (result i32)
          (table.grow $t (ref.null func) (local.get 0))))"""
        grow = function(v8().compile(wat(text)).instantiate([], Limits()), "grow")
        answers = [grow(100_000) for _ in range(20)]
        assert answers[-1] == 0xFFFFFFFF
        assert answers[0] == 1

    @pytest.mark.parametrize(
        ("text", "what"),
        [("(type (array i64))", "garbage"), ("(type (struct))", "garbage"), ("(table 1 funcref)" * 17, "17|16 tables")],
    )
    def test_what_could_fill_v8s_heap_is_refused(self, text: str, what: str) -> None:
        with pytest.raises(InvalidModule, match=what):
            v8().compile(wat(f"(module {text})"))

    def test_what_is_reserved_is_given_back(self) -> None:
        before = reservation._reserved
        instance = instantiate()
        assert reservation._reserved == before + (4 << 30)
        instance.close()
        del instance
        assert reservation._reserved == before


class TestDropping:
    def test_a_call_with_arguments_is_refused_after_close(self) -> None:
        instance = instantiate()
        calls = function(instance, "calls")
        for _ in range(2):
            instance.close()
            with pytest.raises(RuntimeError, match="closed"):
                calls(1)

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
        instance = v8().compile(wat(text)).instantiate([HostFunction("h", "f", type_of(""), lambda: None)], Limits())
        with pytest.raises(Trap) as caught:
            function(instance, "other")()
        (frame,) = caught.value.frames
        assert frame.function == "other"
        assert wat(text)[frame.offset or 0] == 0
        instance.close()

    def test_the_start_function_is_not_to_be_seen(self) -> None:
        module = v8().compile(wat('(module (func $go) (start $go) (func (export "start 0")))'))
        assert [export.name for export in module.exports] == ["start 0"]
        instance = module.instantiate([], Limits())
        assert instance.function("start 0") is not None
        assert instance.function("start 1") is None
        instance.close()

    def test_several_memories(self) -> None:
        text = """(module (memory 1) (memory (export "memory") 2) (memory 3)
          (func (export "grow") (param i32) (result i32) (memory.grow 1 (local.get 0))))"""
        instance = v8().compile(wat(text)).instantiate([], Limits(memory=3 * 65536))
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
            v8().compile(bytecode)

    def test_names_that_are_torn_are_left_out(self) -> None:
        torn = wat('(module (func $fall (export "f") unreachable))').replace(b"\x04fall", b"\x7ffall")
        instance = v8().compile(torn).instantiate([], Limits())
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
            ("in_background(function(instantiate(), 'calls'), 1 << 30)", 0),
            ("function(instantiate(lambda _: sys.exit(3)), 'calls')(1)", 3),
            ("function(instantiate(lambda _: os._exit(4)), 'calls')(1)", 4),
            ("import atexit; guest = instantiate(); atexit.register(guest.close)", 0),
            ("import atexit; one = function(instantiate(), 'one'); atexit.register(lambda: one())", 0),
        ],
    )
    def test_of_a_process(self, program: str, code: int) -> None:
        done = run(program)
        assert (done.stdout, done.stderr, done.returncode) == ("", "", code)

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
            print(v8().note)
            del racer  # some Pythons wait for it at their end
        """)
        assert done.returncode == 0
        assert re.match(r"42 1\n(in the calling thread|on separate threads).*, with the flags that", done.stdout)
