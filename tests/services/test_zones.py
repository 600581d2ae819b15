"""Zones of shared memory as ngx_wasm_module has them: which zone a key is in, and what a full one forgets."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxywasm_host import Host
from proxywasm_host.services import QuotaExceeded, UnknownZone, Zone, ZonedSharedData, ZonedSharedQueues
from proxywasm_host.services.zones import ENTRY, PAGE, SMALLEST, cost
from tests.support import code

ROOM = SMALLEST - PAGE


def zone_of(eviction: str = "lru", size: int = SMALLEST) -> Zone:
    return Zone("z", size, eviction)


def test_a_key_is_in_the_zone_that_it_begins_with():
    data = ZonedSharedData([Zone("a", SMALLEST), Zone("*", SMALLEST)])
    for key in (b"a/k", b"b/k", b"k"):
        assert data.set("vm", key, key)
    assert [data.zones["a"].get(key) for key in (b"a/k", b"b/k", b"k")] == [(b"a/k", 1), None, None]
    assert [data.get("other vm", key) for key in (b"a/k", b"b/k", b"k")] == [(b"a/k", 1), (b"b/k", 1), (b"k", 1)]


def test_a_key_for_which_there_is_no_zone():
    data = ZonedSharedData([Zone("a", SMALLEST)])
    for key in (b"k", b"b/k"):
        with pytest.raises(UnknownZone, match=f"no zone of shared memory is for the key '{key.decode()}': there are a"):
            data.get("", key)


def test_numbers_count_the_changes_of_a_key():
    zone = zone_of()
    assert [zone.set(b"k", b"1", 0), zone.set(b"l", b"1", 7), zone.set(b"k", b"2", 1)] == [True, True, True]
    assert [zone.get(b"k"), zone.get(b"l")] == [(b"2", 2), (b"1", 1)]
    assert not zone.set(b"k", b"3", 1)


def filled(eviction: str) -> Zone:
    """Eight small values and a large one, then one more of each fourth size."""
    zone = zone_of(eviction)
    zone.set(b"large", b"x" * (ROOM - 9 * (ENTRY + 10)), 0)
    for number in range(8):
        zone.set(b"%d" % number, b"small", 0)
    return zone


def test_lru_forgets_what_was_not_used_for_longest():
    zone = filled("lru")
    zone.set(b"new", b"x" * 200, 0)
    assert (zone.get(b"large"), zone.get(b"0")) == (None, (b"small", 1))


def test_slru_forgets_what_has_a_similar_size_first():
    zone = filled("slru")
    zone.get(b"0")
    zone.set(b"new", b"small" * 5, 0)
    assert zone.get(b"large") is not None
    assert [zone.get(b"%d" % number) is None for number in range(8)] == [False, True, *[False] * 6]


def test_none_takes_nothing_more():
    zone = filled("none")
    with pytest.raises(QuotaExceeded, match="zone 'z' is full"):
        zone.set(b"new", b"x" * 200, 0)
    assert zone.set(b"0", b"other", 0)
    with pytest.raises(QuotaExceeded, match="zone 'z' is full"):
        zone.set(b"0", b"x" * 1000, 0)
    assert zone.get(b"0") == (b"other", 2)


def test_what_no_zone_of_this_size_can_hold():
    zone = zone_of()
    zone.set(b"k", b"", 0)
    with pytest.raises(QuotaExceeded, match=f"zone 'z' of {ROOM} bytes cannot hold one of {ROOM + 1}"):
        zone.set(b"l", b"x" * (ROOM - ENTRY), 0)
    assert zone.get(b"k") == (b"", 1)


@given(
    st.sampled_from(["lru", "slru", "none"]),
    st.lists(st.tuples(st.integers(0, 30), st.integers(0, 4000), st.booleans()), max_size=60),
)
def test_a_zone_never_holds_more_than_it_has_room_for(eviction, steps):
    zone = zone_of(eviction)
    kept: dict[bytes, int] = {}
    for key, size, read in steps:
        name = b"%d" % key
        if read:
            zone.get(name)
            continue
        try:
            zone.set(name, b"x" * size, 0)
        except QuotaExceeded:
            assert eviction == "none"
        else:
            kept[name] = size
            assert zone.get(name)[0] == b"x" * size
    held = [(name, zone.get(name)) for name in kept]
    assert sum(cost(name, found[0]) for name, found in held if found) <= ROOM


def test_queues_are_those_that_are_named():
    queues = ZonedSharedQueues({"q": SMALLEST})
    token = queues.register("vm", b"q", lambda _: None)
    assert (queues.register("other", b"q", lambda _: None), queues.resolve("any", b"q")) == (token, token)
    queues.enqueue(token, b"hello")
    assert [queues.dequeue(token), queues.dequeue(token)] == [b"hello", None]
    with pytest.raises(UnknownZone, match="no shared queue is called 'r'"):
        queues.register("vm", b"r", lambda _: None)
    with pytest.raises(QuotaExceeded, match="queue 'q' have"):
        queues.enqueue(token, b"x" * ROOM)


@pytest.mark.parametrize("make", [lambda: Zone("z", 1000), lambda: ZonedSharedQueues({"z": 1000})], ids=["kv", "queue"])
def test_a_zone_has_three_pages_at_least(make):
    with pytest.raises(ValueError, match="zone 'z' has 1000 bytes: it needs 12288 at least"):
        make()


@pytest.mark.parametrize(
    ("profile", "status"), [("wasmx", None), ("envoy", 2)], ids=["wasmx: the guest fails", "envoy: it is told"]
)
def test_a_guest_that_uses_a_zone_that_is_not_there(engine, services, log, profile, status):
    given = replace(services, shared_data=ZonedSharedData([Zone("a", SMALLEST)]), shared_queues=ZonedSharedQueues({"q": SMALLEST}))
    for call in ("get_shared_data b/k", "set_shared_data b/k 1 0", "register_shared_queue r"):
        with Host(engine, services=given, profile=profile) as host:
            script = f"@on_request_headers\nset_shared_data a/k 1 0\nregister_shared_queue q\n{call}"
            plugin = host.load_plugin(code("c/probe_0_2_1"), name="p", configuration=script)
            log.take()
            with host.http_stream([plugin]) as stream:
                stream.request_headers([(b":authority", b"a"), (b":path", b"/"), (b":method", b"GET")], True)
            said = [line.partition(" = ")[2] for line in log.take()]
            assert said[0] in ("0", "8")  # it was set before
            assert said[2:] == ([] if status is None else [str(status)])
            assert (plugin.failure is not None) == (status is None)
