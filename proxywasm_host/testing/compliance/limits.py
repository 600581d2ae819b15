"""Limits: a deadline for each outermost call, and a maximum of memory."""

from __future__ import annotations

import threading
import time

import pytest

from proxywasm_host.engine.protocol import Limits, Trap, TrapKind
from proxywasm_host.testing.guest import Guest

from .base import Base, Start, requires

SPIN = """(module (import "h" "pause" (func $pause))
  (memory (export "memory") 1)
  (func $spin (export "spin") (loop $l (br $l)))
  (func (export "one") (result i32) (i32.const 1))
  (func (export "pause_and_spin") (call $pause) (loop $l (br $l)))
  (func (export "calls") (loop $l (call $pause) (br $l))))"""
_GROWS = """(module (memory (export "memory") 2)
  (func (export "grow") (param i32) (result i32) (memory.grow (local.get 0))))"""


class Deadlines(Base):
    """Tests of deadlines."""

    @requires("deadline")
    def test_an_endless_loop_ends_at_the_deadline(self, start: Start) -> None:
        guest = start(SPIN, Limits(deadline=0.1), pause=lambda: None)
        for _ in range(2):
            began = time.monotonic()
            with pytest.raises(Trap) as caught:
                guest("spin")
            assert caught.value.kind is TrapKind.DEADLINE
            assert "0.1 s" in caught.value.message
            assert time.monotonic() - began > 0.09
        assert guest("one") == 1

    @requires("deadline", "backtrace")
    def test_the_backtrace_says_where_it_was(self, start: Start) -> None:
        with pytest.raises(Trap) as caught:
            start(SPIN, Limits(deadline=0.05), pause=lambda: None)("spin")
        assert [frame.function for frame in caught.value.frames] == ["spin"]

    @requires("deadline")
    def test_a_loop_around_calls_of_the_host_ends_as_well(self, start: Start) -> None:
        guest: Guest = start(SPIN, Limits(deadline=0.05), pause=lambda: guest("one"))
        with pytest.raises(Trap) as caught:
            guest("calls")
        assert caught.value.kind is TrapKind.DEADLINE

    @requires("deadline")
    def test_a_guest_within_a_guest_is_stopped_by_the_deadline_of_the_outer_call(self, start: Start) -> None:
        guest: Guest = start(SPIN, Limits(deadline=0.05), pause=lambda: guest("spin"))
        with pytest.raises(Trap) as caught:
            guest("calls")
        assert caught.value.kind is TrapKind.DEADLINE
        assert guest("one") == 1

    @requires("deadline")
    def test_another_instance_goes_on_meanwhile(self, start: Start) -> None:
        stopped, free = (start(SPIN, limits, pause=lambda: None) for limits in (Limits(deadline=0.2), Limits()))
        kinds = []

        def run() -> None:
            try:
                stopped("spin")
            except Trap as trap:
                kinds.append(trap.kind)

        thread = threading.Thread(target=run)
        thread.start()
        calls = 0
        while thread.is_alive():
            assert free("one") == 1
            calls += 1
        thread.join()
        assert kinds == [TrapKind.DEADLINE]
        assert calls > 10

    @requires("deadline")
    def test_a_short_call_after_a_long_rest_is_not_stopped(self, start: Start) -> None:
        guest = start(SPIN, Limits(deadline=0.05), pause=lambda: None)
        assert guest("one") == 1
        time.sleep(0.2)
        assert guest("one") == 1


class MemoryLimits(Base):
    """Tests of the memory limit."""

    @requires("memory_limit")
    def test_growth_beyond_it_answers_minus_one(self, start: Start) -> None:
        guest = start(_GROWS, Limits(memory=4 * 65536))
        assert [guest("grow", 3), guest("grow", 2), guest("grow", 1)] == [0xFFFFFFFF, 2, 0xFFFFFFFF]

    @requires("memory_limit")
    def test_part_of_a_page_does_not_count(self, start: Start) -> None:
        guest = start(_GROWS, Limits(memory=3 * 65536 + 65535))
        assert [guest("grow", 2), guest("grow", 1), guest("grow", 1)] == [0xFFFFFFFF, 2, 0xFFFFFFFF]

    @requires("memory_limit")
    def test_it_holds_for_one_instance_and_not_for_another(self, start: Start) -> None:
        first, second = (start(_GROWS, limits) for limits in (Limits(memory=2 * 65536), Limits()))
        assert [first("grow", 1), second("grow", 1)] == [0xFFFFFFFF, 2]

    @requires("memory_limit")
    def test_a_module_that_begins_beyond_it_is_not_started(self, start: Start) -> None:
        with pytest.raises(Trap) as caught:
            start(_GROWS, Limits(memory=65536))
        assert caught.value.kind is TrapKind.MEMORY_LIMIT
