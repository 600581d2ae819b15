"""Clocks."""

from __future__ import annotations

import time

import pytest

from proxywasm_host.services import ManualClock, SystemClock


def test_the_machines_clock():
    clock = SystemClock()
    before = time.time_ns(), time.monotonic_ns()
    seen = clock.time_ns(), clock.monotonic_ns()
    after = time.time_ns(), time.monotonic_ns()
    assert before <= seen
    assert before[1] <= seen[1] <= after[1]
    assert abs(seen[0] - after[0]) < 60 * 10**9


def test_a_manual_clock_stands_still():
    clock = ManualClock()
    assert [clock.time_ns(), clock.time_ns()] == [1_700_000_000_000_000_000] * 2
    assert [clock.monotonic_ns(), clock.monotonic_ns()] == [1_000_000_000] * 2


@pytest.mark.parametrize(("seconds", "nanoseconds"), [(0, 0), (1, 10**9), (0.25, 250_000_000), (3600, 36 * 10**11)])
def test_a_manual_clock_goes_on(seconds, nanoseconds):
    clock = ManualClock(time_ns=5)
    clock.advance(seconds)
    clock.advance(1)
    assert clock.time_ns() == 5 + nanoseconds + 10**9
    assert clock.monotonic_ns() == nanoseconds + 2 * 10**9
