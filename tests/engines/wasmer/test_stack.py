"""The one stack that all guests of a thread run on, each where the one before has left off."""

from __future__ import annotations

import ctypes
import gc
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from greenlet import greenlet

from proxywasm_host.engine.protocol import Engine, Limits, Trap, TrapKind
from proxywasm_host.testing.compliance.processes import ended, in_a_child
from proxywasm_host.testing.guest import Guest
from tests.support import wat

from .conftest import Start

FAILING = {
    "unreachable": TrapKind.UNREACHABLE,
    "load": TrapKind.OUT_OF_BOUNDS,
    "divide": TrapKind.DIVIDE_BY_ZERO,
    "fill": TrapKind.OUT_OF_BOUNDS,
    "copy": TrapKind.OUT_OF_BOUNDS,
    "init": TrapKind.OUT_OF_BOUNDS,
    "get": TrapKind.TABLE_OUT_OF_BOUNDS,
    "set": TrapKind.TABLE_OUT_OF_BOUNDS,
    "call": TrapKind.TABLE_OUT_OF_BOUNDS,
    "throw": TrapKind.OTHER,
    "recurse": TrapKind.STACK_OVERFLOW,
}
GUEST = """(module (import "h" "host" (func $host (param i32)))
  (memory (export "memory") 1) (table $functions 2 funcref) (table $others 2 externref) (tag $tag (param i32)) (data $data "abc")
  (func (export "unreachable") unreachable)
  (func (export "load") (drop (i32.load (i32.const 65534))))
  (func (export "divide") (drop (i32.div_s (i32.const 1) (i32.const 0))))
  (func (export "fill") (memory.fill (i32.const 65530) (i32.const 1) (i32.const 7)))
  (func (export "copy") (memory.copy (i32.const 65530) (i32.const 0) (i32.const 7)))
  (func (export "init") (memory.init $data (i32.const 65534) (i32.const 0) (i32.const 3)))
  (func (export "get") (drop (table.get $others (i32.const 2))))
  (func (export "set") (table.set $others (i32.const 2) (ref.null extern)))
  (func (export "call") (call_indirect $functions (i32.const 2)))
  (func (export "throw") (throw $tag (i32.const 1)))
  (func $recurse (export "recurse") (call $recurse) (i32.store (i32.const 0) (i32.const 1)))
  (func (export "nest") (param $left i32) (result i64) (local $kept i64)
    (local.set $kept (i64.mul (i64.const 0x100000001) (i64.extend_i32_u (local.get $left))))
    (call $host (local.get $left))
    (local.get $kept)))"""


class TestTraps:
    @pytest.mark.parametrize(("name", "kind"), FAILING.items())
    def test_what_is_caught_in_between_leaves_the_outer_guest_as_it_was(
        self, start: Start, name: str, kind: TrapKind
    ) -> None:
        def fail() -> None:
            with pytest.raises(Trap) as caught:
                guest(name)
            assert caught.value.kind is kind

        def host(left: int) -> None:
            if left:
                fail()
                assert guest("nest", left - 1) == (left - 1) * 0x1_0000_0001
            fail()

        guest: Guest = start(GUEST, host=host)
        for _ in range(3):
            assert guest("nest", 5) == 5 * 0x1_0000_0001
            fail()

    @pytest.mark.parametrize(("name", "kind"), FAILING.items())
    def test_instances_within_each_other(self, start: Start, name: str, kind: TrapKind) -> None:
        def host(left: int) -> None:
            with pytest.raises(Trap) as caught:
                inner(name)
            assert caught.value.kind is kind
            inner("nest", left)

        outer, inner = start(GUEST, host=host), start(GUEST, host=lambda _: None)
        for _ in range(3):
            assert outer("nest", 3) == 3 * 0x1_0000_0001

    def test_an_exception_of_the_guest_is_not_seen_by_the_one_around_it(self, start: Start) -> None:
        def host() -> None:
            with pytest.raises(Trap):
                guest("throw")

        guest: Guest = start(
            """(module (import "h" "host" (func $host)) (tag $tag (param i32))
              (func (export "throw") (throw $tag (i32.const 5)))
              (func $inner (call $host) (throw $tag (i32.const 7)))
              (func (export "catch") (result i32)
                (block $caught (result i32) (try_table (catch $tag $caught) (call $inner)) (i32.const 1))))""",
            host=host,
        )
        for _ in range(3):
            assert guest("catch") == 7

    @pytest.mark.parametrize(
        "what",
        [
            "(call $host)",
            "(memory.fill (i32.const 0) (i32.const 0) (i32.const 1))",
            "(drop (memory.grow (i32.const 1)))",
            "(drop (table.get (i32.const 0)))",
            """(if (i32.eqz (i32.and (local.get 0) (i32.const 255)))
              (then (block $caught (try_table (catch $tag $caught) (throw $tag)))))""",
            "(if (i32.eq (local.get 0) (i32.const 5000)) (then (memory.fill (i32.const -1) (i32.const 0) (i32.const 9))))",
        ],
    )
    def test_a_guest_at_the_end_of_its_stack(self, start: Start, what: str) -> None:
        """Whatever it does there, nobody else waits for a lock that was taken there."""
        guest = start(
            f"""(module (import "h" "host" (func $host)) (memory 1 9) (table 1 externref) (tag $tag)
              (func $deep (export "deep") (param i32) {what} (call $deep (i32.add (local.get 0) (i32.const 1))) {what})
              (func (export "fine") (result i32) (i32.const 7)))""",
            host=lambda: None,
        )
        for _ in range(3):
            with pytest.raises(Trap) as caught:
                guest("deep", 0)
            assert caught.value.kind in (TrapKind.STACK_OVERFLOW, TrapKind.OUT_OF_BOUNDS)
            assert guest("fine") == 7

    @pytest.mark.parametrize(
        "what",
        [
            "unreachable",
            "(drop (memory.atomic.wait32 (i32.const 0) (i32.const 0) (i64.const 0)))",
            "(drop (memory.atomic.notify (i32.const 70000) (i32.const 1)))",
            "(memory.fill (i32.const 0) (i32.const 0) (i32.const 1))",
            "(drop (memory.grow (i32.const 0)))",
            "(drop (table.grow (ref.null extern) (i32.const 0)))",
            "(throw $tag)",
        ],
    )
    def test_what_is_left_to_a_guest_there_is_too_little(self, engine: Engine, what: str) -> None:
        """In a process of its own, which would hang or end: wherever that is, other threads' guests can fail too."""
        module = wat(
            f"""(module (memory 1) (table 1 externref) (tag $tag) (global $deepest (mut i32) (i32.const 0))
              (func $deep (export "deep") (param $left i32)
                (if (i32.eqz (local.get $left)) (then {what}))
                (global.set $deepest (i32.add (global.get $deepest) (i32.const 1)))
                (call $deep (i32.sub (local.get $left) (i32.const 1)))
                (i32.store (i32.const 0) (i32.const 1)))
              (func (export "unreachable") unreachable)
              (func (export "fill") (memory.fill (i32.const -1) (i32.const 0) (i32.const 9)))
              (func (export "deepest") (result i32) (global.get $deepest)))"""
        )
        script = """
import sys, threading
from proxywasm_engine_wasmer import WasmerEngine
from proxywasm_host.engine.protocol import Limits, Trap

module = WasmerEngine().compile(bytes.fromhex(sys.argv[1]))
guest = module.instantiate([], Limits())

def fail(instance, *call):
    try:
        instance.function(call[0])(*call[1:])
    except Trap as trap:
        return trap.kind.name
    raise AssertionError(call)

fail(guest, "deep", -1)
deepest = guest.function("deepest")()
for depth in range(deepest - 100, deepest + 2):
    fail(guest, "deep", depth)
    fail(guest, "fill")
    other = threading.Thread(target=lambda: fail(module.instantiate([], Limits()), "unreachable"))
    other.start()
    other.join()
print("fine")
"""
        done = subprocess.run(
            [sys.executable, "-c", script, module.hex()], capture_output=True, text=True, timeout=60, check=False
        )
        assert (done.returncode, done.stdout) == (0, "fine\n"), done.stderr


class TestTables:
    def test_references_are_kept(self, start: Start) -> None:
        guest = start(
            """(module (table $t 3 funcref) (table $u 3 funcref) (elem declare func $seven $eight)
              (type $number (func (result i32)))
              (func $seven (result i32) (i32.const 7)) (func $eight (result i32) (i32.const 8))
              (func (export "put")
                (table.fill $t (i32.const 0) (ref.func $seven) (i32.const 3))
                (table.set $t (i32.const 1) (ref.func $eight))
                (table.copy $u $t (i32.const 1) (i32.const 0) (i32.const 2)))
              (func (export "ask") (param i32) (result i32) (call_indirect $u (type $number) (local.get 0)))
              (func (export "none") (param i32) (result i32) (ref.is_null (table.get $u (local.get 0)))))"""
        )
        guest("put")
        assert [guest("none", index) for index in range(3)] == [1, 0, 0]
        assert [guest("ask", index) for index in (1, 2)] == [7, 8]


class TestThreads:
    @pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="needs Linux")
    def test_a_thread_gives_its_stack_back(self, engine: Engine) -> None:
        module = engine.compile(wat(GUEST))

        def work() -> None:
            guest = Guest(module, Limits(), {"host": lambda _: None})
            assert guest("nest", 2) == 0x2_0000_0002
            for name in ("recurse", "fill", "unreachable"):
                with pytest.raises(Trap):
                    guest(name)
            guest.close()

        def mappings() -> int:
            for _ in range(20):
                thread = threading.Thread(target=work)
                thread.start()
                thread.join()
            gc.collect()
            return len(Path("/proc/self/maps").read_text().splitlines())

        before = mappings()
        assert mappings() < before + 20

    def test_a_child_process_goes_on_where_it_is(self, start: Start) -> None:
        def host(_: int) -> None:
            def child() -> None:
                for name in ("unreachable", "fill"):
                    with pytest.raises(Trap):
                        guest(name)
                assert guest("nest", 0) == 0

            if threading.current_thread() is threading.main_thread() and os.getpid() == parent and not codes:
                codes.append(-1)
                codes[0] = in_a_child(child)

        parent, codes = os.getpid(), list[int]()
        guest: Guest = start(GUEST, host=host)
        assert guest("nest", 4) == 0x4_0000_0004
        assert codes == [0]

    @pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
    def test_a_guest_that_goes_on_in_a_child_process_has_its_deadline_there(self, start: Start) -> None:
        def host() -> int:
            process[0] = os.fork()
            return process[0]

        process, kind = [os.getpid()], None
        guest = start(
            """(module (import "h" "host" (func $host (result i32)))
              (func (export "go") (if (i32.eqz (call $host)) (then (loop $for_ever (br $for_ever))))))""",
            Limits(deadline=0.1),
            host=host,
        )
        try:
            guest("go")
        except Trap as trap:
            kind = trap.kind
        finally:
            if not process[0]:
                os._exit(7 if kind is TrapKind.DEADLINE else 8)
        assert ended(process[0]) == 7

    def test_signals_have_no_stack_that_is_gone_when_a_thread_ends(self, engine: Engine) -> None:
        """That of Wasmer is unmapped then; who comes after that in a thread's end may still get a signal."""
        libc = ctypes.CDLL(None)

        class SignalStack(ctypes.Structure):
            _fields_ = (("start", ctypes.c_void_p), ("flags", ctypes.c_int), ("size", ctypes.c_size_t))

        def ask() -> SignalStack:
            stack = SignalStack()
            assert libc.sigaltstack(None, ctypes.byref(stack)) == 0
            return stack

        @ctypes.CFUNCTYPE(None, ctypes.c_void_p)
        def at_the_end(_: int | None) -> None:
            stacks.append(ask())

        def work() -> None:
            libc["__cxa_thread_atexit_impl"](at_the_end, None, at_the_end)  # called after all that is registered later
            guest = Guest(module, Limits(), {"host": lambda _: None})
            guest("nest", 2)
            stacks.append(ask())
            guest.close()

        stacks: list[SignalStack] = []
        module = engine.compile(wat(GUEST))
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
        until = time.monotonic() + 10
        while len(stacks) < 2 and time.monotonic() < until:
            time.sleep(0.01)
        during, after = stacks
        assert during.size
        assert not after.size


class TestGreenlets:
    """They exchange the stack that host functions run on, but not the one of guests."""

    def test_a_call_that_does_not_end_in_its_turn_fails(self, start: Start) -> None:
        def leave(_: int) -> None:
            main.switch()

        main = greenlet.getcurrent()
        first, second, third = (start(GUEST, host=leave) for _ in range(3))
        ways = [greenlet(guest) for guest in (first, second)]
        for way in ways:
            way.switch("nest", 1)
        for way in ways:  # each ends before the one that began after it, or after one that has failed
            with pytest.raises(RuntimeError, match="greenlet"):
                way.switch()
        with pytest.raises(Trap):
            third("fill")
        with pytest.raises(Trap):
            first("unreachable")

    def test_nor_does_one_of_the_same_instance(self, start: Start) -> None:
        """What the outer call does would otherwise write over what the inner one has left behind."""

        def leave(_: int) -> None:
            main.switch()

        main = greenlet.getcurrent()
        guest: Guest = start(GUEST, host=leave)
        outer, inner = greenlet(guest), greenlet(guest)
        for way in (outer, inner):
            way.switch("nest", 1)
        for way in (outer, inner):
            with pytest.raises(RuntimeError, match="greenlet"):
                way.switch()
        with pytest.raises(RuntimeError, match="greenlet"):  # which would have no deadline
            guest("nest", 0)

    def test_one_that_ends_in_its_turn_does_no_harm(self, start: Start) -> None:
        def visit(left: int) -> None:
            assert greenlet(inner).switch("nest", left) == left * 0x1_0000_0001

        inner = start(GUEST, host=lambda _: None)
        outer = start(GUEST, host=visit)
        assert outer("nest", 3) == 0x3_0000_0003
