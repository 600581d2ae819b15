"""One isolate in several threads, and several isolates in one thread."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from typing import Any

import pytest

from proxywasm_host.engine.protocol import HostFunction, Instance, Limits, Trap, TrapKind
from proxywasm_host.testing.guest import type_of
from tests.support import wat

from .support import TRAPS, function, instantiate, run, take_way, v8

KIB = 1 << 10


@pytest.fixture(autouse=True, params=["C", "ctypes"])
def _way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    take_way(request.param, monkeypatch)


def in_a_thread(call: Callable[[], Any], stack: int = 0) -> Any:
    """What `call` returns, in a new thread with a stack of so many bytes."""
    results: list[Any] = []
    before = threading.stack_size(stack)
    try:
        thread = threading.Thread(target=lambda: results.append(call()))
        thread.start()
    finally:
        threading.stack_size(before)
    thread.join()
    return results[0]


def kind(call: Callable[[], object]) -> TrapKind:
    with pytest.raises(Trap) as caught:
        call()
    return caught.value.kind


def current(instance: Instance) -> tuple[int | None, int | None]:
    """V8's current isolate, and that of `instance`."""
    isolate = instance._isolate  # type: ignore[attr-defined]
    return isolate.library.current(), isolate.pointer


class TestThreads:
    def test_each_has_a_stack_of_its_own(self) -> None:
        """The limit of one would be a crash in another, or leave nothing to a guest."""
        instance = v8().compile(wat(TRAPS)).instantiate([], Limits())
        recurse, divide = function(instance, "recurse"), function(instance, "divide")
        for stack in (256, 1024, 0, 16 * 1024, 256):
            for place in (lambda call, stack=stack: in_a_thread(call, stack * KIB), lambda call: call()):
                assert place(lambda: kind(lambda: recurse(0))) is TrapKind.STACK_OVERFLOW
                assert place(lambda: divide(1)) is None
        instance.close()

    def test_what_a_thread_has_left_another_one_closes(self) -> None:
        for _ in range(20):
            instance = in_a_thread(lambda: instantiate(limits=Limits(deadline=1.0)))
            calls = function(instance, "calls")
            assert in_a_thread(lambda calls=calls: calls(3)) == 1
            assert calls(3) == 1
            in_a_thread(instance.close)
            with pytest.raises(RuntimeError, match="closed"):
                calls(3)

    def test_deadlines_hold_wherever_a_guest_has_moved(self) -> None:
        instance = instantiate(limits=Limits(deadline=0.03))
        spin, one = function(instance, "spin"), function(instance, "one")
        for _ in range(3):
            assert kind(spin) is TrapKind.DEADLINE
            assert in_a_thread(lambda: kind(spin)) is TrapKind.DEADLINE
            assert in_a_thread(one) == one() == 1
        instance.close()

    def test_no_handles_are_left_behind(self) -> None:
        instance = instantiate()
        isolate, one = instance._isolate, function(instance, "one")  # type: ignore[attr-defined]
        for _ in range(3):
            assert in_a_thread(one) == one() == 1
            with isolate.entered():
                assert isolate.library.handles(isolate.pointer) == 0
        instance.close()

    @pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
    def test_a_child_process_takes_over_what_another_thread_had(self) -> None:
        done = run("""
            import threading
            def in_a_thread(call):
                thread = threading.Thread(target=call)
                thread.start()
                return thread

            guest, wait, ready = instantiate(), threading.Event(), threading.Event()
            in_a_thread(lambda: (function(guest, "calls")(2), ready.set(), wait.wait()))
            ready.wait()
            child = os.fork()
            if not child:
                signal.alarm(20)
                assert function(guest, "calls")(2) == 1
                in_a_thread(lambda: os._exit(function(guest, "one")() - 1)).join()
            print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
            wait.set()
        """)
        assert (done.stdout, done.stderr, done.returncode) == ("0\n", "", 0)


class TestIsolates:
    def test_two_that_call_each_other(self) -> None:
        seen = []

        def back(rest: int) -> int:
            seen.append(len(set(current(second))))
            return one() + rest  # type: ignore[operator, return-value]

        def out(rest: int) -> int:
            seen.append(len(set(current(first))))
            answer = function(second, "calls")(1)
            seen.append(len(set(current(first))))
            return answer + rest  # type: ignore[operator, return-value]

        def add(rest: int) -> int:
            seen.append(len(set(current(first))))
            return rest

        first = v8().compile(wat(_CALLS_ADD)).instantiate([_host("f", out), _host("g", add)], Limits())
        second = instantiate(back)
        one = function(first, "add")
        assert [function(first, "calls")(1) for _ in range(2)] == [3] * 2
        assert seen == [1] * 8
        assert current(first)[0] is None
        for instance in (first, second):
            instance.close()

    def test_one_that_is_closed_by_another(self) -> None:
        def close(rest: int) -> int:
            other.close()
            return one() + rest  # type: ignore[operator, return-value]

        instance, other = instantiate(close), instantiate()
        one = function(instance, "one")
        assert function(other, "one")() == 1
        assert function(instance, "calls")(1) == 2
        instance.close()


_CALLS_ADD = """(module (import "h" "f" (func $f (param i32) (result i32)))
  (import "h" "g" (func $g (param i32) (result i32)))
  (func (export "calls") (param i32) (result i32) (call $f (local.get 0)))
  (func (export "add") (result i32) (call $g (i32.const 1))))"""


def _host(name: str, call: Callable[[int], int]) -> HostFunction:
    return HostFunction("h", name, type_of("i32 -> i32"), call)
