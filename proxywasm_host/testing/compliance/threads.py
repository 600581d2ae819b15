"""Threads: one instance each, and the error for a second thread inside an instance."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

from proxywasm_host.engine.protocol import Engine, HostFunction, Limits, Trap, TrapKind
from proxywasm_host.testing.guest import Guest, type_of

from .assembled import wasm
from .base import Base, Start, requires
from .limits import SPIN

_ASK = """(module (import "h" "ask" (func $ask (param i32) (result i32)))
  (func (export "run") (param i32) (result i32) (call $ask (local.get 0)))
  (func (export "one") (result i32) (i32.const 1)))"""


PATIENCE = 30.0
"""Seconds for a call on another thread."""


def _on_a_thread(run: Callable[[], object]) -> list[BaseException]:
    """Run a function on another thread, and wait for it.

    Returns the exception that it raised, if any; TimeoutError, if it waits for this thread.
    """
    raised: list[BaseException] = []

    def work() -> None:
        try:
            run()
        except BaseException as error:  # noqa: BLE001 - the caller examines it
            raised.append(error)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(PATIENCE)
    return [TimeoutError("the call waits for another thread")] if thread.is_alive() else raised


class Threads(Base):
    """Tests of threads."""

    def test_threads_work_with_an_instance_each(self, engine: Engine) -> None:
        module = engine.compile(wasm(_ASK))
        wrong: list[int] = []

        def work(number: int) -> None:
            instance = module.instantiate(
                [HostFunction("h", "ask", type_of("i32 -> i32"), lambda value: value + number)], Limits()
            )
            run = instance.function("run")
            assert run is not None
            wrong.extend(i for i in range(300) if run(i) != i + number)
            instance.close()

        threads = [threading.Thread(target=work, args=(number,), daemon=True) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(PATIENCE)
            assert not thread.is_alive()
        assert wrong == []

    def test_threads_take_turns_in_one_instance(self, start: Start) -> None:
        guest = start(_ASK, ask=lambda value: value)
        for _ in range(20):
            assert _on_a_thread(lambda: guest("run", 3)) == []
            assert guest("run", 4) == 4

    def test_a_second_thread_is_refused_while_a_host_function_runs(self, start: Start) -> None:
        refusals: list[BaseException] = []

        def ask(value: int) -> int:
            refusals.extend(_on_a_thread(lambda: guest("one")))
            refusals.extend(_on_a_thread(guest.instance.close))
            assert guest("one") == 1
            return value

        guest: Guest = start(_ASK, ask=ask)
        assert guest("run", 5) == 5
        assert [type(error) for error in refusals] == [RuntimeError] * 2
        assert all("another thread" in str(error) for error in refusals)
        assert guest("one") == 1

    @requires("deadline")
    def test_a_second_thread_is_refused_while_the_guest_runs(self, start: Start) -> None:
        inside = threading.Event()
        guest = start(SPIN, Limits(deadline=0.5), pause=inside.set)
        ended: list[TrapKind] = []

        def run() -> None:
            with pytest.raises(Trap) as caught:
                guest("pause_and_spin")
            ended.append(caught.value.kind)

        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        assert inside.wait(PATIENCE)
        with pytest.raises(RuntimeError, match="another thread"):
            guest("one")
        with pytest.raises(RuntimeError, match="another thread"):
            guest.close()
        thread.join(PATIENCE)
        assert ended == [TrapKind.DEADLINE]
        assert guest("one") == 1
