"""Zones of shared memory as ngx_wasm_module has them: which zone a key is in, and what a full one forgets."""

from __future__ import annotations

import itertools
import subprocess
import sys
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from proxywasm_host import Host
from proxywasm_host.services import UnknownZone, Zone, ZonedSharedData, ZonedSharedQueues, ZoneFull, Zones
from proxywasm_host.services.shared import open_shared
from proxywasm_host.services.shared.directory import Directory
from proxywasm_host.services.shared.zones import ProcessZones
from proxywasm_host.services.shared_queue import MESSAGE, QUEUE
from proxywasm_host.services.zones import PAGE, SMALLEST, cost
from tests.support import code

ROOM = SMALLEST - PAGE
NUMBERS = itertools.count()


class InProcesses:
    """A zone between processes, as a `Zone` is; each has a name of its own in one directory."""

    def __init__(self, directory, size, eviction):
        self.name = f"zone{next(NUMBERS)}"
        self.data = ProcessZones(directory, Zones({self.name: (size, eviction)}), grain=0)

    def get(self, key):
        return self.data.get("", f"{self.name}/".encode() + key)

    def set(self, key, value, cas):
        return self.data.set("", f"{self.name}/".encode() + key, value, cas)

    def cost(self, key, value):
        return cost(f"{self.name}/".encode() + key, value)


class InMemory(Zone):
    def cost(self, key, value):
        return cost(key, value)


@pytest.fixture(scope="module", params=["memory", "processes"])
def zone_of(request, tmp_path_factory):
    if request.param == "memory":
        yield lambda eviction="lru", size=SMALLEST: InMemory("z", size, eviction)
    else:
        directory = Directory(tmp_path_factory.mktemp("zones") / "state")
        yield lambda eviction="lru", size=SMALLEST: InProcesses(directory, size, eviction)
        directory.close()


@pytest.fixture(params=["memory", "processes"])
def zones(request, tmp_path):
    """Make the data of zones of one size."""
    opened = []

    def zones(*names):
        choice = "memory" if request.param == "memory" else f"processes:{tmp_path}/state"
        opened.append(open_shared(choice, Zones(dict.fromkeys(names, (SMALLEST, "slru")), {"q": SMALLEST})))
        return opened[-1]

    yield zones
    for shared in opened:
        shared.close()


def test_a_key_is_in_the_zone_that_it_begins_with(zones):
    data = zones("a", "*").data
    for key in (b"a/k", b"b/k", b"k"):
        assert data.set("vm", key, key)
    assert [data.get("other vm", key) for key in (b"a/k", b"b/k", b"k")] == [(b"a/k", 1), (b"b/k", 1), (b"k", 1)]
    for number in range(100):  # each zone forgets for itself
        data.set("vm", b"c/%d" % number, bytes(4))
    assert (data.get("vm", b"a/k"), data.get("vm", b"b/k")) == ((b"a/k", 1), None)


def test_a_key_for_which_there_is_no_zone(zones):
    data = zones("a").data
    for key in (b"k", b"b/k"):
        with pytest.raises(UnknownZone, match=f"no zone of shared memory accepts the key '{key.decode()}': the zones are a"):
            data.get("", key)


def test_numbers_count_the_changes_of_a_key(zone_of):
    zone = zone_of()
    assert [zone.set(b"k", b"1", 0), zone.set(b"l", b"1", 7), zone.set(b"k", b"2", 1)] == [True, True, True]
    assert [zone.get(b"k"), zone.get(b"l")] == [(b"2", 2), (b"1", 1)]
    assert not zone.set(b"k", b"3", 1)


@pytest.fixture
def filled(zone_of):
    """Make a zone that has a large value and eight small ones."""
    return lambda eviction: fill(zone_of(eviction))


def fill(zone):
    zone.set(b"large", b"x" * (ROOM - 9 * zone.cost(b"large", b"small")), 0)
    for number in range(8):
        zone.set(b"%d" % number, b"small", 0)
    return zone


def test_lru_forgets_what_was_not_used_for_longest(filled):
    zone = filled("lru")
    zone.set(b"new", b"x" * 200, 0)
    assert (zone.get(b"large"), zone.get(b"0")) == (None, (b"small", 1))


def test_slru_forgets_what_has_a_similar_size_first(filled):
    zone = filled("slru")
    zone.get(b"0")
    zone.set(b"new", b"small" * 5, 0)
    assert zone.get(b"large") is not None
    assert [zone.get(b"%d" % number) is None for number in range(8)] == [False, True, *[False] * 6]


def test_none_takes_nothing_more(filled):
    zone = filled("none")
    with pytest.raises(ZoneFull, match=r"zone '.*' is full"):
        zone.set(b"new", b"x" * 200, 0)
    assert zone.set(b"0", b"other", 0)
    with pytest.raises(ZoneFull, match=r"zone '.*' is full"):
        zone.set(b"0", b"x" * 1000, 0)
    assert zone.get(b"0") == (b"other", 2)


def test_what_no_zone_of_this_size_can_hold(zone_of):
    zone = zone_of()
    zone.set(b"k", b"", 0)
    with pytest.raises(ZoneFull, match=rf"zone '.*' of {ROOM} bytes cannot hold an entry of {ROOM + 1}"):
        zone.set(b"l", b"x" * (ROOM + 1 - zone.cost(b"l", b"")), 0)
    assert zone.get(b"k") == (b"", 1)


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.sampled_from(["lru", "slru", "none"]),
    st.lists(st.tuples(st.integers(0, 30), st.integers(0, 4000), st.booleans()), max_size=60),
)
def test_a_zone_never_holds_more_than_it_has_room_for(zone_of, eviction, steps):
    zone = zone_of(eviction)
    kept: dict[bytes, int] = {}
    for key, size, read in steps:
        name = b"%d" % key
        if read:
            zone.get(name)
            continue
        try:
            zone.set(name, b"x" * size, 0)
        except ZoneFull:
            assert eviction == "none"
        else:
            kept[name] = size
            assert zone.get(name)[0] == b"x" * size
    held = [(name, zone.get(name)) for name in kept]
    assert sum(zone.cost(name, found[0]) for name, found in held if found) <= ROOM


def test_queues_are_those_that_are_named(zones):
    queues = zones("a").queues
    token = queues.register("vm", b"q", lambda _: None)
    assert (queues.register("other", b"q", lambda _: None), queues.resolve("any", b"q")) == (token, token)
    queues.enqueue(token, b"hello")
    assert [queues.dequeue(token), queues.dequeue(token)] == [b"hello", None]
    with pytest.raises(UnknownZone, match="no shared queue is called 'r'"):
        queues.register("vm", b"r", lambda _: None)
    with pytest.raises(ZoneFull, match=r"queue.* have"):
        queues.enqueue(token, b"x" * ROOM)


PROCESS = """
import sys
from proxywasm_host.services import Zones
from proxywasm_host.services.shared import open_shared
shared = open_shared(sys.argv[1], Zones({"*": (65536, "lru")}))
for _ in range(200):
    while True:
        value, cas = shared.data.get("", b"count") or (b"0", 0)
        if shared.data.set("", b"count", b"%d" % (int(value) + 1), cas):
            break
shared.close()
"""


def test_processes_share_zones(tmp_path):
    choice = f"processes:{tmp_path}/state"
    shared = open_shared(choice, Zones({"*": (65536, "lru")}))
    shared.data.set("", b"count", b"0")
    others = [subprocess.Popen([sys.executable, "-c", PROCESS, choice]) for _ in range(2)]
    assert [other.wait(60) for other in others] == [0, 0]
    assert shared.data.get("", b"count") == (b"400", 401)
    shared.close()


def test_what_is_read_is_noted_once_a_second(tmp_path):
    """So that reading takes no lock."""
    directory = Directory(tmp_path / "state")
    zone = ProcessZones(directory, Zones({"*": (65536, "lru")}))
    zone.set("", b"k", b"v")
    directory.write = None
    assert zone.get("", b"k") == (b"v", 1)
    directory.close()


def test_redis_has_no_zones():
    with pytest.raises(ValueError, match="Redis has no zones, which are memory of one machine: leave out shm_kv and shm_queue"):
        open_shared("redis://127.0.0.1:1", Zones({"*": (SMALLEST, "lru")}))


@pytest.mark.parametrize(
    "make",
    [
        lambda: Zone("z", 1000),
        lambda: ZonedSharedQueues({"z": 1000}),
        lambda: open_shared("processes", Zones({"z": (1000, "lru")})),
        lambda: open_shared("processes", Zones(queues={"z": 1000})),
    ],
    ids=["kv", "queue", "kv of processes", "queue of processes"],
)
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


@pytest.mark.parametrize("call", ["set_shared_data k 0123456789 0", "enqueue_shared_queue $token 0123456789"])
@pytest.mark.parametrize(
    ("profile", "status"), [("wasmx", None), ("envoy", "10")], ids=["wasmx: the guest fails", "envoy: it is told"]
)
def test_a_guest_that_fills_a_zone(engine, services, log, profile, status, call):
    data, queues = ZonedSharedData([Zone("*", SMALLEST, "none")]), ZonedSharedQueues({"q": SMALLEST})
    data.set("", b"l", b"x" * (ROOM - cost(b"l", b"") - 20), 0)
    queues.enqueue(queues.register("", b"q", lambda _: None), b"x" * (ROOM - QUEUE - 1 - MESSAGE - 20))
    given = replace(services, shared_data=data, shared_queues=queues)
    with Host(engine, services=given, profile=profile) as host:
        plugin = host.load_plugin(code("c/probe_0_2_1"), configuration=f"@on_request_headers\nregister_shared_queue q\n{call}")
        with host.http_stream([plugin]) as stream:
            stream.request_headers([(b":authority", b"a"), (b":path", b"/"), (b":method", b"GET")], True)
        said = [line.partition(" = ")[2] for line in log.take()]
        assert said[1:] == ([] if status is None else [status])
        assert (plugin.failure is not None) == (status is None)
