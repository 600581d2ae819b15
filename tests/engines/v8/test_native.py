"""What is particular to V8 that is called from C: the GIL, signals, hostcalls with an entry in C."""

from __future__ import annotations

import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from proxywasm_host.engine.protocol import HostFunction, Limits, Trap, TrapKind
from proxywasm_host.extension import load
from proxywasm_host.testing.guest import type_of
from tests.support import wat

from .support import TEXT, function, instantiate, take_way, v8

NATIVE, NOTE = load("proxywasm_engine_v8._native")
pytestmark = pytest.mark.skipif(NATIVE is None, reason=f"the C extension is {NOTE}")


@pytest.fixture(autouse=True)
def _way(monkeypatch: pytest.MonkeyPatch) -> None:
    take_way("C", monkeypatch)


class Stopped(Exception):
    pass


@pytest.fixture
def alarm() -> Iterator[Callable[[], object]]:
    """``alarm()`` sends a signal in a twentieth of a second, whose handler raises `Stopped`."""

    def handler(*_: object) -> None:
        raise Stopped

    before = signal.signal(signal.SIGALRM, handler)
    yield lambda: signal.setitimer(signal.ITIMER_REAL, 0.05)
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)


def test_a_signal_comes_out_of_a_loop_that_has_no_deadline(alarm: Callable[[], object]) -> None:
    instance = instantiate()
    alarm()
    with pytest.raises(Stopped):
        function(instance, "spin")()
    assert function(instance, "one")() == 1
    instance.close()


def test_a_signal_comes_out_of_a_loop_within_a_host_function(alarm: Callable[[], object]) -> None:
    instance = instantiate(lambda _: spin())
    spin = function(instance, "spin")
    alarm()
    with pytest.raises(Stopped):
        function(instance, "calls")(1)
    assert function(instance, "one")() == 1
    instance.close()


def test_other_threads_go_on_while_a_guest_is_at_work() -> None:
    instance, other = instantiate(limits=Limits(deadline=1.0)), instantiate()
    kinds, calls = [], 0

    def run() -> None:
        with pytest.raises(Trap) as caught:
            function(instance, "spin")()
        kinds.append(caught.value.kind)

    thread = threading.Thread(target=run)
    thread.start()
    one = function(other, "one")
    while thread.is_alive():
        assert one() == 1
        calls += 1
    thread.join()
    assert kinds == [TrapKind.DEADLINE]
    assert calls > 100
    instance.close()
    other.close()


def test_many_imports_and_parameters() -> None:
    count, params = 130, 20
    types, gets = "i32 " * params, "".join(f"(local.get {i})" for i in range(params))
    imports = "".join(f'(import "h" "f{i}" (func $f{i} (param {types}) (result i64)))' for i in range(count))
    exports = "".join(f'(func (export "f{i}") (param {types}) (result i64) (call $f{i} {gets}))' for i in range(count))
    type = type_of(f"{types}-> i64")
    hosts = [
        HostFunction("h", f"f{i}", type, lambda *values, i=i: i << 40 | sum(v << n for n, v in enumerate(values)))
        for i in range(count)
    ]
    instance = v8().compile(wat(f"(module {imports} {exports})")).instantiate(hosts, Limits())
    wanted = sum(n << n for n in range(params))
    for i in range(count):
        assert function(instance, f"f{i}")(*range(params)) == i << 40 | wanted
    instance.close()


def test_guests_of_one_thread_are_kept_apart() -> None:
    def outer(rest: int) -> int:
        return calls(rest)  # type: ignore[return-value]

    first, second = instantiate(outer), instantiate(lambda rest: rest + 100)
    calls = function(second, "calls")
    assert [function(first, "calls")(3) for _ in range(3)] == [101] * 3
    for instance in (first, second):
        instance.close()


def test_a_guest_that_outlives_its_instance_refuses() -> None:
    instance = v8().compile(wat(TEXT)).instantiate([HostFunction("h", "f", type_of("i32 -> i32"), abs)], Limits())
    one = function(instance, "one")
    del instance
    assert one() == 1


def test_interrupts_that_come_while_a_host_function_looks_at_memory() -> None:
    def look(rest: int) -> int:
        until = time.monotonic() + 0.05
        while time.monotonic() < until:
            instance.memory.refresh()  # type: ignore[union-attr]
        return rest

    instance = instantiate(look, Limits(deadline=0.2))
    for _ in range(2):
        assert function(instance, "calls")(2) == 1
        look(0)
        with pytest.raises(Trap) as caught:
            function(instance, "spin")()
        assert caught.value.kind is TrapKind.DEADLINE
    instance.close()


def test_an_interrupt_that_a_call_has_not_lived_to_see_leaves_later_ones_possible() -> None:
    instance = instantiate(lambda rest: (time.sleep(0.03), rest)[1], Limits(deadline=0.5))
    for _ in range(3):
        assert function(instance, "calls")(1) == 1
    with pytest.raises(Trap) as caught:
        function(instance, "spin")()
    assert caught.value.kind is TrapKind.DEADLINE
    instance.close()


def test_a_full_stack_of_pythons_leaves_nothing_for_the_next_call() -> None:
    """However much of it is left when the guest is entered: what a host function raised comes out of that call."""

    def further(calls: int) -> int:
        return further(calls - 1) if calls else 41

    def at(depth: int) -> object:
        return at(depth - 1) if depth else one()

    text = '(module (import "h" "f" (func $f (result i32))) (func (export "one") (result i32) (i32.add (call $f) (i32.const 1))))'
    module = v8().compile(wat(text))
    functions = [HostFunction("h", "f", type_of("-> i32"), lambda: further(3))]
    one = function(module.instantiate(functions, Limits()), "one")
    limit, results = sys.getrecursionlimit(), set()
    for depth in range(limit - 250, limit):
        try:
            results.add(at(depth))
        except RecursionError:
            results.add(-1)
    assert results == {42, -1}
    assert one() == 42


def test_another_thread_is_refused_a_look_at_memory_while_one_is_inside() -> None:
    def look() -> None:
        with pytest.raises(RuntimeError, match="another thread"):
            instance.memory.refresh()  # type: ignore[union-attr]
        seen.append(True)

    def beside(rest: int) -> int:
        thread = threading.Thread(target=look)
        thread.start()
        thread.join()
        return rest

    seen: list[bool] = []
    instance = instantiate(beside)
    assert function(instance, "calls")(1) == 1
    assert seen == [True]
    instance.close()


def test_what_was_never_made_is_of_no_use() -> None:
    trampolines, affinity = NATIVE.Trampolines.__new__(NATIVE.Trampolines), NATIVE.Affinity.__new__(NATIVE.Affinity)
    for use in (trampolines.shut, lambda: trampolines.guest(("", "")), affinity.enter, lambda: affinity.leave(0)):
        with pytest.raises(RuntimeError):
            use()
    assert affinity.end() is None
