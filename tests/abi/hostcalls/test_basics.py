"""Logging, time, the status of the last callout, ticks."""

from __future__ import annotations

import pytest

from proxywasm_host.abi.hostcalls.basics import (
    emscripten_notify_memory_growth,
    proxy_get_current_time_nanoseconds,
    proxy_get_log_level,
    proxy_get_status,
    proxy_log,
    proxy_set_tick_period_milliseconds,
    pthread_equal,
)
from proxywasm_host.services import ManualClock
from tests.abi.fakes import FakeVm, answer
from tests.support import Lines


@pytest.mark.parametrize("message", [b"hello", b"", b"\xff\0 two\nlines"])
def test_log(message):
    vm = FakeVm()
    assert proxy_log(vm, 3, message) is None
    assert vm.logged == [(3, message)]


def test_log_level_is_that_of_the_sink():
    vm = FakeVm(log=Lines())
    assert proxy_get_log_level(vm) == 0
    vm.services.log.level = 4
    assert proxy_get_log_level(vm) == 4


def test_time():
    clock = ManualClock(time_ns=5)
    vm = FakeVm(clock=clock)
    assert proxy_get_current_time_nanoseconds(vm) == 5
    clock.advance(2)
    assert proxy_get_current_time_nanoseconds(vm) == 2_000_000_005


STATUSES = {
    "none yet": ((0, b""), (0, b"")),
    "of an HTTP callout": ((11, b"reset"), (11, b"reset")),
    "of a gRPC callout": ((16, b"who?"), (16, b"who?")),
    "a negative one": ((-1, b""), (0xFFFFFFFF, b"")),
    "one of more than 32 bits": ((1 << 32 | 7, b""), (7, b"")),
}


@pytest.mark.parametrize(("status", "told"), STATUSES.values(), ids=STATUSES)
def test_status_is_the_root_contexts(status, told):
    vm = FakeVm()
    vm.root.status = status
    vm.stream.status = (99, b"not asked for")
    assert proxy_get_status(vm) == told


@pytest.mark.parametrize("effective", ["root", "stream"])
@pytest.mark.parametrize("period", [0, 1, 0xFFFFFFFF])
def test_ticks_are_the_root_contexts(effective, period):
    vm = FakeVm()
    vm.context = getattr(vm, effective)
    assert proxy_set_tick_period_milliseconds(vm, period) is None
    assert (vm.root.started, vm.stream.started) == ([("tick", period)], [])


@pytest.mark.parametrize(("left", "right", "equal"), [(1, 1, [1]), (0, 0, [1]), (1, 2, None)])
def test_pthread_equal(left, right, equal):
    assert answer(pthread_equal(FakeVm(), left, right)) == equal


def test_memory_growth_is_no_news():
    assert emscripten_notify_memory_growth(FakeVm(), 0) is None
