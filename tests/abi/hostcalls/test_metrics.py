"""Metrics. ``[2]`` is a refusal with status 2."""

from __future__ import annotations

import pytest

from proxywasm_host.abi.hostcalls.metrics import (
    MANY,
    proxy_define_metric,
    proxy_get_metric,
    proxy_increment_metric,
    proxy_record_metric,
)
from proxywasm_host.abi.profile import ENVOY, SPEC
from proxywasm_host.services import InMemoryMetrics, QuotaExceeded
from tests.abi.fakes import FakeVm, answer

COUNTER, GAUGE, HISTOGRAM = range(3)


@pytest.fixture
def vm():
    """A VM that has defined a counter (4), a gauge (5) and a histogram (6)."""
    return defined(ENVOY)


def defined(profile) -> FakeVm:
    vm = FakeVm(profile=profile)
    assert [proxy_define_metric(vm, kind, b"m") for kind in (COUNTER, GAUGE, HISTOGRAM)] == [4, 5, 6]
    return vm


def test_ids_tell_the_kind_and_count_in_steps_of_four(vm):
    more = [proxy_define_metric(vm, kind, name) for name in (b"n", b"o") for kind in (COUNTER, GAUGE, HISTOGRAM)]
    assert more == [8, 9, 10, 12, 13, 14]


def test_to_define_again_gives_another_id_of_the_same_metric(vm):
    again = proxy_define_metric(vm, COUNTER, b"m")
    assert again == 8
    proxy_increment_metric(vm, 4, 5)
    assert proxy_get_metric(vm, again) == 5


def test_ids_do_not_become_more_for_ever(vm):
    last = [proxy_define_metric(vm, COUNTER, b"m") for _ in range(MANY + 10)][-1]
    assert (last, len(vm.metrics[COUNTER][0]), len(vm.metrics[COUNTER][1])) == (4 * MANY, MANY, 1)
    assert [proxy_define_metric(vm, COUNTER, name) for name in (b"m", b"n", b"n")] == [last, last + 4, last + 4]
    for metric in (4, 8, last):
        proxy_increment_metric(vm, metric, 1)
    assert (proxy_get_metric(vm, last), proxy_get_metric(vm, last + 4)) == (3, 0)


def test_a_metric_that_there_is_no_room_for():
    vm = FakeVm(metrics=InMemoryMetrics(max_bytes=400))
    assert proxy_define_metric(vm, COUNTER, b"m") == 4
    with pytest.raises(QuotaExceeded, match=r"^the metrics have (\d+) bytes, \1 more would be beyond the limit of 400$"):
        proxy_define_metric(vm, GAUGE, b"m")
    assert answer(proxy_record_metric(vm, 5, 1)) == [1]
    proxy_increment_metric(vm, 4, 2)
    assert (proxy_define_metric(vm, COUNTER, b"m"), proxy_get_metric(vm, 4)) == (8, 2)


def test_metrics_of_one_kind_are_told_apart(vm):
    for name in (b"n", b"o"):
        proxy_define_metric(vm, GAUGE, name)
    for metric in (5, 9, 13):
        proxy_record_metric(vm, metric, metric)
    assert vm.services.metrics.values == {(COUNTER, "m"): 0, (GAUGE, "m"): 5, (GAUGE, "n"): 9, (GAUGE, "o"): 13}
    assert [proxy_get_metric(vm, metric) for metric in (5, 9, 13)] == [5, 9, 13]


def test_a_defined_metric_is_known_outside(vm):
    assert vm.services.metrics.values == {(COUNTER, "m"): 0, (GAUGE, "m"): 0}
    assert vm.services.metrics.samples == {"m": []}


def test_a_name_that_is_no_utf_8(vm):
    assert proxy_define_metric(vm, COUNTER, b"\xff") == 8
    assert vm.services.metrics.values[COUNTER, "\ufffd"] == 0


CALLS = {
    # calls → answers; what counter and gauge are, and the histogram's samples
    "increment a counter": ([(proxy_increment_metric, 4, 1), (proxy_increment_metric, 4, 2)], [None, None], (3, 0, [])),
    "increment it by nothing": ([(proxy_increment_metric, 4, 0)], [[2]], (0, 0, [])),
    "decrement it": ([(proxy_increment_metric, 4, -1)], [[2]], (0, 0, [])),
    "record a counter": ([(proxy_record_metric, 4, 5), (proxy_record_metric, 4, 2)], [None, None], (7, 0, [])),
    "increment a gauge": ([(proxy_increment_metric, 5, 7), (proxy_increment_metric, 5, -2)], [None, None], (0, 5, [])),
    "increment it by nothing too": ([(proxy_increment_metric, 5, 0)], [None], (0, 0, [])),
    "record a gauge": ([(proxy_record_metric, 5, 7), (proxy_record_metric, 5, 2)], [None, None], (0, 2, [])),
    "increment a histogram": ([(proxy_increment_metric, 6, 1)], [[2]], (0, 0, [])),
    "record a histogram": ([(proxy_record_metric, 6, 7), (proxy_record_metric, 6, 2)], [None, None], (0, 0, [7, 2])),
    "increment what is unknown": (
        [(proxy_increment_metric, id, 1) for id in (0, 8, 9, 10, 11)],
        [[1], [1], [1], [2], [2]],
        (0, 0, []),
    ),
    "decrement what is unknown": ([(proxy_increment_metric, id, -1) for id in (8, 9)], [[2], [1]], (0, 0, [])),
    "record what is unknown": ([(proxy_record_metric, id, 1) for id in (0, 8, 9, 10, 11)], [[1]] * 5, (0, 0, [])),
}


@pytest.mark.parametrize(("calls", "answers", "state"), CALLS.values(), ids=CALLS)
def test_calls(vm, calls, answers, state):
    assert [answer(call(vm, *args)) for call, *args in calls] == answers
    metrics = vm.services.metrics
    assert (metrics.values[COUNTER, "m"], metrics.values[GAUGE, "m"], metrics.samples["m"]) == state


def test_a_counter_that_cannot_be_recorded():
    vm = defined(SPEC)
    assert answer(proxy_record_metric(vm, 4, 5)) == [2]
    assert [proxy_record_metric(vm, 5, 5), proxy_record_metric(vm, 6, 5)] == [None, None]
    assert vm.services.metrics.values == {(COUNTER, "m"): 0, (GAUGE, "m"): 5}


GET = {
    # what happened before, id → value
    "a new counter": ([], 4, 0),
    "a counter": ([(proxy_increment_metric, 4, 3)], 4, 3),
    "a gauge": ([(proxy_record_metric, 5, 3)], 5, 3),
    "a gauge below 0 is a number of 64 bits": ([(proxy_increment_metric, 5, -1)], 5, (1 << 64) - 1),
    "a counter beyond 64 bits begins again": ([(proxy_record_metric, 4, (1 << 64) - 1)] * 2, 4, (1 << 64) - 2),
    "a histogram": ([], 6, [2]),
    "an unknown counter": ([], 8, [1]),
    "an unknown gauge": ([], 9, [1]),
    "an unknown histogram": ([], 10, [2]),
    "of no kind": ([], 7, [2]),
    "0": ([], 0, [1]),
}


@pytest.mark.parametrize(("before", "metric", "value"), GET.values(), ids=GET)
def test_get(vm, before, metric, value):
    for call, *args in before:
        call(vm, *args)
    assert answer(proxy_get_metric(vm, metric)) == value


REASONS = [
    (lambda vm: proxy_get_metric(vm, 8), "no metric has the id 8"),
    (lambda vm: proxy_get_metric(vm, 6), "metric 6 is a histogram, which has no single value"),
    (lambda vm: proxy_increment_metric(vm, 6, 1), "metric 6 is a histogram: it cannot be incremented, only recorded"),
    (lambda vm: proxy_increment_metric(vm, 4, -2), "counter 4 cannot shrink: -2 was added"),
]


@pytest.mark.parametrize(("call", "reason"), REASONS, ids=[reason for _, reason in REASONS])
def test_reason(vm, call, reason):
    assert call(vm).reason == reason


def test_reason_of_the_specification():
    assert proxy_record_metric(defined(SPEC), 4, 1).reason == "counter 'm' can be incremented, but not set"


def test_vms_share_what_has_one_name():
    one = FakeVm()
    other = FakeVm(metrics=one.services.metrics)
    for vm in (one, other):
        proxy_increment_metric(vm, proxy_define_metric(vm, COUNTER, b"m"), 2)
    assert proxy_get_metric(one, 4) == 4


def test_very_many_metrics(vm):
    """Looking through all of them for each new one would take a minute here."""
    ids = [proxy_define_metric(vm, GAUGE, b"%d" % i) for i in range(20_000)]
    assert ids == list(range(9, 9 + 4 * 20_000, 4))
