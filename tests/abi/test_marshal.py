"""The marshaller, without an engine: what a guest's integers become, and what is written where.

Memory has 1024 bytes and its allocator gives blocks from 512 on, unless a test says otherwise; so 1024 is the end.
"""

from __future__ import annotations

import re

import pytest

from proxywasm_host.abi import pairs
from proxywasm_host.abi.marshal import (
    RECORDED,
    Call,
    MalformedList,
    Refusal,
    RestrictedCall,
    bind_refusal,
)
from proxywasm_host.abi.table import (
    HOSTCALLS,
    WASI,
    Kind,
    Param,
    data,
    data_out,
    i32,
    i64,
    iovecs,
    pairs_out,
    row,
    u32,
    u32_out,
    u64,
    u64_out,
    wasi,
)
from proxywasm_host.abi.table import at as bytes_at
from proxywasm_host.abi.table import pairs as pairs_in
from proxywasm_host.abi.types import AbiVersion, BufferType, LogLevel
from proxywasm_host.services import QuotaExceeded, ServiceUnavailable
from tests.abi.fakes import MARSHALLERS, FakeGuest

pytestmark = pytest.mark.usefixtures("marshaller")

END = 1024
ONE_PAIR = pairs.encode([(b"a", b"bc")])


def not_inside(size: int, address: int, memory: int = END) -> str:
    return f"{size} bytes at {address:#x} are outside of the memory of {memory} bytes"


# -- Numbers in --------------------------------------------------------------------------------------------------

NUMBERS = {
    "u32, 0": (u32("x"), 0, 0),
    "u32, the greatest": (u32("x"), 0xFFFFFFFF, 0xFFFFFFFF),
    "i32, the greatest": (i32("x"), 0x7FFFFFFF, 0x7FFFFFFF),
    "i32, the least": (i32("x"), 0x80000000, -0x80000000),
    "i32, -1": (i32("x"), 0xFFFFFFFF, -1),
    "u64, the greatest": (u64("x"), (1 << 64) - 1, (1 << 64) - 1),
    "i64, the greatest": (i64("x"), (1 << 63) - 1, (1 << 63) - 1),
    "i64, the least": (i64("x"), 1 << 63, -(1 << 63)),
    "i64, -1": (i64("x"), (1 << 64) - 1, -1),
    "an enumeration's last": (u32("x", LogLevel), 5, 5),
}


@pytest.mark.parametrize(("param", "passed", "value"), NUMBERS.values(), ids=NUMBERS)
def test_number(param, passed, value):
    guest = FakeGuest()
    assert guest.bind(row("f", param), lambda *_: None)(passed) == 0
    assert guest.last == Call(row("f", param), (value,), None)


@pytest.mark.parametrize("passed", [6, 0x80000000, 0xFFFFFFFF])
def test_a_number_beyond_its_enumeration(passed):
    guest = FakeGuest()
    assert guest.bind(row("f", u32("level", LogLevel)), never)(passed) == 2
    assert guest.last.args is None
    assert guest.last.result.reason == f"level is {passed}, at most 5 is known"


@pytest.mark.parametrize(
    ("version", "buffer", "status"),
    [
        (AbiVersion.V0_2_1, 8, 0),
        (AbiVersion.V0_2_1, 9, 2),
        (AbiVersion.V0_2_100, 9, 0),
        (AbiVersion.V0_2_100, 10, 2),
    ],
)
def test_an_enumeration_is_that_of_the_version(version, buffer, status):
    call = FakeGuest().bind(row("f", u32("buffer", BufferType)), lambda *_: None, version=version)
    assert call(buffer) == status


def never(vm, *args):
    raise AssertionError("the handler was called")


# -- Bytes in ----------------------------------------------------------------------------------------------------

RANGES = {
    # address, size → what the handler gets, or the reason
    "(0, 0)": (0, 0, b""),
    "the front": (0, 4, b"abcd"),
    "the whole": (0, END, b"abcd" + bytes(END - 8) + b"wxyz"),
    "up to the end": (END - 4, 4, b"wxyz"),
    "nothing at the end": (END, 0, b""),
    "nothing inside": (17, 0, b""),
    "one beyond": (END - 4, 5, not_inside(5, END - 4)),
    "one byte at the end": (END, 1, not_inside(1, END)),
    "nothing beyond": (END + 1, 0, not_inside(0, END + 1)),
    "the greatest address": (0xFFFFFFFF, 0, not_inside(0, 0xFFFFFFFF)),
    "the greatest size": (0, 0xFFFFFFFF, not_inside(0xFFFFFFFF, 0)),
    "round the end to the front": (0xFFFFFFFF, 5, not_inside(5, 0xFFFFFFFF)),
    "round the end to where it began": (4, 0xFFFFFFFF, not_inside(0xFFFFFFFF, 4)),
}


@pytest.mark.parametrize(("address", "size", "expected"), RANGES.values(), ids=RANGES)
def test_bytes(address, size, expected):
    guest = FakeGuest()
    guest.write(0, b"abcd")
    guest.write(END - 4, b"wxyz")
    status = guest.bind(row("f", data("x")), lambda *_: None)(address, size)
    if isinstance(expected, bytes):
        assert (status, guest.last.args) == (0, (expected,))
        assert type(guest.last.args[0]) is bytes
    else:
        assert (status, guest.last.args, guest.last.result.reason) == (6, None, expected)


@pytest.mark.parametrize(("address", "size", "expected"), RANGES.values(), ids=RANGES)
def test_pairs_are_checked_like_bytes(address, size, expected):
    guest = FakeGuest()
    status = guest.bind(row("f", pairs_in("x")), lambda *_: None)(address, size)
    assert status == (0 if isinstance(expected, bytes) else 6)


def test_bytes_are_a_copy():
    guest = FakeGuest()
    guest.write(0, b"abcd")
    kept = []
    guest.bind(row("f", data("x")), lambda _vm, x: kept.append(x))(0, 4)
    guest.write(0, b"WXYZ")
    assert kept == [b"abcd"]


def test_memory_that_has_grown_is_noticed():
    guest = FakeGuest()
    call = guest.bind(row("f", data("x"), data("y")), lambda *_: None)
    guest.memory.grow(END)
    guest.write(2 * END - 2, b"xy")
    assert call(0, 1, 2 * END - 2, 2) == 0
    assert guest.last.args == (b"\0", b"xy")
    assert call(0, 1, 2 * END - 2, 3) == 6
    assert guest.last.result.reason == not_inside(3, 2 * END - 2, 2 * END)


@pytest.mark.parametrize(
    ("content", "value", "reason"),
    [
        (b"", [], None),
        (bytes(4), [], None),
        (ONE_PAIR, [(b"a", b"bc")], None),
        (ONE_PAIR + b"x", [], "malformed header pairs count as none: 1 bytes follow the last pair"),
        (b"\1", [], "malformed header pairs count as none: 1 bytes are too few for the number of pairs"),
    ],
)
def test_pairs(content, value, reason):
    guest = FakeGuest()
    guest.write(100, content)
    assert guest.bind(row("f", pairs_in("x")), lambda *_: None)(100, len(content)) == 0
    (found,) = guest.last.args
    assert found == value
    assert getattr(found, "reason", None) == reason
    assert isinstance(found, MalformedList) == (reason is not None)


# -- WASI: a table of ranges -------------------------------------------------------------------------------------


def table(*ranges: tuple[int, int]) -> bytes:
    return b"".join(address.to_bytes(4, "little") + size.to_bytes(4, "little") for address, size in ranges)


GATHERED = {
    # ranges (the table lies at 256), → the bytes or the reason
    "none": ([], b""),
    "one": ([(0, 4)], b"abcd"),
    "several": ([(2, 2), (END, 0), (0, 0), (END - 4, 4), (0, 1)], b"cdwxyza"),
    "overlapping": ([(0, 4), (1, 2), (0, 4)], b"abcdbcabcd"),
    "one beyond": ([(0, 1), (END - 4, 5)], not_inside(5, END - 4)),
    "nothing beyond": ([(END + 1, 0)], not_inside(0, END + 1)),
    "round the end": ([(0xFFFFFFFF, 2)], not_inside(2, 0xFFFFFFFF)),
    "as many bytes as the memory": ([(0, 512), (0, 512)], None),
    "one more": ([(0, 512), (0, 512), (0, 1)], "the ranges have more bytes than the memory, which has 1024"),
    "the memory twice": ([(0, END), (0, END)], "the ranges have more bytes than the memory, which has 1024"),
}


@pytest.mark.parametrize(("ranges", "expected"), GATHERED.values(), ids=GATHERED)
def test_gather(ranges, expected):
    guest = FakeGuest()
    guest.write(0, b"abcd")
    guest.write(END - 4, b"wxyz")
    guest.write(256, table(*ranges))
    status = guest.bind(wasi("f", iovecs("x")), lambda *_: None)(256, len(ranges))
    if isinstance(expected, str):
        assert (status, guest.last.args, guest.last.result.reason) == (21, None, expected)
    else:
        assert (status, guest.last.args) == (0, (guest.read(0, 512) * 2 if expected is None else expected,))


@pytest.mark.parametrize(
    ("address", "count", "status"),
    [
        (END, 0, 0),
        (END - 8, 1, 0),
        (END - 8, 2, 21),
        (END + 1, 0, 21),
        (0, 129, 21),
        (0, 1 << 29, 21),
        (0xFFFFFFF8, 1, 21),
    ],
)
def test_gather_checks_its_table(address, count, status):
    assert FakeGuest().bind(wasi("f", iovecs("x")), lambda *_: None)(address, count) == status


def test_gather_reads_the_first_of_very_many_ranges():
    guest = FakeGuest(size=32 * END)
    guest.write(0, b"x")
    guest.write(8, table((0, 1)) * 1025)
    assert guest.bind(wasi("f", iovecs("x")), lambda *_: None)(8, 1025) == 0
    assert guest.last.args == (b"x" * 1024,)


def test_gather_notices_growth():
    guest = FakeGuest()
    call = guest.bind(wasi("f", iovecs("x")), lambda *_: None)
    guest.write(256, table((2 * END - 1, 1)))
    guest.memory.grow(END)
    guest.write(2 * END - 1, b"z")
    assert call(256, 1) == 0
    assert guest.last.args == (b"z",)


# -- Numbers out -------------------------------------------------------------------------------------------------

NUMBERS_OUT = {
    "u32": (u32_out("x"), 0x01020304, "04030201"),
    "the greatest u32": (u32_out("x"), 0xFFFFFFFF, "ffffffff"),
    "u64": (u64_out("x"), 0x0102030405060708, "0807060504030201"),
    "the greatest u64": (u64_out("x"), (1 << 64) - 1, "ff" * 8),
}


@pytest.mark.parametrize(("param", "value", "written"), NUMBERS_OUT.values(), ids=NUMBERS_OUT)
def test_a_number_is_written_little_endian(param, value, written):
    guest = FakeGuest()
    size = len(written) // 2
    call = guest.bind(row("f", param), lambda *_: value)
    assert call(END - size) == 0
    assert guest.read(END - size - 4, size + 4) == bytes(4) + bytes.fromhex(written)
    assert guest.last == Call(row("f", param), (), value)
    for address in (END - size + 1, END, 0xFFFFFFFF):
        assert call(address) == 6
        assert guest.last.args == ()
        assert guest.last.result.reason == not_inside(size, address)


def test_a_slot_in_memory_that_has_grown():
    guest = FakeGuest()
    guest.memory.grow(END)
    assert guest.bind(row("f", u32_out("x")), lambda *_: 7)(2 * END - 4) == 0
    assert guest.u32(2 * END - 4) == 7


def test_results_in_their_order():
    guest = FakeGuest()
    assert (
        guest.bind(row("f", data_out("x"), u32_out("y"), u64_out("z")), lambda *_: (b"abc", 5, 6))(16, 20, 24, 32) == 0
    )
    assert (guest.returned(16, 20), guest.u32(24), guest.u32(32)) == (b"abc", 5, 6)
    assert guest.last.result == (b"abc", 5, 6)


# -- Bytes out ---------------------------------------------------------------------------------------------------


def test_bytes_are_returned_in_the_guests_own_memory():
    guest = FakeGuest()
    assert guest.bind(row("f", data_out("x")), lambda *_: b"abc")(16, 20) == 0
    assert guest.asked == [3]
    assert (guest.u32(16), guest.u32(20), guest.read(512, 4)) == (512, 3, b"abc\0")


def test_nothing_is_returned_without_asking_for_memory():
    guest = FakeGuest()
    guest.write(16, b"\xff" * 8)
    assert guest.bind(row("f", data_out("x")), lambda *_: b"")(16, 20) == 0
    assert guest.asked == []
    assert guest.read(16, 8) == bytes(8)


@pytest.mark.parametrize(("value", "content"), [([], b""), ([(b"a", b"bc")], ONE_PAIR)])
def test_pairs_are_returned_as_bytes(value, content):
    guest = FakeGuest()
    assert guest.bind(row("f", pairs_out("x")), lambda *_: value)(16, 20) == 0
    assert guest.returned(16, 20) == content
    assert guest.asked == [len(content)] * bool(content)
    assert guest.last.result == value
    assert guest.last.result is not value  # which the guest may change next


SLOTS = {
    # slot of the address, slot of the size → status; what is good is written
    "both at the end": (END - 8, END - 4, 0),
    "the size first": (END - 4, END - 8, 0),
    "the address beyond": (END - 3, 16, 6),
    "the size beyond": (16, END - 3, 6),
    "the address far beyond": (0xFFFFFFFF, 16, 6),
    "the size far beyond": (16, 0xFFFFFFFF, 6),
    "no address": (END, END, 6),
}


@pytest.mark.parametrize(("address_slot", "size_slot", "status"), SLOTS.values(), ids=SLOTS)
def test_slots(address_slot, size_slot, status):
    guest = FakeGuest()
    assert guest.bind(row("f", data_out("x")), lambda *_: b"abc")(address_slot, size_slot) == status
    assert guest.asked == [3]
    if status:
        assert guest.last.result.reason == not_inside(4, address_slot if address_slot > END - 4 else size_slot)
    else:
        assert guest.returned(address_slot, size_slot) == b"abc"


def test_slots_in_memory_that_the_allocator_made():
    guest = FakeGuest()
    guest.guest.use_allocator(lambda _: guest.memory.grow(END) or 512)
    assert guest.bind(row("f", data_out("x")), lambda *_: b"abc")(2 * END - 8, 2 * END - 4) == 0
    assert guest.returned(2 * END - 8, 2 * END - 4) == b"abc"


def test_the_allocator_may_grow_the_memory():
    guest = FakeGuest()

    def grow(size):
        guest.memory.grow(END)
        return 2 * END - size

    guest.guest.use_allocator(grow)
    assert guest.bind(row("f", data_out("x")), lambda *_: b"abc")(16, 20) == 0
    assert guest.returned(16, 20) == b"abc"


BLOCKS = {
    "none": (0, "the guest's allocator returned no memory for 3 bytes"),
    "one beyond": (END - 2, not_inside(3, END - 2)),
    "the end": (END, not_inside(3, END)),
    "round the end": (0xFFFFFFFF, not_inside(3, 0xFFFFFFFF)),
}


@pytest.mark.parametrize(("block", "reason"), BLOCKS.values(), ids=BLOCKS)
def test_an_allocator_that_gives_no_good_memory(block, reason):
    guest = FakeGuest()
    guest.guest.use_allocator(lambda _: block)
    before = bytes(guest.memory.bytes)
    assert guest.bind(row("f", data_out("x")), lambda *_: b"abc")(16, 20) == 6
    assert guest.last == Call(row("f", data_out("x")), (), guest.last.result)
    assert guest.last.result.reason == reason
    assert guest.memory.bytes == before


def test_an_allocator_that_gives_the_last_bytes():
    guest = FakeGuest()
    guest.guest.use_allocator(lambda size: END - size)
    assert guest.bind(row("f", data_out("x")), lambda *_: b"abc")(16, 20) == 0
    assert guest.returned(16, 20) == b"abc"


def test_what_an_allocator_raises_is_raised():
    guest = FakeGuest()

    def trap(size):
        raise ZeroDivisionError

    guest.guest.use_allocator(trap)
    with pytest.raises(ZeroDivisionError):
        guest.bind(row("f", data_out("x")), lambda *_: b"abc")(16, 20)
    assert guest.calls == []


def test_a_guest_without_memory_or_allocator(marshaller):
    calls = []
    new, bind = MARSHALLERS[marshaller]
    guest = new(calls.append, None)
    assert bind(row("f", data("x")), AbiVersion.V0_2_1, never, None, guest)(0, 1) == 6
    assert bind(row("f", u32_out("x")), AbiVersion.V0_2_1, lambda *_: 1, None, guest)(0) == 6
    assert bind(row("f", data_out("x")), AbiVersion.V0_2_1, lambda *_: b"x", None, guest)(0, 4) == 6
    assert [Call(*call).result.reason for call in calls] == [
        not_inside(1, 0, 0),
        not_inside(4, 0, 0),
        "the guest has no allocator yet",
    ]


OPTIONAL = {
    # slots, value → status, blocks asked for, what is at 0, 16 and 20 then
    "both": (16, 20, b"abc", 0, [3], (0, 512, 3)),
    "neither": (0, 0, b"abc", 0, [], (0, 0, 0)),
    "no size": (16, 0, b"abc", 0, [3], (0, 512, 0)),
    "no address": (0, 20, b"abc", 0, [3], (0, 0, 3)),
    "nothing": (16, 20, b"", 0, [], (0, 0, 0)),
    "a bad address": (END, 20, b"abc", 6, [3], (0, 0, 0)),
    "a bad size": (16, END, b"abc", 6, [3], (0, 512, 0)),
    "a bad size alone": (0, END, b"abc", 6, [3], (0, 0, 0)),
}


@pytest.mark.parametrize(
    ("address_slot", "size_slot", "value", "status", "asked", "slots"), OPTIONAL.values(), ids=OPTIONAL
)
def test_an_optional_result(address_slot, size_slot, value, status, asked, slots):
    guest = FakeGuest()
    assert guest.bind(row("f", data_out("x", optional=True)), lambda *_: value)(address_slot, size_slot) == status
    assert guest.asked == asked
    assert (guest.u32(0), guest.u32(16), guest.u32(20)) == slots
    assert status or guest.last.result == value


# -- WASI: results in place --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "address", "status"),
    [(b"abc", END - 3, 0), (b"abc", END - 2, 21), (b"abc", 0xFFFFFFFF, 21), (b"", END, 0), (b"", 0xFFFFFFFF, 0)],
)
def test_bytes_in_place(value, address, status):
    guest = FakeGuest()
    before = bytes(guest.memory.bytes)
    assert guest.bind(wasi("f", bytes_at("x")), lambda *_: value)(address) == status
    if status or not value:
        assert guest.memory.bytes == before
    else:
        assert guest.read(address - 1, 4) == b"\0abc"


def test_bytes_in_place_in_memory_that_has_grown():
    guest = FakeGuest()
    guest.memory.grow(END)
    assert guest.bind(wasi("f", bytes_at("x")), lambda *_: b"abc")(2 * END - 3) == 0
    assert guest.read(2 * END - 3, 3) == b"abc"


STRINGS = wasi("f", Param("x", Kind.STRINGS_AT))


def test_strings_in_place():
    guest = FakeGuest()
    assert guest.bind(STRINGS, lambda *_: [b"ab\0", b"\0", b"cde\0"])(100, 200) == 0
    assert [guest.u32(100), guest.u32(104), guest.u32(108), guest.u32(112)] == [200, 203, 204, 0]
    assert guest.read(199, 10) == b"\0ab\0\0cde\0\0"


@pytest.mark.parametrize(
    ("table_at", "buffer", "status"),
    [(END - 8, 0, 0), (END - 4, 0, 21), (0, END - 6, 0), (0, END - 5, 21), (0xFFFFFFFC, 0, 21), (0, 0xFFFFFFFF, 21)],
)
def test_strings_have_to_fit(table_at, buffer, status):
    assert FakeGuest().bind(STRINGS, lambda *_: [b"ab\0", b"cd\0"])(table_at, buffer) == status


def test_no_strings_fit_anywhere():
    assert FakeGuest().bind(STRINGS, lambda *_: [])(0xFFFFFFFF, 0xFFFFFFFF) == 0


# -- The order of things -----------------------------------------------------------------------------------------

EVERYTHING = row("f", u32("level", LogLevel), data("x"), u32_out("early", early=True), data_out("late"))
GOOD, BAD = 16, END

ORDER = {
    # level, x, early, late → status, what happened, what the early slot at 100 holds then
    "all is good": (0, GOOD, 100, 104, 0, ["handler", "allocator"], 7),
    "a number, before anything else": (6, BAD, BAD, BAD, 2, [], 0xFFFFFFFF),
    "inputs, before slots": (0, BAD, 100, BAD, 6, [], 0xFFFFFFFF),
    "an early slot, before the handler": (0, GOOD, BAD, BAD, 6, [], 0xFFFFFFFF),
    "other slots, after all": (0, GOOD, 100, BAD, 6, ["handler", "allocator"], 7),
}


@pytest.mark.parametrize(("level", "x", "early", "late", "status", "expected", "slot"), ORDER.values(), ids=ORDER)
def test_order(level, x, early, late, status, expected, slot):
    guest = FakeGuest()
    guest.write(100, b"\xff" * 4)
    happened = []

    def handler(vm, level, x):
        happened.append("handler")
        assert guest.u32(100) == 0
        return 7, b"abc"

    def allocate(size):
        happened.append("allocator")
        return 512

    guest.guest.use_allocator(allocate)
    assert guest.bind(EVERYTHING, handler)(level, x, 1, early, late, 108) == status
    assert happened == expected
    assert guest.u32(100) == slot


def test_a_refused_call_writes_nothing_but_its_early_slot():
    guest = FakeGuest()
    guest.write(96, b"\xff" * 32)
    refusal = Refusal(1, "nothing there")
    assert guest.bind(EVERYTHING, lambda *_: refusal)(0, 16, 1, 100, 104, 108) == 1
    assert guest.read(96, 32) == b"\xff" * 4 + bytes(4) + b"\xff" * 24
    assert guest.last == Call(EVERYTHING, (0, b"\0"), refusal)
    assert guest.asked == []


def test_real_rows_with_an_early_slot():
    assert [(r.name, p.name) for r in (*HOSTCALLS, *WASI) for p in r.params if p.early] == [
        ("proxy_http_call", "token"),
        ("fd_readdir", "used"),
    ]


def test_the_handler_gets_the_vm():
    vm = object()
    seen = []
    FakeGuest().bind(row("f"), seen.append, vm)()
    assert seen == [vm]


def test_a_refusal_of_a_call_without_results():
    guest = FakeGuest()
    assert guest.bind(row("f", u32("x")), lambda _vm, x: Refusal(10, "no: {0}", x))(5) == 10
    assert (guest.last.status, guest.last.result.reason) == (10, "no: 5")


def test_what_a_handler_raises_is_raised():
    def broken(vm):
        raise ZeroDivisionError

    guest = FakeGuest()
    with pytest.raises(ZeroDivisionError):
        guest.bind(row("f"), broken)()
    assert guest.calls == []


@pytest.mark.parametrize("error", [QuotaExceeded("no more than 3 queues"), ServiceUnavailable("{0} does not answer")])
@pytest.mark.parametrize("results", [(), (data_out("value"),)])
def test_what_cannot_be_done_is_an_internal_failure(error, results):
    def full(vm, key):
        raise error

    guest = FakeGuest()
    f = row("f", data("key"), *results)
    guest.write(96, b"\xff" * 8)
    assert guest.bind(f, full)(0, 2, *(96, 100)[: 2 * len(results)]) == 10
    assert (guest.last.args, guest.last.status, guest.last.result.reason) == ((b"\0\0",), 10, str(error))
    assert (guest.read(96, 8), guest.asked) == (b"\xff" * 8, [])


def test_bind_refusal():
    guest = FakeGuest()
    refuse = bind_refusal(row("f", data("x")), guest.guest, 10, "not allowed")
    assert refuse(END, END) == refuse() == 10
    assert [Call(*call).args for call in guest.calls] == [None, None]
    assert repr(guest.last.result) == "Refusal(10, 'not allowed')"


def test_braces_in_a_reason_without_values_stay():
    assert Refusal(1, "{0} and {").reason == "{0} and {"


# -- Restricted phases -------------------------------------------------------------------------------------------

RESTRICTED = re.escape("g was called where it may not be (in the allocator, or while the module starts)")


def nested(allowed: frozenset[str] | None, phase: frozenset[str] | None = None):
    """A call of f whose allocator calls g."""
    guest = FakeGuest(allocator_may_call=allowed)
    g = guest.bind(row("g"), lambda *_: None)
    seen = []

    def allocate(size):
        seen.append(guest.guest.allowed)
        g()
        return 512

    guest.guest.use_allocator(allocate)
    guest.guest.allowed = phase
    return guest, guest.bind(row("f", data_out("x")), lambda *_: b"abc"), seen


@pytest.mark.parametrize("phase", [None, frozenset({"f"})])
def test_in_the_allocator_only_some_hostcalls_may_be_made(phase):
    guest, call, seen = nested(frozenset({"h"}), phase)
    with pytest.raises(RestrictedCall, match=f"^{RESTRICTED}$"):
        call(16, 20)
    assert seen == [frozenset({"h"})]
    assert guest.guest.allowed == phase
    assert guest.calls == []


@pytest.mark.parametrize("allowed", [None, frozenset({"g"})])
def test_the_allocator_may_make_these(allowed):
    guest, call, seen = nested(allowed, frozenset({"f"}))
    assert call(16, 20) == 0
    assert seen == [allowed]
    assert guest.guest.allowed == {"f"}
    assert [Call(*call).row.name for call in guest.calls] == ["g", "f"]


def test_a_phase_in_which_nothing_may_be_called():
    guest = FakeGuest()
    call = guest.bind(row("g", u32("level", LogLevel), data("x")), never)
    guest.guest.allowed = frozenset()
    with pytest.raises(RestrictedCall, match=f"^{RESTRICTED}$"):
        call(99, END, END)
    guest.guest.allowed = frozenset({"g"})
    assert call(99, END, END) == 2


# -- What is remembered ------------------------------------------------------------------------------------------


def test_large_arguments_and_results_are_remembered_in_part():
    size = RECORDED + 1
    guest = FakeGuest(size=4 * size)
    call = guest.bind(row("f", data("a"), data_out("b")), lambda _, value: value)
    seen = []
    guest.bind(row("f", data("a")), lambda _, value: seen.append(len(value)))(0, size)
    assert seen == [size]
    call(0, size, 16, 20)
    assert [len(part) for part in guest.last.args] == [RECORDED]
