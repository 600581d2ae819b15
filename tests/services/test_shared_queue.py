"""Shared queues."""

from __future__ import annotations

from threading import Thread

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxywasm_host.services import InMemorySharedQueues, QuotaExceeded, UnknownQueue
from proxywasm_host.services.shared_queue import MESSAGE, QUEUE


def nobody(token):
    """Is told."""


def test_tokens_count_from_1():
    queues = InMemorySharedQueues()
    assert [queues.register(vm_id, name, nobody) for vm_id in ("a", "b") for name in (b"x", b"y")] == [1, 2, 3, 4]
    assert queues.register("b", b"x", nobody) == 3
    assert [queues.resolve("a", b"y"), queues.resolve("a", b"z"), queues.resolve("", b"x")] == [2, None, None]


def test_first_in_first_out():
    queues = InMemorySharedQueues()
    token = queues.register("vm", b"q", nobody)
    for message in (b"a", b"", b"c"):
        queues.enqueue(token, message)
    assert [queues.dequeue(token) for _ in range(4)] == [b"a", b"", b"c", None]


def test_the_registrar_is_told_of_each_message():
    queues = InMemorySharedQueues()
    told = []
    token = queues.register("vm", b"q", told.append)
    queues.register("vm", b"other", nobody)
    queues.enqueue(token, b"a")
    queues.enqueue(token, b"b")
    queues.dequeue(token)
    assert told == [token, token]


def test_the_newest_registrar_is_told_and_messages_stay():
    queues = InMemorySharedQueues()
    old, new = [], []
    token = queues.register("vm", b"q", old.append)
    queues.enqueue(token, b"a")
    assert queues.register("vm", b"q", new.append) == token
    queues.enqueue(token, b"b")
    assert (old, new) == ([token], [token])
    assert [queues.dequeue(token), queues.dequeue(token)] == [b"a", b"b"]


def test_who_is_told_may_take_the_message_at_once():
    queues = InMemorySharedQueues()
    taken = []
    token = queues.register("vm", b"q", lambda token: taken.append(queues.dequeue(token)))
    queues.enqueue(token, b"a")
    assert taken == [b"a"]


@pytest.mark.parametrize("call", [lambda queues: queues.enqueue(2, b""), lambda queues: queues.dequeue(2)])
def test_unknown(call):
    queues = InMemorySharedQueues()
    queues.register("vm", b"q", nobody)
    with pytest.raises(UnknownQueue, match=r"^no queue has the token 2$"):
        call(queues)


def test_threads_get_each_message_once():
    queues = InMemorySharedQueues()
    token = queues.register("vm", b"q", nobody)
    taken = [[] for _ in range(4)]

    def put(first):
        for number in range(first, first + 500):
            queues.enqueue(token, b"%d" % number)

    def take(into):
        while len(into) < 500:
            message = queues.dequeue(token)
            if message is not None:
                into.append(int(message))

    threads = [Thread(target=put, args=(500 * i,)) for i in range(4)] + [
        Thread(target=take, args=(into,)) for into in taken
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(number for into in taken for number in into) == list(range(2000))
    assert queues.dequeue(token) is None


LIMIT = 3 * QUEUE
CALLS = st.lists(
    st.tuples(st.sampled_from([1, 2]), st.none() | st.integers(0, QUEUE)),
    max_size=60,
)


@given(CALLS)
def test_what_is_kept_never_exceeds_the_limit_and_nothing_is_lost(calls):
    """As plain lists, whose sizes are looked at before each message; both queues belong to one vm_id."""
    queues = InMemorySharedQueues(LIMIT)
    told = []
    kept = {queues.register("vm", name, told.append): [] for name in (b"p", b"q")}
    for token, size in calls:
        if size is None:
            assert queues.dequeue(token) == (kept[token].pop(0) if kept[token] else None)
            continue
        used = 2 * (QUEUE + 1) + sum(MESSAGE + len(message) for messages in kept.values() for message in messages)
        before = len(told)
        if used + MESSAGE + size > LIMIT:
            with pytest.raises(QuotaExceeded):
                queues.enqueue(token, bytes(size))
            assert len(told) == before
        else:
            queues.enqueue(token, bytes(size))
            kept[token].append(bytes(size))
            assert len(told) == before + 1


def test_queues_cost_room_too_but_not_to_take_one_over():
    queues = InMemorySharedQueues(2 * (QUEUE + 1))
    assert [queues.register("vm", name, nobody) for name in (b"a", b"b", b"b")] == [1, 2, 2]
    with pytest.raises(QuotaExceeded):
        queues.register("vm", b"c", nobody)
    assert queues.resolve("vm", b"c") is None
    assert queues.register("other", b"c", nobody) == 3
