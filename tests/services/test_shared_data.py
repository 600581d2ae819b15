"""Shared data with compare-and-swap."""

from __future__ import annotations

from itertools import count
from threading import Thread

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxywasm_host.services import InMemorySharedData, QuotaExceeded
from proxywasm_host.services.shared_data import ENTRY


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


LIMIT = 4 * ENTRY
SETS = st.lists(
    st.tuples(
        st.sampled_from(["a", "b"]), st.sampled_from([b"k", b"l", b"m", b"n"]), st.integers(0, LIMIT), st.integers(0, 9)
    ),
    max_size=30,
)


@given(SETS)
def test_what_is_kept_never_exceeds_the_limit_and_nothing_is_lost(sets):
    """As a plain dictionary for each vm_id, whose size is looked at before each change."""
    data = InMemorySharedData(LIMIT)
    kept = {"a": {}, "b": {}}
    for vm_id, key, size, cas in sets:
        after = {**kept[vm_id], key: b"x" * size}
        fits = sum(ENTRY + len(key) + len(value) for key, value in after.items()) <= LIMIT
        before = data.get(vm_id, key)
        swaps = not cas or before is None or before[1] == cas
        smaller = before is not None and size <= len(before[0])
        if swaps and not fits and not smaller:
            with pytest.raises(QuotaExceeded):
                data.set(vm_id, key, after[key], cas)
        else:
            assert data.set(vm_id, key, after[key], cas) == swaps
            if swaps:
                kept[vm_id] = after
        for owner, entries in kept.items():
            assert {key: found[0] for key in (b"k", b"l", b"m", b"n") if (found := data.get(owner, key))} == entries


def test_what_is_cleared_is_given_back_and_each_vm_id_has_room_of_its_own():
    data = InMemorySharedData(ENTRY + 2)
    for vm_id in ("vm", "other"):
        data.set(vm_id, b"k", b"v")
        with pytest.raises(QuotaExceeded):
            data.set(vm_id, b"l", b"")
    data.clear("vm")
    assert data.set("vm", b"l", b"v")
    with pytest.raises(QuotaExceeded):
        data.set("other", b"l", b"")


def test_no_limit():
    data = InMemorySharedData(None)
    for number in range(100):
        assert data.set("vm", b"%d" % number, bytes(1 << 20))


def test_what_is_gone_makes_room_and_nothing_else_is_looked_at():
    now = [0.0]
    data = InMemorySharedData(max_bytes=3 * (ENTRY + 2), ttl=10, clock=lambda: now[0])
    for at, key in enumerate((b"a", b"b", b"c", b"a")):  # the first is set again
        now[0] = at
        data.set("vm", key, b"1")
    with pytest.raises(QuotaExceeded):
        data.set("vm", b"d", b"1")
    now[0] = 11.5
    assert data.set("vm", b"d", b"1")
    assert [bool(data.get("vm", key)) for key in (b"a", b"b", b"c", b"d")] == [True, False, True, True]
