"""Shared data with compare-and-swap."""

from __future__ import annotations

from itertools import count
from threading import Thread

from proxywasm_host.services import InMemorySharedData


def test_absent():
    assert InMemorySharedData().get("vm", b"k") is None


def test_numbers_count_over_all_keys():
    data = InMemorySharedData()
    assert data.set("vm", b"a", b"1")
    assert data.set("vm", b"b", b"2")
    assert data.set("other", b"a", b"3")
    assert [data.get("vm", b"a"), data.get("vm", b"b"), data.get("other", b"a")] == [(b"1", 1), (b"2", 2), (b"3", 3)]


def test_compare_and_swap():
    data = InMemorySharedData()
    assert data.set("vm", b"k", b"created", cas=99)
    assert not data.set("vm", b"k", b"lost", cas=99)
    assert data.get("vm", b"k") == (b"created", 1)
    assert data.set("vm", b"k", b"swapped", cas=1)
    assert not data.set("vm", b"k", b"lost", cas=1)
    assert data.set("vm", b"k", b"forced", cas=0)
    assert data.get("vm", b"k") == (b"forced", 3)


def test_numbers_have_32_bits_and_are_never_0():
    data = InMemorySharedData()
    data._cas = count(0xFFFFFFFF)
    numbers = []
    for _ in range(3):
        data.set("vm", b"k", b"")
        numbers.append(data.get("vm", b"k")[1])
    assert numbers == [0xFFFFFFFF, 1, 2]


def test_clear():
    data = InMemorySharedData()
    data.set("vm", b"k", b"")
    data.set("other", b"k", b"")
    data.clear("vm")
    data.clear("no such")
    assert data.get("vm", b"k") is None
    assert data.get("other", b"k") == (b"", 2)


def test_threads_lose_no_swap():
    data = InMemorySharedData()
    data.set("vm", b"k", b"0")

    def count_up():
        for _ in range(500):
            while True:
                value, cas = data.get("vm", b"k")
                if data.set("vm", b"k", b"%d" % (int(value) + 1), cas):
                    break

    threads = [Thread(target=count_up) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert data.get("vm", b"k") == (b"4000", 4001)
