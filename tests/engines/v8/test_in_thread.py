"""What is particular to V8 in the calling thread: handles, deadlines, what it rests on."""

from __future__ import annotations

import os
import threading
import time

import pytest

from proxywasm_engine_v8 import reservation
from proxywasm_engine_v8.in_thread.deadline import TICK
from proxywasm_host.engine.protocol import Limits, Trap, TrapKind

from .support import function, instantiate, run, take_way, v8


@pytest.fixture(autouse=True, params=["C", "ctypes"])
def _way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    take_way(request.param, monkeypatch)


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


class TestDeadline:
    def threads(self) -> int:
        native = v8().route.native  # type: ignore[attr-defined]
        if native is not None:
            return int(native.is_ticking())
        return len([thread for thread in threading.enumerate() if "deadlines" in thread.name])

    def test_the_thread_runs_only_while_there_is_something_to_watch(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("proxywasm_engine_v8.in_thread.deadline._QUIET_TICKS", 3)
        while self.threads():
            time.sleep(TICK)
        instance = instantiate(limits=Limits(deadline=1))
        for _ in range(2):
            assert function(instance, "one")() == 1
            assert self.threads() == 1
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


class TestMemory:
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


class TestFork:
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
                v8().compile(wat("(module)")).instantiate([], Limits()).close()
                os._exit(0)
            print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), function(guest, "one")())
        """)
        assert (done.stdout, done.stderr, done.returncode) == ("0 1\n", "", 0)

    @pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
    def test_no_child_process_is_made_while_v8_is_asked_for_an_interrupt(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """It would find a lock of V8's taken, by a thread that it does not have."""
        take_way("ctypes", monkeypatch)
        done = run("""
            import threading
            from proxywasm_engine_v8.in_thread.deadline import Watch

            guest, begun, told, ask = instantiate(limits=Limits(deadline=1.0)), threading.Event(), [], Watch.ask

            def slow(watch):
                begun.set()
                time.sleep(0.2)
                ask(watch)
                told.append("asked")

            Watch.ask = slow
            calls = threading.Thread(target=lambda: function(guest, "calls")(20_000_000), daemon=True)
            calls.start()
            begun.wait()
            child = os.fork()
            if not child:
                print(told, flush=True)
                os._exit(0)
            os.waitpid(child, 0)
            os._exit(0)
        """)
        assert (done.stdout, done.stderr, done.returncode) == ("['asked']\n", "", 0)
