"""Behaviour particular to V8 on separate threads: values, turns, forks."""

from __future__ import annotations

import gc
import os
import resource
import signal
import threading
import time
from collections.abc import Callable

import pytest

from proxywasm_engine_v8 import reservation
from proxywasm_host.engine.protocol import Instance, Limits, Trap, TrapKind

from .support import function, instantiate, run, take_way


@pytest.fixture(autouse=True)
def _route(monkeypatch: pytest.MonkeyPatch) -> None:
    take_way("mini-racer", monkeypatch)


def values(instance: Instance) -> int:
    """How many values mini-racer keeps for `instance`."""
    thread = instance._isolate.thread  # type: ignore[attr-defined]
    count: int = thread._library.value_count(thread.context)
    return count


class TestValues:
    def test_none_are_left_by_calls(self) -> None:
        instance = instantiate(lambda rest: rest + one() - 1)
        one, calls = function(instance, "one"), function(instance, "calls")
        before = values(instance)
        for _ in range(50):
            assert calls(20) == 1
        assert values(instance) == before
        instance.close()

    def test_none_are_left_by_failures(self) -> None:
        instance = instantiate(lambda rest: rest // 0, Limits(deadline=0.02))
        before = values(instance)
        for _ in range(5):
            with pytest.raises(ZeroDivisionError):
                function(instance, "calls")(1)
            for name, arguments, kind in (
                ("spin", (), TrapKind.DEADLINE),
                ("recurse", (0,), TrapKind.STACK_OVERFLOW),
            ):
                with pytest.raises(Trap) as caught:
                    function(instance, name)(*arguments)
                assert caught.value.kind is kind
        assert values(instance) == before
        instance.close()

    def test_a_loop_around_calls_of_the_host_cannot_fill_the_heap(self) -> None:
        instance = instantiate()
        function(instance, "calls")(1000)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        function(instance, "calls")(20_000)
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 16 << 10
        instance.close()


class TestTurns:
    def test_host_functions_run_on_the_calling_thread(self) -> None:
        seen = []

        def handler(rest: int) -> int:
            seen.append(threading.current_thread())
            return function(instance, "one")() and rest

        instance = instantiate(handler)
        thread = threading.Thread(target=function(instance, "calls"), args=(2,))
        thread.start()
        thread.join()
        function(instance, "calls")(1)
        assert seen == [thread, thread, threading.current_thread()]
        instance.close()

    def test_a_deadline_that_a_host_function_exceeds(self) -> None:
        waited = threading.Event()
        instance = instantiate(lambda rest: (waited.wait(0.1), rest)[1], Limits(deadline=0.05))
        with pytest.raises(Trap) as caught:
            function(instance, "calls")(1 << 30)
        assert caught.value.kind is TrapKind.DEADLINE
        assert function(instance, "one")() == 1
        instance.close()

    def test_time_that_others_had_is_not_the_guests(self) -> None:
        """A crossing waits for the GIL as long as another thread has it; here for nothing at all, which is the same."""
        waits = [0.08, 0.08]
        instance = instantiate(lambda rest: (time.sleep(waits.pop()), rest)[1], Limits(deadline=0.1))
        assert function(instance, "calls")(2) == 1
        assert waits == []
        with pytest.raises(Trap) as caught:
            function(instance, "spin")()
        assert caught.value.kind is TrapKind.DEADLINE
        instance.close()

    def test_one_that_is_caught_is_over_all_the_same(self) -> None:
        kinds: list[TrapKind] = []

        def handler(rest: int) -> int:
            for call in (spin, one):
                with pytest.raises(Trap) as caught:
                    call()
                kinds.append(caught.value.kind)
            return rest

        instance = instantiate(handler, Limits(deadline=0.05))
        spin, one = function(instance, "spin"), function(instance, "one")
        with pytest.raises(Trap) as caught:
            function(instance, "calls")(1 << 30)
        assert [*kinds, caught.value.kind] == [TrapKind.DEADLINE] * 3
        assert one() == 1
        instance.close()

    def test_a_host_function_that_goes_on_after_an_interrupt(self) -> None:
        def handler(rest: int) -> int:
            with pytest.raises(KeyboardInterrupt):
                interrupted()
            with pytest.raises(Trap, match="a signal handler"):
                function(instance, "one")()
            return rest

        instance = instantiate(handler)
        interrupted = interrupt(instance)
        with pytest.raises(Trap, match="a signal handler") as caught:
            function(instance, "calls")(1)
        assert caught.value.kind is TrapKind.OTHER
        assert function(instance, "one")() == 1
        instance.close()


def interrupt(instance: Instance) -> Callable[[], object]:
    """A call of ``spin`` that a signal comes into."""

    def call() -> object:
        def handler(*_: object) -> None:
            raise KeyboardInterrupt

        before = signal.signal(signal.SIGALRM, handler)
        signal.setitimer(signal.ITIMER_REAL, 0.05)
        try:
            return function(instance, "spin")()
        finally:
            signal.signal(signal.SIGALRM, before)

    return call


class TestMemory:
    def test_without_room_to_reserve_it_is_refused(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(reservation, "_SHARE", 0)
        gc.collect()
        before = reservation._reserved
        with pytest.raises(Trap, match="set a lower limit") as caught:
            instantiate()
        assert caught.value.kind is TrapKind.MEMORY_LIMIT
        del caught
        gc.collect()
        assert reservation._reserved == before


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
class TestFork:
    def test_a_child_process_makes_its_own_instances(self) -> None:
        done = run("""
            engine = v8()
            module = engine.compile(wat(TEXT))
            hosts = [HostFunction("h", "f", type_of("i32 -> i32"), abs)]
            guest = module.instantiate(hosts, Limits())
            function(guest, "one")()
            child = os.fork()
            if not child:
                signal.alarm(20)
                for attempt in range(2):
                    try:
                        function(guest, "calls")(1)
                    except RuntimeError as error:
                        print(error)
                guest.close()
                del guest
                again = module.instantiate(hosts, Limits(deadline=0.1))
                print(function(again, "calls")(3))
                try:
                    function(again, "spin")()
                except Trap as trap:
                    print(trap)
                again.close()
                print(function(engine.compile(wat(TEXT)).instantiate(hosts, Limits()), "one")(), flush=True)
                os._exit(0)
            print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), function(guest, "one")())
        """)
        sentence = (
            "this instance was made before the process forked, and V8's thread did not come along: "
            "load the filter in the child process, after the fork"
        )
        assert (done.stdout.splitlines(), done.stderr) == (
            [sentence, sentence, "1", "deadline of 0.1 s exceeded", "1", "0 1"],
            "",
        )

    def test_a_child_process_lets_go_of_a_module(self) -> None:
        done = run("""
            import gc
            from proxywasm_engine_v8.mini_racer.thread import V8Thread
            module = v8().compile(wat(TEXT))
            child = os.fork()
            if not child:
                signal.alarm(20)
                V8Thread.free = lambda self, handle: print("given to a thread that is not there")
                del module
                gc.collect()
                print("gone", flush=True)
                os._exit(0)
            print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), type(module).__name__)
        """)
        assert (done.stdout.splitlines(), done.stderr) == (["gone", "0 V8Module"], "")

    def test_a_fork_within_a_host_function(self) -> None:
        done = run("""
            def handler(rest):
                global child
                child = os.fork()
                return rest

            guest = instantiate(handler)
            try:
                result = function(guest, "calls")(1)
            except RuntimeError as error:
                print(error, flush=True)
                os._exit(7)
            print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), result, function(guest, "one")())
        """)
        told, parent = done.stdout.splitlines()
        assert "forked" in told
        assert (parent, done.stderr) == ("7 1 1", "")
