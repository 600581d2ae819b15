"""What is special about Wasmer: signals of several engines, interrupted guests, forks, and what is freed."""

from __future__ import annotations

import ctypes
import gc
import itertools
import os
import signal
import subprocess
import sys
import threading
import time
import weakref
from pathlib import Path

import pytest

from proxywasm_host.engine.protocol import Engine, HostFunction, Instance, InvalidModule, Limits, Trap, TrapKind
from proxywasm_host.extension import NATIVE_ABI
from proxywasm_host.testing.guest import Guest, type_of
from tests.support import wat

from .conftest import Start

wasmer = pytest.importorskip("proxywasm_engine_wasmer")

HOSTCALL = f"proxywasm_host.hostcall.{NATIVE_ABI}".encode()
capsule = ctypes.pythonapi.PyCapsule_New
capsule.restype, capsule.argtypes = ctypes.py_object, (ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p)
SPIN = '(module (func $spin (export "spin") (loop $l (br $l))))'


def test_one_of_another_native_abi_says_that_calls_go_through_python(monkeypatch: pytest.MonkeyPatch) -> None:
    assert wasmer.WasmerEngine().note == "Cranelift, in a Rust extension"
    monkeypatch.setattr(wasmer.engine, "NATIVE_ABI", 999)
    assert wasmer.WasmerEngine().note.endswith(
        f" (calls go through Python: it was built for native ABI {NATIVE_ABI}, and this proxywasm-host has 999: "
        "install a matching version of proxywasm-engine-wasmer)"
    )


class TestSignals:
    """In a process of its own each, since what goes wrong here ends it."""

    SCRIPT = """
import faulthandler, signal, sys
from faulthandler import enable  # a reference that was there before
from proxywasm_host.engine.protocol import Limits, Trap

def run(steps):
    engines, instances = {}, []
    for step in steps:
        if step == "faulthandler":
            enable()
        elif step == "disable":
            faulthandler.disable()
        elif step == "default":
            for number in (signal.SIGSEGV, signal.SIGILL, signal.SIGFPE):
                signal.signal(number, signal.SIG_DFL)
        elif step == "trap":
            for instance in instances:
                for name in ("unreachable", "load", "divide", "recurse"):
                    try:
                        instance.function(name)()
                    except Trap:
                        continue
                    raise AssertionError(name)
        else:
            if step not in engines:
                module = __import__(f"proxywasm_engine_{step}")
                engines[step] = getattr(module, f"{step.title()}Engine")()
            instances.append(engines[step].compile(bytes.fromhex(sys.argv[1])).instantiate([], Limits()))

run(sys.argv[2:])
print("fine")
"""
    TEXT = """(module (memory 1)
      (func (export "unreachable") unreachable)
      (func (export "load") (drop (i32.load (i32.const 65534))))
      (func (export "divide") (drop (i32.div_s (i32.const 1) (i32.const 0))))
      (func $recurse (export "recurse") (call $recurse) (i32.store (i32.const 0) (i32.const 1))))"""

    def run(self, *steps: str) -> None:
        done = subprocess.run(
            [sys.executable, "-c", self.SCRIPT, wat(self.TEXT).hex(), *steps], capture_output=True, text=True
        )
        assert (done.returncode, done.stdout) == (0, "fine\n"), done.stderr

    @pytest.mark.parametrize("first", ["wasmer", "wasmtime"])
    def test_two_engines_in_one_process(self, first: str) -> None:
        second = {"wasmer": "wasmtime", "wasmtime": "wasmer"}[first]
        self.run(first, second, "trap", first, "trap", second, "trap", first, second, "trap")

    @pytest.mark.parametrize("order", list(itertools.permutations(["faulthandler", "wasmer", "wasmtime"])))
    def test_with_faulthandler(self, order: tuple[str, ...]) -> None:
        self.run(*order, "wasmtime", "trap", "trap")

    def test_with_faulthandler_after_the_instance(self) -> None:
        self.run("wasmer", "trap", "faulthandler", "trap")

    def test_with_faulthandler_enabled_again(self) -> None:
        self.run("faulthandler", "wasmer", "trap", "disable", "trap", "faulthandler", "trap")
        self.run("faulthandler", "wasmer", "trap", "disable", "faulthandler", "trap", "disable", "trap")

    def test_with_handlers_set_by_python_code(self) -> None:
        self.run("wasmer", "trap", "default", "trap", "faulthandler", "default", "trap")

    def test_with_handlers_that_nobody_tells_of(self) -> None:
        """They are found after some milliseconds."""
        script = f"""
import ctypes, sys, time
libc = ctypes.CDLL(None)
{self.SCRIPT.replace('print("fine")', "")}
from proxywasm_engine_wasmer import WasmerEngine
call = WasmerEngine().compile(bytes.fromhex(sys.argv[1])).instantiate([], Limits()).function("unreachable")
for _ in range(2):
    try:
        call()
    except Trap:
        libc.signal({int(signal.SIGILL)}, None)
    time.sleep(0.5)
print("fine")
"""
        done = subprocess.run([sys.executable, "-c", script, wat(self.TEXT).hex()], capture_output=True, text=True)
        assert (done.returncode, done.stdout) == (0, "fine\n"), done.stderr

    def test_what_tells_us_does_what_it_did(self) -> None:
        script = """
import faulthandler, signal, sys
import proxywasm_engine_wasmer
faulthandler.enable(sys.stderr, all_threads=False)
faulthandler.enable(file=sys.stderr)
print(faulthandler.is_enabled(), faulthandler.disable(), faulthandler.disable(), faulthandler.is_enabled())
print(signal.signal(signal.SIGUSR1, print) is signal.SIG_DFL, signal.signal(signal.SIGUSR1, signal.SIG_IGN) is print)
for wrong in (lambda: signal.signal(1), lambda: faulthandler.enable(nonsense=1), lambda: faulthandler.disable(1)):
    try:
        wrong()
    except TypeError:
        print("refused")
"""
        done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
        assert done.stdout.splitlines() == ["True True False False", "True True", *["refused"] * 3], done.stderr

    @pytest.mark.parametrize("number", [signal.SIGSEGV, signal.SIGILL])
    def test_a_signal_that_somebody_sends_still_ends_the_process(self, number: signal.Signals) -> None:
        script = f"import os, proxywasm_engine_wasmer; os.kill(os.getpid(), {int(number)})"
        assert subprocess.run([sys.executable, "-c", script]).returncode == -number

    def test_a_crash_is_still_a_crash(self) -> None:
        script = "import proxywasm_engine_wasmer, proxywasm_engine_wasmtime, faulthandler, ctypes\n"
        for enable in ("", "faulthandler.enable()\n"):
            engines = "proxywasm_engine_wasmer.WasmerEngine(); proxywasm_engine_wasmtime.WasmtimeEngine()\n"
            done = subprocess.run(
                [sys.executable, "-c", script + engines + enable + "ctypes.string_at(0)"], capture_output=True
            )
            assert done.returncode == -signal.SIGSEGV
            assert (b"Segmentation fault" in done.stderr) == bool(enable)


class TestInterruption:
    def test_the_backtrace_is_whole_wherever_the_guest_was(self, start: Start) -> None:
        guest = start(
            """(module (memory 1)
              (func $leaf (param i32) (result i32) (i32.add (local.get 0) (i32.const 1)))
              (func $middle (param i32) (result i32) (i32.store (i32.const 8) (local.get 0)) (call $leaf (local.get 0)))
              (func $outer (export "f") (loop $l (drop (call $middle (i32.const 1))) (br $l))))""",
            Limits(deadline=0.001),
        )
        for _ in range(100):
            with pytest.raises(Trap) as caught:
                guest("f")
            assert caught.value.kind is TrapKind.DEADLINE
            assert [frame.function for frame in caught.value.frames] in (
                ["leaf", "middle", "outer"],
                ["middle", "outer"],
                ["outer"],
            )

    def test_a_late_host_function_ends_the_call_with_a_backtrace(self, start: Start) -> None:
        guest = start(
            """(module (import "h" "wait" (func $wait (param i32 i64 f64)))
              (func $inner (call $wait (i32.const 1) (i64.const 2) (f64.const 3)))
              (func $outer (export "f") (call $inner) unreachable))""",
            Limits(deadline=0.01),
            wait=lambda *_: time.sleep(0.2),
        )
        with pytest.raises(Trap) as caught:
            guest("f")
        assert caught.value.kind is TrapKind.DEADLINE
        assert [frame.function for frame in caught.value.frames] == ["inner", "outer"]

    def test_a_host_function_is_not_disturbed(self, start: Start) -> None:
        """A signal would end a wait before its time."""
        seen = []
        guest = start(
            '(module (import "h" "wait" (func $wait)) (func (export "f") (call $wait)))',
            Limits(deadline=0.01),
            wait=lambda: seen.append(signal.sigtimedwait([signal.SIGUSR2], 0.1)),
        )
        with pytest.raises(Trap):
            guest("f")
        assert seen == [None]

    def test_calls_that_just_make_it_do_not_harm_the_next(self, start: Start) -> None:
        guest = start(
            """(module (func (export "f") (param i32)
              (loop $l (br_if $l (local.tee 0 (i32.sub (local.get 0) (i32.const 1)))))))""",
            Limits(deadline=0.005),
        )
        outcomes = set()
        for turn in range(60):
            try:
                guest("f", 200_000 * (1 + turn))
                outcomes.add(None)
            except Trap as trap:
                outcomes.add(trap.kind)
            guest("f", 1)
        assert outcomes <= {None, TrapKind.DEADLINE}

    def test_a_nested_guest_without_a_deadline_is_let_alone(self, engine: Engine, start: Start) -> None:
        text = """(module (import "h" "f" (func $f)) (func (export "g") (call $f))
          (func (export "count") (param i32) (loop $l (br_if $l (local.tee 0 (i32.sub (local.get 0) (i32.const 1)))))))"""
        inner = start(text, f=lambda: None)
        outer = start(text, Limits(deadline=0.01), f=lambda: inner("count", 300_000_000))
        with pytest.raises(Trap) as caught:
            outer("g")
        assert caught.value.kind is TrapKind.DEADLINE
        inner("count", 1)

    def test_what_a_handler_raises_comes_out_though_no_python_code_runs(self, engine: Engine) -> None:
        class Zero:
            offered = (ctypes.c_void_p * 2)(ctypes.cast(ctypes.CDLL(None).labs, ctypes.c_void_p).value, 0)
            native_entry = capsule(ctypes.addressof(offered), HOSTCALL, None)

            def __call__(self) -> int:
                raise AssertionError

        def ring(*_: object) -> None:
            raise TimeoutError

        module = engine.compile(
            wat("""(module (import "h" "zero" (func $zero (result i32)))
              (func (export "f") (loop $l (drop (call $zero)) (br $l))))""")
        )
        call = module.instantiate([HostFunction("h", "zero", type_of("-> i32"), Zero())], Limits(deadline=20)).function(
            "f"
        )
        assert call is not None
        before = signal.signal(signal.SIGALRM, ring)
        try:
            signal.setitimer(signal.ITIMER_REAL, 0.05)
            with pytest.raises(TimeoutError):
                call()
        finally:
            signal.signal(signal.SIGALRM, before)

    def test_another_handler_of_that_signal_gets_what_is_its_own(self, start: Start) -> None:
        seen = []
        guest = start(SPIN, Limits(deadline=0.01))
        with pytest.raises(Trap):
            guest("spin")
        before = signal.signal(signal.SIGURG, lambda *_: seen.append(1))
        try:
            with pytest.raises(Trap):
                guest("spin")
            assert seen == []
            os.kill(os.getpid(), signal.SIGURG)
            assert seen == [1]
        finally:
            signal.signal(signal.SIGURG, before or signal.SIG_DFL)

    @pytest.mark.parametrize("size", [60_000, 3_000_000])
    def test_a_guest_that_only_fills_memory_ends_at_its_deadline(self, start: Start, size: int) -> None:
        """It is hardly ever met in code of its own."""
        guest = start(
            f"""(module (memory 64)
              (func $fill (memory.fill (i32.const 0) (i32.const 1) (i32.const {size})))
              (func $outer (export "f") (loop $l (call $fill) (br $l))))""",
            Limits(deadline=0.02),
        )
        for _ in range(20):
            with pytest.raises(Trap) as caught:
                guest("f")
            assert caught.value.kind is TrapKind.DEADLINE
            assert [frame.function for frame in caught.value.frames] in (["fill", "outer"], ["outer"])

    @pytest.mark.parametrize(
        "text",
        [
            "memory.fill (i32.const 0) (i32.const 1) (i32.const 9)",
            "memory.copy (i32.const 0) (i32.const 1) (i32.const 9)",
            "table.set $t (i32.const 0) (ref.null func)",
            "drop (table.get $t (i32.const 0))",
            "data.drop $d",
            "elem.drop $e",
            "drop (memory.size)",
            "drop (table.size $t)",
            "drop (ref.func $f)",
        ],
        ids=lambda text: text.replace("drop (", "").split()[0],
    )
    def test_what_takes_longer_than_the_code_around_it_looks_at_the_deadline(self, start: Start, text: str) -> None:
        """No signal comes through here, which else would have to meet the guest between two of these."""
        guest = start(
            f"""(module (memory 1) (table $t 1 funcref) (data $d "abc") (elem $e func $f)
              (func $f (export "f") (param i32) (loop $l ({text})
                (br_if $l (local.tee 0 (i32.sub (local.get 0) (i32.const 1)))))))""",
            Limits(deadline=0.02),
        )
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGURG})
        try:
            with pytest.raises(Trap) as caught:
                guest("f", 200_000_000)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        assert caught.value.kind is TrapKind.DEADLINE
        assert [frame.function for frame in caught.value.frames] == ["f"]

    def test_a_guest_that_only_throws_ends_at_its_deadline(self, start: Start) -> None:
        guest = start(
            """(module (tag $tag)
              (func $throw (block $caught (try_table (catch $tag $caught) (throw $tag))))
              (func $deep (param i32) (if (local.get 0) (then (call $deep (i32.sub (local.get 0) (i32.const 1)))))
                (loop $l (call $throw) (br_if $l (i32.eqz (local.get 0)))))
              (func (export "f") (call $deep (i32.const 1000))))""",
            Limits(deadline=0.02),
        )
        with pytest.raises(Trap) as caught:
            guest("f")
        assert caught.value.kind is TrapKind.DEADLINE

    def test_a_guest_cannot_wait_for_other_threads(self, start: Start) -> None:
        guest = start(
            """(module (memory 1 1 shared)
              (func (export "f") (drop (memory.atomic.wait32 (i32.const 0) (i32.const 0) (i64.const -1)))))"""
        )
        for _ in range(2):
            with pytest.raises(Trap, match="another thread"):
                guest("f")


class TestThreads:
    @pytest.mark.parametrize("work", ["", "(memory.fill (i32.const 4) (i32.const 1) (i32.const 60000))"])
    def test_a_guest_that_takes_long_lets_others_run(self, start: Start, work: str) -> None:
        inside = threading.Event()
        guest = start(
            f"""(module (import "h" "enter" (func $enter)) (memory (export "memory") 1)
              (func (export "wait") (call $enter) (loop $l {work} (br_if $l (i32.eqz (i32.load (i32.const 0)))))))""",
            Limits(deadline=60),
            enter=inside.set,
        )
        assert guest.instance.memory is not None
        thread = threading.Thread(target=guest, args=("wait",))
        thread.start()
        inside.wait()
        guest.instance.memory.view[0] = 1  # needs the GIL, as everything here does
        thread.join()

    def test_nobody_else_enters_while_a_host_function_runs(self, start: Start) -> None:
        failures: list[str] = []

        def enter() -> None:
            try:
                guest("one")
            except RuntimeError as error:
                failures.append(str(error))

        def host() -> None:
            thread = threading.Thread(target=enter)
            thread.start()
            thread.join()

        guest: Guest = start(
            """(module (import "h" "f" (func $f)) (func (export "g") (call $f))
              (func (export "one") (result i32) (i32.const 1)))""",
            f=host,
        )
        guest("g")
        assert len(failures) == 1
        assert "another thread" in failures[0]
        assert guest("one") == 1


class TestFork:
    @pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
    def test_a_child_compiles_and_keeps_deadlines(self, engine: Engine, start: Start) -> None:
        guest = start(SPIN, Limits(deadline=0.02))
        with pytest.raises(Trap):
            guest("spin")
        child = os.fork()
        if not child:
            status = 1
            try:
                for spin in (guest, Guest(engine.compile(wat(SPIN)), Limits(deadline=0.02), {})):
                    try:
                        spin("spin")
                    except Trap as trap:
                        status = 0 if trap.kind is TrapKind.DEADLINE else 2
            finally:
                os._exit(status)
        for _ in range(500):
            ended, status = os.waitpid(child, os.WNOHANG)
            if ended:
                break
            time.sleep(0.02)
        else:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            pytest.fail("the child does not end")
        assert os.waitstatus_to_exitcode(status) == 0


class TestFreeing:
    TEXT = '(module (import "h" "f" (func $f)) (memory (export "memory") 1) (func (export "call") (call $f)))'

    def test_an_instance_that_its_host_functions_refer_to_is_collected(self, engine: Engine) -> None:
        class Owner:
            def __init__(self) -> None:
                module = engine.compile(wat(TestFreeing.TEXT))
                self.instance: Instance = module.instantiate(
                    [HostFunction("h", "f", type_of(""), self.called)], Limits()
                )
                self.call = self.instance.function("call")

            def called(self) -> None:
                pass

        owner = Owner()
        assert owner.call is not None
        owner.call()
        reference = weakref.ref(owner)
        del owner
        gc.collect()
        assert reference() is None

    def test_closing_from_within_frees_when_the_call_ends(self, engine: Engine) -> None:
        class Handler:
            def __call__(self) -> None:
                instance.close()

        handler = Handler()
        reference = weakref.ref(handler)
        module = engine.compile(wat(self.TEXT))
        instance = module.instantiate([HostFunction("h", "f", type_of(""), handler)], Limits())
        del handler
        call = instance.function("call")
        assert call is not None
        call()
        assert reference() is None

    @pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="needs Linux")
    def test_code_and_address_space_are_given_back(self, engine: Engine) -> None:
        def mappings() -> int:
            gc.collect()
            return len(Path("/proc/self/maps").read_text().splitlines())

        def make() -> None:
            for _ in range(20):
                engine.compile(wat(self.TEXT)).instantiate([HostFunction("h", "f", type_of(""), print)], Limits())

        make()
        before = mappings()
        make()
        assert mappings() < before + 20  # two each, at least


class TestExceptions:
    """Of WebAssembly: Wasmer would keep them as long as the instance."""

    TEXT = """(module (tag $tag) {keep}
      (func (export "throw") (param i32)
        (loop $l
          (block $caught (try_table (catch $tag $caught) (throw $tag)))
          (br_if $l (local.tee 0 (i32.sub (local.get 0) (i32.const 1)))))))"""

    def test_a_guest_may_throw_as_many_as_it_likes_one_call_after_the_other(self, start: Start) -> None:
        guest = start(self.TEXT.format(keep=""))
        for _ in range(30):
            guest("throw", 5_000)

    @pytest.mark.parametrize(("keep", "calls"), [("", 1), ("(global (mut exnref) (ref.null exn))", 30)])
    def test_but_not_at_once_nor_if_it_could_keep_them(self, start: Start, keep: str, calls: int) -> None:
        guest = start(self.TEXT.format(keep=keep))
        with pytest.raises(Trap, match="too many exceptions"):
            for _ in range(calls):
                guest("throw", 150_000 // calls)


class TestModules:
    def test_memory_stays_where_it_is(self, start: Start) -> None:
        guest = start(
            """(module (memory (export "memory") 1)
              (func (export "grow") (param i32) (result i32) (memory.grow (local.get 0))))"""
        )
        assert guest.instance is not None
        memory = guest.instance.memory
        assert memory is not None
        first = memory.view
        assert guest("grow", 8191) == 1
        memory.refresh()
        memory.view[5] = 7
        assert len(memory.view) == 1 << 29
        assert first[5] == 7

    def test_an_import_that_is_exported_again_can_be_called(self, start: Start) -> None:
        guest = start('(module (import "h" "f" (func $f (param i64) (result i64))) (export "f" (func $f)))', f=abs)
        assert guest("f", -5) == (1 << 64) - 5

    def test_the_module_is_named_in_backtraces(self, start: Start) -> None:
        with pytest.raises(Trap) as caught:
            start('(module $filter (func (export "f") unreachable))')("f")
        assert [frame.module for frame in caught.value.frames] == ["filter"]

    @pytest.mark.parametrize("options", [{"optimise": "none"}, {"parallel_compilation": False}])
    def test_options(self, options: dict[str, object]) -> None:
        engine = wasmer.WasmerEngine(**options)
        instance = engine.compile(wat('(module (func (export "f") (result i32) (i32.const 3)))')).instantiate(
            [], Limits()
        )
        assert instance.function("f")() == 3

    def test_a_wrong_option_is_told(self) -> None:
        with pytest.raises(ValueError, match="fast"):
            wasmer.WasmerEngine(optimise="fast")

    def test_code_of_other_options_has_another_fingerprint(self) -> None:
        assert wasmer.WasmerEngine().fingerprint != wasmer.WasmerEngine(optimise="none").fingerprint

    def test_damaged_code_is_refused(self, engine: Engine) -> None:
        whole = engine.compile(wat(SPIN)).serialise()
        for size in (8, 40, len(whole) // 2, len(whole) - 1):
            with pytest.raises(InvalidModule):
                engine.deserialise(whole[:size])
