"""Shared data and queues, as guests see them. ``[1]`` is a refusal with status 1."""

from __future__ import annotations

import pytest

from proxywasm_host.abi.hostcalls.shared import (
    proxy_dequeue_shared_queue,
    proxy_enqueue_shared_queue,
    proxy_get_shared_data,
    proxy_register_shared_queue,
    proxy_resolve_shared_queue,
    proxy_set_shared_data,
)
from proxywasm_host.services import InMemorySharedData, InMemorySharedQueues, QuotaExceeded
from tests.abi.fakes import FakeVm, answer

SET, GET = proxy_set_shared_data, proxy_get_shared_data

DATA = {
    "absent": [(GET, b"k", [1])],
    "set and get": [(SET, b"k", b"v", 0, None), (GET, b"k", (b"v", 1))],
    "nothing as value": [(SET, b"k", b"", 0, None), (GET, b"k", (b"", 1))],
    "nothing as key": [(SET, b"", b"v", 0, None), (GET, b"", (b"v", 1))],
    "another key": [(SET, b"k", b"v", 0, None), (GET, b"K", [1])],
    "the number counts": [(SET, b"k", b"1", 0, None), (SET, b"k", b"2", 0, None), (GET, b"k", (b"2", 2))],
    "the right number": [(SET, b"k", b"1", 0, None), (SET, b"k", b"2", 1, None), (GET, b"k", (b"2", 2))],
    "an old number": [
        (SET, b"k", b"1", 0, None),
        (SET, b"k", b"2", 0, None),
        (SET, b"k", b"3", 1, [8]),
        (GET, b"k", (b"2", 2)),
    ],
    "a number of the future": [(SET, b"k", b"1", 0, None), (SET, b"k", b"3", 7, [8]), (GET, b"k", (b"1", 1))],
    "any number, if absent": [(SET, b"k", b"1", 7, None), (GET, b"k", (b"1", 1))],
}


@pytest.mark.parametrize("calls", DATA.values(), ids=DATA)
def test_data(calls):
    vm = FakeVm()
    for call, *args, expected in calls:
        assert answer(call(vm, *args)) == expected


def test_data_belongs_to_the_vm_id():
    one = FakeVm()
    same, other = (FakeVm(shared_data=one.services.shared_data) for _ in range(2))
    other.vm_id = "other"
    SET(one, b"k", b"v", 0)
    assert [answer(GET(vm, b"k")) for vm in (one, same, other)] == [(b"v", 1), (b"v", 1), [1]]


def test_reasons():
    vm = FakeVm()
    assert GET(vm, b"k").reason == "no shared data under 'k' for vm_id 'vm'"
    SET(vm, b"k", b"", 0)
    assert SET(vm, b"k", b"", 9).reason == "shared data under 'k' has changed since CAS 9"
    assert proxy_resolve_shared_queue(vm, b"v", b"q").reason == "no queue 'q' was registered for vm_id 'v'"
    assert proxy_dequeue_shared_queue(vm, 9).reason == "no queue has the token 9"
    assert proxy_enqueue_shared_queue(vm, 9, b"").reason == "no queue has the token 9"


def test_a_queue_is_registered_by_the_root_context():
    vm = FakeVm()
    vm.root.answer = 5
    assert proxy_register_shared_queue(vm, b"q") == 5
    assert (vm.root.started, vm.stream.started) == ([("queue", b"q")], [])


def with_queue() -> FakeVm:
    """A VM whose vm_id has a queue ``q`` of token 1; another has one of token 2."""
    vm = FakeVm()
    queues = vm.services.shared_queues
    assert queues.register("vm", b"q", lambda _: None) == 1
    assert queues.register("\udcff", b"q", lambda _: None) == 2
    return vm


RESOLVE = [
    # vm_id, name → token
    (b"vm", b"q", 1),
    (b"", b"q", 1),
    (b"\xff", b"q", 2),
    (b"vm", b"other", [1]),
    (b"other", b"q", [1]),
    (b"", b"", [1]),
]


@pytest.mark.parametrize(("vm_id", "name", "token"), RESOLVE)
def test_resolve(vm_id, name, token):
    assert answer(proxy_resolve_shared_queue(with_queue(), vm_id, name)) == token


IN, OUT = proxy_enqueue_shared_queue, proxy_dequeue_shared_queue

QUEUES = {
    "empty": [(OUT, 1, [7])],
    "first in, first out": [
        (IN, 1, b"a", None),
        (IN, 1, b"b", None),
        (OUT, 1, b"a"),
        (OUT, 1, b"b"),
        (OUT, 1, [7]),
    ],
    "a message of nothing": [(IN, 1, b"", None), (OUT, 1, b""), (OUT, 1, [7])],
    "another VM's": [(IN, 2, b"a", None), (OUT, 1, [7]), (OUT, 2, b"a")],
    "unknown": [(IN, 3, b"a", [1]), (OUT, 3, [1]), (IN, 0, b"a", [1]), (OUT, 0, [1])],
}


@pytest.mark.parametrize("calls", QUEUES.values(), ids=QUEUES)
def test_queues(calls):
    vm = with_queue()
    for call, *args, expected in calls:
        assert answer(call(vm, *args)) == expected


def test_shared_data_that_there_is_no_room_for():
    vm = FakeVm(shared_data=InMemorySharedData(max_bytes=300))
    assert SET(vm, b"k", b"v", 0) is None
    with pytest.raises(QuotaExceeded, match="data of vm_id 'vm' have 258 bytes, 258 more would be beyond the limit of 300"):
        SET(vm, b"l", b"v", 0)
    assert [answer(GET(vm, b"k")), answer(GET(vm, b"l"))] == [(b"v", 1), [1]]


def test_a_message_that_there_is_no_room_for():
    vm = FakeVm(shared_queues=InMemorySharedQueues(max_bytes=2200))
    vm.services.shared_queues.register("vm", b"q", lambda _: None)
    assert IN(vm, 1, b"a" * 80) is None
    with pytest.raises(QuotaExceeded, match="of vm_id 'vm' have 2193 bytes, 65 more would be beyond the limit of 2200"):
        IN(vm, 1, b"b")
    assert [answer(OUT(vm, 1)), answer(OUT(vm, 1))] == [b"a" * 80, [7]]
    assert IN(vm, 1, b"b") is None
