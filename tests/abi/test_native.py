"""The native handlers against the Python handlers: the same calls in two worlds, which must stay equal in all that can be seen."""

from __future__ import annotations

import ctypes
import gc
import os
import re
import resource
import subprocess
import sys
import weakref
from collections import deque
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxywasm_host.abi import pairs
from proxywasm_host.abi.context import PythonContextState
from proxywasm_host.abi.held_body import PythonHeldBody
from proxywasm_host.abi.hostcalls import HANDLERS
from proxywasm_host.abi.marshal import Call, PythonCalls, PythonGuest, bind_in_python, bind_natively
from proxywasm_host.abi.native import NATIVE, check_constants
from proxywasm_host.abi.profile import ENVOY, SPEC
from proxywasm_host.abi.table import hostcalls_of
from proxywasm_host.abi.types import AbiVersion
from proxywasm_host.engine.adapter import memory_capsule
from proxywasm_host.extension import NATIVE_ABI
from proxywasm_host.runtime.failure import describe
from proxywasm_host.runtime.vm_base import STOPPED, PythonVmBase
from proxywasm_host.services import ManualClock, Services, SystemClock
from tests.abi.fakes import Memory

needs_native = pytest.mark.skipif(NATIVE is None, reason="there is no compiler, or PROXYWASM_NATIVE=no")


def test_it_can_be_turned_off():
    script = (
        "from proxywasm_host.abi import marshal, native; print(native.NOTE, marshal.bind is marshal.bind_in_python)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], env={**os.environ, "PROXYWASM_NATIVE": "no"}, capture_output=True, text=True
    )
    assert (done.stdout, done.stderr) == ("off, because of PROXYWASM_NATIVE True\n", "")


# -- Two worlds --------------------------------------------------------------------------------------------------

NAMES = [
    b"a",
    b"A",
    b"host",
    b"Host",
    b":path",
    b":Path",
    b"user-agent",
    b"x" * 104,
    b"x" * 105,
    b"",
    b":",
    b"\xc3\x84",
    b"content-type",
]
VALUES = [b"", b"v", b"gzip, br", b"y" * 200]
FULL = [[(b"a", b"v")] * 1024, [(b"a", b"v" * 1_047_000)], [(b"b", b"v" * 16_000)] * 65, [(b"b", b"v")] * 70]
HEADERS = st.lists(
    st.tuples(st.sampled_from([name.lower() for name in NAMES]), st.sampled_from(VALUES)), max_size=6
) | st.sampled_from(FULL)
MOST = 100_000
"""What bodies may be made to grow to."""
BUFFERS = st.none() | st.binary(max_size=12) | st.just(b"z" * 70_000) | st.just(b"z" * 120_000)
HEAP = 131_072
END = 2 * HEAP


class RangedMemory(Memory):
    """Memory that says in two words where it is, as engines may."""

    def __init__(self, size: int) -> None:
        self.words = (ctypes.c_uint64 * 2)()
        self.native_range = memory_capsule(ctypes.addressof(self.words), NATIVE_ABI)
        super().__init__(size)

    def refresh(self) -> bool:
        self.words[:] = [ctypes.addressof((ctypes.c_char * len(self.bytes)).from_buffer(self.bytes)), self.size]
        return super().refresh()


class World:
    """A root context, a stream, a guest, and a set of hostcalls, all of one implementation."""

    def __init__(self, state, entry, guest, calls, bind, version, profile, clock, memory=Memory) -> None:
        class Context(state):
            def add_trailers(self, map):
                return None

            def map_limits(self, map):
                return pairs.MAX_ENTRIES, pairs.MAX_SIZE

            def writable_size(self, buffer):
                return MOST if buffer in (0, 1) else 0

        class Vm(entry):
            vm_configuration = b"vm"

            def __init__(self) -> None:
                super().__init__(Context(0), deque())
                self.version = version
                self.profile = profile
                self.services = Services(clock=clock)

        self.vm = Vm()
        self.root = Context(1)
        self.stream = Context(2, self.root)
        self.vm.context = self.stream
        self.calls = calls(16)
        self.memory = memory(END)
        self.guest = guest(self.calls.append, None)
        self.guest.memory = self.memory
        self.heap = HEAP
        self.answers: list[int] = []
        self.guest.use_allocator(self.allocate)
        self.hostcalls = {
            name: bind(row, version, HANDLERS[name], self.vm, self.guest) for name, row in hostcalls_of(version).items()
        }

    def allocate(self, size: int) -> int:
        if self.answers:
            return self.answers.pop()
        at, self.heap = self.heap, self.heap + size
        return at

    def seen(self):
        """All that can be seen of it."""
        recorded = [Call(*call) for call in self.calls]
        return (
            bytes(self.memory.bytes),
            self.stream.maps,
            self.root.maps,
            [None if data is None else bytes(data) for data in self.stream.buffers],
            self.root.buffers,
            [(call.row.name, call.args, call.status) for call in recorded],
            [None if call.status else call.result for call in recorded],
            [describe(call) for call in recorded],
        )


def worlds(version=AbiVersion.V0_2_1, profile=ENVOY, clock=None, memory=Memory) -> tuple[World, World]:
    clock = clock or ManualClock()
    return (
        World(PythonContextState, PythonVmBase, PythonGuest, PythonCalls, bind_in_python, version, profile, clock),
        World(
            NATIVE.ContextState,
            NATIVE.VmBase,
            NATIVE.Guest,
            NATIVE.Calls,
            bind_natively,
            version,
            profile,
            clock,
            memory,
        ),
    )


addresses = st.sampled_from([0, 1, 16, 24, 32, HEAP, END - 4, END - 1, END, END + 1, 0xFFFFFFFF])
slots = st.sampled_from([16, 20, 24, 28]) | addresses


@st.composite
def hostcalls(draw):
    """(name, ints, what is in memory at 1024 and 4096)"""
    name = draw(st.sampled_from(sorted(TWINS)))
    first, second = b"", b""
    ints = []
    for kind in TWINS[name]:
        if kind == "map":
            ints.append(draw(st.sampled_from([0, 0, 0, 1, 2, 2, 3, 4, 6, 7, 8])))
        elif kind == "buffer":
            ints.append(draw(st.sampled_from([0, 0, 1, 2, 4, 5, 6, 7, 8, 9, 10])))
        elif kind == "number":
            ints.append(draw(st.sampled_from([0, 0, 1, 3, 12, 65_536, 70_000, 0xFFFFFFFF])))
        elif kind == "key":
            first = draw(st.sampled_from(NAMES))
            ints += draw(st.just([1024, len(first)]) | st.tuples(addresses, addresses))
        elif kind == "value":
            second = draw(st.sampled_from([*VALUES, b"w" * 2000, b"w" * 66_000]))
            ints += draw(st.just([4096, len(second)]) | st.tuples(addresses, addresses))
        elif kind == "pairs":
            second = pairs.encode(
                draw(st.lists(st.tuples(st.sampled_from(NAMES), st.sampled_from(VALUES)), max_size=5))
            )
            second = draw(st.sampled_from([second, second, second + b"x", second[:-1], b"\1"]))
            ints += draw(st.just([4096, len(second)]) | st.tuples(addresses, addresses))
        else:
            ints.append(draw(slots))
    return name, ints, first, second


TWINS = {
    "proxy_get_header_map_value": ["map", "key", "slot", "slot"],
    "proxy_add_header_map_value": ["map", "key", "value"],
    "proxy_replace_header_map_value": ["map", "key", "value"],
    "proxy_remove_header_map_value": ["map", "key"],
    "proxy_get_header_map_pairs": ["map", "slot", "slot"],
    "proxy_set_header_map_pairs": ["map", "pairs"],
    "proxy_get_header_map_size": ["map", "slot"],
    "proxy_get_buffer_bytes": ["buffer", "number", "number", "slot", "slot"],
    "proxy_set_buffer_bytes": ["buffer", "number", "number", "value"],
    "proxy_get_buffer_status": ["buffer", "slot", "slot"],
    "proxy_get_current_time_nanoseconds": ["slot"],
}


@needs_native
def test_every_native_handler_is_compared():
    """Their tables in C are the two lists of names there."""
    native = Path(NATIVE.__file__).with_name("native")
    names = {name for path in native.glob("*.c") for name in re.findall(r'{"(proxy_\w+)", \w+}', path.read_text())}
    assert names == set(TWINS)


@needs_native
@settings(max_examples=400)
@given(
    st.sampled_from(AbiVersion),
    st.sampled_from([ENVOY, SPEC]),
    st.sampled_from([Memory, RangedMemory]),
    st.lists(st.none() | HEADERS, min_size=8, max_size=8),
    st.lists(BUFFERS, min_size=20, max_size=20),
    st.booleans(),
    st.booleans(),
    st.booleans(),
    st.lists(st.sampled_from([0, 5, END - 1, END, 0xFFFFFFFF]), max_size=2),
    st.lists(hostcalls(), min_size=1, max_size=6),
)
def test_native_handlers(version, profile, memory, maps, buffers, held, heard, read_only, answers, made):
    both = worlds(version, profile, memory=memory)
    for world, held_body in zip(both, (PythonHeldBody, NATIVE.HeldBody), strict=True):
        world.stream.maps[:] = [None if headers is None else list(headers) for headers in maps[:4]]
        world.root.maps[:] = [None if headers is None else list(headers) for headers in maps]
        world.stream.buffers[:] = buffers[:10]
        world.root.buffers[:] = buffers[10:]
        if heard:
            world.guest.record = lambda call, calls=world.calls: calls.append(call)
        if held:
            world.stream.buffers[:2] = [None if data is None else held_body(data) for data in buffers[:2]]
        world.stream.read_only = read_only
        world.answers = list(answers)
    for name, ints, first, second in made:
        statuses = []
        for world in both:
            world.memory.bytes[1024 : 1024 + len(first)] = first
            world.memory.bytes[4096 : 4096 + len(second)] = second
            statuses.append(world.hostcalls[name](*ints))
        assert statuses[0] == statuses[1], (name, ints)
    expected, got = (world.seen() for world in both)
    for before, after in zip(expected, got, strict=True):
        assert after == before


SIZES = st.integers(0, 200)
CHANGES = st.one_of(
    st.tuples(st.just("append"), st.binary(max_size=100)),
    st.tuples(st.just("splice"), SIZES, SIZES, st.binary(max_size=100)),
    st.tuples(st.just("part"), SIZES, SIZES),
    st.tuples(st.just("__bytes__")),
    st.tuples(st.just("__len__")),
)


@needs_native
@given(st.binary(max_size=50), st.lists(CHANGES, max_size=12))
def test_held_bodies(data, changes):
    both = PythonHeldBody(data), NATIVE.HeldBody(data)
    given_away = []
    for name, *args in changes:
        expected, got = (getattr(held, name)(*args) for held in both)
        assert got == expected
        if type(got) is bytes:
            given_away.append((got, bytes(bytearray(got))))
    assert bytes(both[1]) == bytes(both[0])
    assert all(kept == as_it_was for kept, as_it_was in given_away)


@needs_native
@pytest.mark.parametrize("args", [("x",), (b"", b""), (None,)])
def test_what_is_no_held_body(args):
    for kind in (PythonHeldBody, NATIVE.HeldBody):
        with pytest.raises(TypeError):
            kind(*args)
        held = kind(b"abc")
        with pytest.raises(TypeError):
            held.append("x")
        with pytest.raises(TypeError):
            held.splice(0, 1, "x")
        assert bytes(held) == b"abc"


@needs_native
def test_a_held_body_is_given_away_without_a_copy():
    held = NATIVE.HeldBody(b"abc")
    held.append(b"def")
    first = bytes(held)
    assert bytes(held) is first
    held.splice(0, 1, b"x")
    assert (first, bytes(held)) == (b"abcdef", b"xbcdef")


@needs_native
@given(st.lists(st.tuples(st.binary(max_size=9), st.binary(max_size=9)), max_size=9))
def test_pairs_there_and_back(headers):
    encoded = NATIVE.encode(headers)
    assert encoded == pairs.encode(headers)
    assert NATIVE.decode(encoded) == headers


@needs_native
@given(
    st.binary(max_size=60)
    | st.builds(lambda n, rest: n.to_bytes(4, "little") + rest, st.integers(0, 3), st.binary(max_size=40))
)
def test_only_what_is_good_is_decoded(content):
    try:
        expected = pairs.decode(content)
    except pairs.MalformedPairs:
        expected = None
    assert NATIVE.decode(content) == expected


@needs_native
@pytest.mark.parametrize(
    "odd", [[("a", b"b")], [(b"a", b"b", b"c")], [[b"a", b"b"]], [None], [(b"a", bytearray(b"b"))], ((b"a", b"b"),)]
)
def test_maps_that_are_not_plain_are_left_to_python(odd):
    assert NATIVE.encode(odd) is None
    _, world = worlds()
    world.stream.maps[0] = odd
    for name in ("get", "replace", "remove"):
        ints = [0, 1024, 1, *([16, 20] if name == "get" else [1024, 1] if name == "replace" else [])]
        with suppress(TypeError, ValueError, AttributeError):  # as the Python handler has it
            world.hostcalls[f"proxy_{name}_header_map_value"](*ints)


@needs_native
def test_the_machines_clock():
    for world in worlds(clock=SystemClock()):
        assert world.hostcalls["proxy_get_current_time_nanoseconds"](16) == 0
        told = int.from_bytes(world.memory.bytes[16:24], "little")
        assert abs(told - SystemClock.time_ns()) < 5_000_000_000
        assert [call[2] for call in world.calls] == [told]


# -- The entry for engines ---------------------------------------------------------------------------------------


@needs_native
@pytest.mark.parametrize("stride", [1, 2])
def test_the_native_entry(stride):
    _, world = worlds()
    world.stream.maps[0] = [(b"a", b"value")]
    world.memory.bytes[1024:1025] = b"A"
    call = world.hostcalls["proxy_get_header_map_value"]
    pointer = ctypes.pythonapi.PyCapsule_GetPointer
    pointer.restype, pointer.argtypes = ctypes.c_void_p, (ctypes.py_object, ctypes.c_char_p)
    function, itself = (ctypes.c_size_t * 2).from_address(pointer(call.native_entry, b"proxywasm_host.hostcall.1"))
    entry = ctypes.PYFUNCTYPE(ctypes.c_int64, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t)(function)
    places = (ctypes.c_uint64 * (5 * stride))()
    places[::stride] = [0xFFFFFFFF << 32, 1024, 1 | 7 << 32, 16, 20]  # the upper halves of an i32's slot mean nothing
    assert entry(itself, places, stride) == 0
    assert bytes(world.memory.bytes[HEAP : HEAP + 5]) == b"value"
    world.guest.allowed = frozenset()
    with pytest.raises(Exception, match="proxy_get_header_map_value was called where it may not be"):
        entry(itself, places, stride)


# -- Memory that goes away ---------------------------------------------------------------------------------------


@needs_native
@pytest.mark.parametrize("name", ["proxy_get_header_map_value", "proxy_get_header_map_pairs", "proxy_get_buffer_bytes"])
def test_a_view_that_is_released_in_the_allocator(name):
    _, world = worlds()
    world.stream.maps[0] = [(b"\0", b"value")]
    world.stream.buffers[0] = b"value"

    def allocate(size: int) -> int:
        world.memory.view.release()
        return HEAP

    world.guest.use_allocator(allocate)
    arguments = {"value": [0, 1024, 1, 16, 20], "pairs": [0, 16, 20], "bytes": [0, 0, 5, 16, 20]}
    with pytest.raises(ValueError, match="released"):
        world.hostcalls[name](*arguments[name.rpartition("_")[2]])


@needs_native
@pytest.mark.parametrize(
    "view", [memoryview(b"x" * 64), memoryview(bytearray(64)).cast("I"), memoryview(bytearray(64))[::2], b"x" * 64]
)
def test_a_view_that_is_none_of_bytes_in_a_row_is_refused(view):
    _, world = worlds()
    world.stream.maps[0] = []
    world.memory.view = view
    with pytest.raises(TypeError, match="view of a memory"):
        world.hostcalls["proxy_get_header_map_size"](0, 16)


@needs_native
def test_memory_that_has_grown_and_that_has_gone():
    _, world = worlds(memory=RangedMemory)
    world.stream.maps[0] = [(b"a", b"v")]
    world.memory.size = END - 65_536
    world.memory.refresh()
    at = END - 8
    world.memory.bytes[at : at + 1] = b"a"
    world.memory.size = END
    assert world.hostcalls["proxy_get_header_map_value"](0, at, 1, 16, 20) == 0
    world.memory.words[1] = world.memory.size = 0
    assert world.hostcalls["proxy_get_header_map_value"](0, at, 1, 16, 20) == 6


# -- State -------------------------------------------------------------------------------------------------------

STATES = [PythonContextState] + ([NATIVE.ContextState] if NATIVE else [])
ENTRIES = [PythonVmBase] + ([NATIVE.VmBase] if NATIVE else [])


@pytest.mark.parametrize("state", STATES)
def test_the_state_of_a_context(state):
    root = state(1)
    stream = state(2, root)
    assert (root.id, root.root, root.maps, root.buffers) == (1, root, [None] * 8, [None] * 10)
    assert (stream.id, stream.root, stream.maps, stream.read_only) == (2, root, [None] * 4, False)
    stream.maps = [1]
    stream.read_only = True
    assert (stream.maps, stream.read_only, stream.buffers) == ([1], True, [None] * 10)
    root.maps[7] = [(b"a", b"b")]
    root.__init__(2, stream)
    assert (root.root, root.maps, root.buffers) == (stream, [None] * 4, [None] * 10)


@pytest.mark.parametrize("entry", ENTRIES)
class TestVmBase:
    def vm(self, entry):
        class Vm(entry):
            def __init__(self) -> None:
                super().__init__("idle", deque())
                self.seen: list[object] = []

            def ended(self, context, callback, error) -> None:
                self.seen.append((context, callback, repr(error), self.context))

            def run_deferred(self) -> None:
                self.seen.append((self.context, len(self.deferred)))
                self.deferred.clear()

        return Vm()

    def test_what_a_guest_returns(self, entry):
        vm = self.vm(entry)
        assert vm.enter("context", lambda *args: vm.seen.append((vm.context, args)), 1, 2) == 0
        assert vm.enter("context", lambda: 7) == 7
        assert (vm.seen, vm.context) == ([("context", (1, 2))], "idle")

    def test_what_waits_runs_afterwards(self, entry):
        vm = self.vm(entry)
        assert vm.enter("context", lambda: vm.deferred.append(1) or 3) == 3
        vm.stop_iteration = True
        assert vm.enter("context", lambda: vm.deferred.append(1)) == STOPPED
        assert vm.seen == [("idle", 1), ("idle", 1)]
        assert vm.stop_iteration is False

    def test_one_at_a_time(self, entry):
        vm = self.vm(entry)
        vm.enter("context", lambda: vm.enter("another", lambda: 0))
        assert vm.seen[0][2].startswith("RuntimeError('an event was fed to a guest that runs")

    @pytest.mark.parametrize("kind", [KeyError, KeyboardInterrupt])
    def test_what_is_raised(self, entry, kind):
        vm = self.vm(entry)

        def callback() -> None:
            raise kind("x")

        if issubclass(kind, Exception):
            assert vm.enter("context", callback) == 0
        else:
            with pytest.raises(kind):
                vm.enter("context", callback)
        assert (vm.seen, vm.context) == ([("context", callback, f"{kind.__name__}('x')", "context")], "idle")


# -- Nothing leaks -----------------------------------------------------------------------------------------------


@needs_native
def test_nothing_leaks():
    _, world = worlds()
    value, bad = b"value" * 3, 0xFFFFFFFF
    world.memory.bytes[1024:1028] = b"Name"
    encoded = pairs.encode([(b"name", b"v"), (b"x-y", b"z")])
    world.memory.bytes[4096 : 4096 + len(encoded)] = encoded
    context = world.stream
    context.buffers[0] = b"body"

    def round() -> None:
        world.heap = HEAP
        context.maps[0] = [(b"name", value), (b":path", b"/")]
        for name, ints in (
            ("proxy_get_header_map_value", [0, 1024, 4, 16, 20]),
            ("proxy_get_header_map_value", [0, 1024, 3, 16, 20]),
            ("proxy_get_header_map_value", [0, 1024, 4, bad, 20]),
            ("proxy_get_header_map_value", [0, 1024, 200, 16, 20]),
            ("proxy_get_header_map_value", [9, 1024, 4, 16, 20]),
            ("proxy_add_header_map_value", [0, 1024, 4, 1024, 4]),
            ("proxy_replace_header_map_value", [0, 1024, 4, 1024, 4]),
            ("proxy_remove_header_map_value", [0, 1024, 4]),
            ("proxy_remove_header_map_value", [0, bad, 4]),
            ("proxy_get_header_map_pairs", [0, 16, 20]),
            ("proxy_set_header_map_pairs", [0, 4096, len(encoded)]),
            ("proxy_set_header_map_pairs", [0, 4096, 3]),
            ("proxy_get_header_map_size", [0, 16]),
            ("proxy_get_buffer_bytes", [0, 0, 4, 16, 20]),
            ("proxy_get_buffer_bytes", [1, 0, 4, 16, 20]),
            ("proxy_set_buffer_bytes", [0, 0, 4, 4096, 4]),
            ("proxy_get_buffer_status", [0, 16, 20]),
            ("proxy_get_status", [16, 20, 24]),
        ):
            world.hostcalls[name](*ints)
        list(world.calls)

    world.root.status = (0, b"")
    for _ in range(500):
        round()
    gc.collect()
    before, objects = (sys.getrefcount(value), sys.getrefcount(context)), len(gc.get_objects())
    blocks = sys.getallocatedblocks()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for _ in range(5000):
        round()
    gc.collect()
    assert (sys.getrefcount(value), sys.getrefcount(context)) == before
    assert len(gc.get_objects()) - objects < 100
    assert sys.getallocatedblocks() - blocks < 100
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak < 4096  # KiB


@needs_native
def test_cycles_are_collected():
    world = worlds()[1]
    references = [weakref.ref(thing) for thing in (world, world.vm, world.stream)]
    world.vm.world = world
    del world
    gc.collect()
    assert [reference() for reference in references] == [None] * 3


# -- What stands in Python and in C --------------------------------------------------------------------------------------


@needs_native
def test_another_number_in_c_is_an_import_error():
    check_constants(RECORDED=64 * 1024)
    with pytest.raises(ImportError, match="has 65536 for RECORDED, Python has 5"):
        check_constants(RECORDED=5)
