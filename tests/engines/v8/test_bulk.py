"""Deadlines end what V8 itself would not interrupt, and nothing else about these instructions changes."""

from __future__ import annotations

import time
from array import array
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxywasm_engine_v8 import bulk
from proxywasm_engine_v8.binary import Binary
from proxywasm_engine_v8.reader import Reader, leb
from proxywasm_host.abi import code_section
from proxywasm_host.engine.protocol import Instance, InvalidModule, Limits, Trap, TrapKind
from tests.support import wat

from .support import WAYS, function, take_way, v8

LIMITS = Limits(memory=64 << 20, deadline=0.2)
BIG = 62 << 20
ENDLESS = {
    "memory.fill": "(memory.fill (i32.const 0) (i32.const 1) (i32.const {BIG}))",
    "memory.copy up": "(memory.copy (i32.const 0) (i32.const 1) (i32.const {BIG}))",
    "memory.copy down": "(memory.copy (i32.const 1) (i32.const 0) (i32.const {BIG}))",
    "table.set": "(table.set $t (i32.const 0) (ref.func $f))",
    "memory.grow": "(drop (memory.grow (i32.const 0)))",
    "memory.init": "(memory.init $d (i32.const 0) (i32.const 0) (i32.const 4000000))",
    "table.fill": "(table.fill $t (i32.const 0) (ref.null func) (i32.const 900000))",
    "table.fill of references": "(table.fill $x (i32.const 0) (ref.null extern) (i32.const 900000))",
    "table.copy": "(table.copy $t $t (i32.const 0) (i32.const 1) (i32.const 900000))",
    "table.init": "(table.init $t $e (i32.const 0) (i32.const 0) (i32.const 90000))",
}
MODULE = """(module (memory (export "memory") 993) (table $t 900001 funcref) (table $x 900000 externref)
  (data $d "{DATA}") (elem $e func {ELEMENTS}) (func $f (export "f") {BODY}))"""


def module(body: str) -> bytes:
    data = "a" * 4_000_000 if "$d" in body else ""
    elements = "$f " * 90_000 if "$e" in body else ""
    return wat(MODULE.replace("{DATA}", data).replace("{ELEMENTS}", elements).replace("{BODY}", body))


@pytest.fixture(params=WAYS)
def load(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Callable[[bytes], Instance]:
    take_way(request.param, monkeypatch)
    return lambda code: v8().compile(code).instantiate([], LIMITS)


@pytest.mark.parametrize("shape", ["loop", "line"])
@pytest.mark.parametrize("instruction", ENDLESS)
def test_a_deadline_ends(instruction: str, shape: str, load: Callable[[bytes], Instance]) -> None:
    text = ENDLESS[instruction].format(BIG=BIG)
    if shape == "line" and instruction in ("table.set", "memory.grow"):
        text = f"(loop $m (loop $l {text} (br_if $l (i32.const 0))) (br $m))"
    body = f"(loop $l {text} (br $l))" if shape == "loop" else text * 3000
    instance = load(module(body))
    before = time.monotonic()
    with pytest.raises(Trap) as caught:
        function(instance, "f")()
    assert caught.value.kind is TrapKind.DEADLINE
    assert [frame.function for frame in caught.value.frames] == ["f"]
    assert time.monotonic() - before < 5, "it takes minutes where V8 is left to itself"
    instance.close()


STORES = "(i32.store (i32.const 0) (i32.add (i32.load (i32.const 0)) (i32.const 1)))"


@pytest.mark.parametrize("more", ["", "(call $nothing)"], ids=["calls nothing", "calls what becomes part of it"])
def test_a_deadline_ends_a_loop_around_a_large_function(more: str, load: Callable[[bytes], Instance]) -> None:
    """Which, once it is optimised, V8 by itself enters without a look: ten thousand turns of this one take seconds."""
    instance = load(
        wat(
            f"""(module (memory (export "memory") 1) (func $nothing) (func $large {more} {STORES * 70_000})
            (func $f (export "f") (loop $l (call $large) (br $l))))"""
        )
    )
    before = time.process_time()
    with pytest.raises(Trap) as caught:
        function(instance, "f")()
    assert caught.value.kind is TrapKind.DEADLINE
    assert "f" in [frame.function for frame in caught.value.frames]
    assert time.process_time() - before < 3.5, "it takes five times that where V8 is left to itself"
    instance.close()


def test_a_large_function_does_what_it_did(load: Callable[[bytes], Instance]) -> None:
    """With a memory and without one."""
    for memory in ("(memory 1)", ""):
        body = "(local.set 0 (i32.add (local.get 0) (i32.const 2)))" * 1000
        code = wat(
            f"""(module {memory} (func (export "f") (param i32) (result i32) (local i64 f32) {body} (local.get 0))
            (func (export "g") {"nop " * 4000} unreachable))"""
        )
        instance = load(code)
        assert function(instance, "f")(40) == 2040
        with pytest.raises(Trap) as caught:
            function(instance, "g")()
        assert [code[frame.offset or 0] for frame in caught.value.frames] == [0], "unreachable"


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("return_call", '(func $f (export "f") (return_call $f))'),
        (
            "return_call_indirect",
            '(table 1 funcref) (elem (i32.const 0) $f) (func $f (export "f") (return_call_indirect (i32.const 0)))',
        ),
        (
            "return_call_ref",
            '(type $t (func)) (elem declare func $f) (func $f (export "f") (type $t) (return_call_ref $t (ref.func $f)))',
        ),
    ],
)
def test_tail_calls_are_refused(name: str, text: str, load: Callable[[bytes], Instance]) -> None:
    with pytest.raises(InvalidModule, match="tail call"):
        load(wat(f"(module {text})"))


RANGES = """(module (memory (export "memory") 4)
  (data $d "{DATA}")
  (table $t (export "t") 9000 funcref) (elem $e func {ELEMENTS}) (func $one (result i32) (i32.const 1))
  (func $two (result i32) (i32.const 2))
  (func (export "fill") (param i32 i32 i32) (memory.fill (local.get 0) (local.get 1) (local.get 2)))
  (func (export "copy") (param i32 i32 i32) (memory.copy (local.get 0) (local.get 1) (local.get 2)))
  (func (export "init") (param i32 i32 i32) (memory.init $d (local.get 0) (local.get 1) (local.get 2)))
  (func (export "fill table") (param i32 i32 i32)
    (table.fill $t (local.get 0) (table.get $t (local.get 1)) (local.get 2)))
  (func (export "copy table") (param i32 i32 i32) (table.copy $t $t (local.get 0) (local.get 1) (local.get 2)))
  (func (export "init table") (param i32 i32 i32) (table.init $t $e (local.get 0) (local.get 1) (local.get 2)))
  (func (export "at") (param i32) (result i32) (call_indirect $t (result i32) (local.get 0)))
  (func (export "after") (param i32) (memory.fill (i32.const 0) (i32.const 7) (local.get 0)) unreachable))"""
SIZE = 4 << 16
DATA = bytes(range(48, 58)) * 15_000
AROUND = (0, 1, bulk.BYTES - 1, bulk.BYTES, bulk.BYTES + 1, 2 * bulk.BYTES, 2 * bulk.BYTES + 77, 149_000)


@pytest.fixture
def ranges(load: Callable[[bytes], Instance]) -> Instance:
    elements = " ".join(("$one", "$two")[n % 3 == 0] for n in range(9000))
    return load(wat(RANGES.replace("{DATA}", DATA.decode()).replace("{ELEMENTS}", elements)))


def test_ranges_of_memory_are_filled_and_copied_as_a_whole(ranges: Instance) -> None:
    assert ranges.memory is not None
    expected = bytearray(SIZE)
    for size in AROUND:
        for to, start in ((0, 0), (3, 900), (900, 3), (bulk.BYTES, 0), (0, bulk.BYTES), (70_000, 3)):
            function(ranges, "init")(to, start % 7, size)
            expected[to : to + size] = DATA[start % 7 : start % 7 + size]
            function(ranges, "fill")(start, size & 0xFF, size // 2)
            expected[start : start + size // 2] = bytes([size & 0xFF]) * (size // 2)
            function(ranges, "copy")(to, start, size)
            expected[to : to + size] = expected[start : start + size]
            ranges.memory.refresh()
            assert bytes(ranges.memory.view) == expected


def test_ranges_of_tables_are_filled_and_copied_as_a_whole(ranges: Instance) -> None:
    expected = [1 if n % 3 else 2 for n in range(9000)]
    elements = list(expected)
    function(ranges, "init table")(0, 0, 9000)
    for size in (0, 1, bulk.ELEMENTS, bulk.ELEMENTS + 1, 8900):
        for to, start in ((0, 7), (7, 0), (99, 98)):
            function(ranges, "copy table")(to, start, size)
            expected[to : to + size] = expected[start : start + size]
            function(ranges, "fill table")(to, start, size // 2)
            expected[to : to + size // 2] = [expected[start]] * (size // 2)
            assert [function(ranges, "at")(n) for n in range(9000)] == expected
            function(ranges, "init table")(start, to, size // 3)
            expected[start : start + size // 3] = elements[to : to + size // 3]


@pytest.mark.parametrize("name", ["fill", "copy", "init"])
@pytest.mark.parametrize("to", [SIZE - 9, SIZE - bulk.BYTES - 9, 0xFFFF_FFF0])
def test_beyond_memory_is_a_trap_of_the_guests_function(name: str, to: int, ranges: Instance) -> None:
    with pytest.raises(Trap) as caught:
        function(ranges, name)(to, 0, bulk.BYTES + 10)
    assert caught.value.kind is TrapKind.OUT_OF_BOUNDS
    assert len(caught.value.frames) == 1


def test_positions_are_those_of_the_module_as_it_came(load: Callable[[bytes], Instance]) -> None:
    code = wat(RANGES.replace("{DATA}", "").replace("{ELEMENTS}", ""))
    with pytest.raises(Trap) as caught:
        function(load(code), "after")(bulk.BYTES * 2)
    (frame,) = caught.value.frames
    assert frame.offset is not None
    assert code[frame.offset] == 0, "unreachable"


FILTERS = sorted((Path(__file__).parent.parent / "filters").glob("*/*.wasm"))


def sections(code: bytes) -> dict[int, tuple[int, int]]:
    reader, found = Reader(code, 8), {}
    while reader.at < len(code):
        id, size = reader.byte(), reader.number()
        found[id] = reader.at, reader.at + size
        reader.take(size)
    return found


@pytest.mark.parametrize("path", FILTERS, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_both_forms_make_the_same_of_real_filters(path: Path) -> None:
    code = path.read_bytes()
    place = sections(code)[10]
    ranges, stopped = bulk.ranges_in_python(code, *place)
    assert stopped == -1
    assert ranges is not None
    assert bulk.ranges_of(code, *place) == (ranges, -1)
    for has_memory in (True, False):
        check_both_forms(code, place, ranges, first=200, has_memory=has_memory)


def check_both_forms(code: bytes, place: tuple[int, int], ranges: bytes, first: int, *, has_memory: bool) -> None:
    """Of what becomes of the code of a module."""
    given = code, *place, ranges, first, has_memory
    edits, instructions, large = planned = bulk.planned_in_python(*given)
    assert bulk.planned(*given) == planned
    assert large == [(number, size) for number, size in large if size >= bulk.LARGE]
    calls = [instruction * 2 for instruction in instructions]
    joined = ([b"before", memoryview(b"this")], code, (*place, edits, calls), [b"after"])
    assert bulk.joined(*joined) == bulk.joined_in_python(*joined)


def places(*pairs: tuple[int, int]) -> bytes:
    return array("Q", [at for pair in pairs for at in pair]).tobytes()


SAMPLE = module("(loop $l (br_table $l $l (i32.const 0))) " + "".join(text.format(BIG=1) for text in ENDLESS.values()))
START, END = sections(SAMPLE)[10]


@pytest.mark.parametrize(
    ("body", "edits"),
    [
        ("01 01 fc 0b 40 00 1a 0b", [(4, 6)]),  # no such type: one byte all the same
        ("00 1f 80 01 01 02 00 0b 40 00 1a 0b", [(8, 10)]),  # try_table, of type 128
        ("00 1f 63 70 01 01 00 00 0b 40 00 1a 0b", [(9, 11)]),
        ("00 1c 01 64 70 40 00 1a 0b", [(5, 7)]),
    ],
)
def test_both_forms_read_types(body: str, edits: list[tuple[int, int]]) -> None:
    made = bytes.fromhex(body)
    code = bytes([1, len(made)]) + made
    expected = places(*((2 + here, 2 + behind) for here, behind in edits)), -1
    assert bulk.ranges_of(code, 0, len(code)) == bulk.ranges_in_python(code, 0, len(code)) == expected


@given(st.lists(st.tuples(st.integers(START, END - 1), st.integers(0, 255)), max_size=3), st.integers(0, 30))
def test_both_forms_agree_on_what_is_malformed(changes: list[tuple[int, int]], cut: int) -> None:
    code = bytearray(SAMPLE)
    for at, value in changes:
        code[at] = value
    end = max(END - cut, START)
    given = bytes(code), START, end
    ranges, stopped = found = bulk.ranges_in_python(*given)
    assert bulk.ranges_of(*given) == found
    if stopped < 0 and ranges is not None:
        check_both_forms(bytes(code), (START, end), ranges, 9, has_memory=True)


def test_too_many_instructions_that_become_calls_are_refused(load: Callable[[bytes], Instance]) -> None:
    body = b"\0" + b"\x41\0\x40\0\x1a" * 150_000 + b"\x0b"
    bodies = b"\7" + (leb(len(body)) + body) * 7
    code = b"\0asm\1\0\0\0\1\4\1\x60\0\0\3\x08\7" + bytes(7) + b"\5\3\1\0\1\x0a" + leb(len(bodies)) + bodies
    with pytest.raises(InvalidModule, match="more than 1048576 instructions that fill, copy or grow"):
        load(code)


def test_many_functions(load: Callable[[bytes], Instance]) -> None:
    """The number of a function that is added has three bytes: all that follows is elsewhere."""
    functions = "(func)" * 17_000
    body = "(memory.fill (i32.const 0) (i32.const 1) (i32.const 9))" * 30
    code = wat(
        f'(module (memory 1) {functions} (func $g (export "g") {body} unreachable) (func (export "h") unreachable))'
    )
    instance = load(code)
    for name in ("g", "h"):
        with pytest.raises(Trap) as caught:
            function(instance, name)()
        assert [code[frame.offset or 0] for frame in caught.value.frames] == [0]
    assert Binary(code).original(0) is None


ENTRIES = [
    (prefix, code, kind)
    for prefix, table in zip((None, 0xFC, 0xFD), (code_section._PLAIN, code_section._MORE, code_section._VECTOR), strict=True)
    for code, (kind, _) in table.items()
    if kind not in (code_section.MORE, code_section.MORE_VECTOR, code_section.END, code_section.ELSE)
]
NUMBERS = st.integers(0, 2**32 - 1)
PADDED = st.integers(0, 3)


def number(value: int, padding: int) -> bytes:
    """A number in as many bytes as it needs, and some more, as far as five."""
    text = leb(value)
    more = min(padding, 5 - len(text))
    return text if more <= 0 else text[:-1] + bytes([text[-1] | 0x80]) + b"\x80" * (more - 1) + b"\0"


@st.composite
def instructions(draw: st.DrawFn) -> tuple[bytes, bool]:
    """An instruction that the core knows, with any immediates; and whether it is one that is done by a function here."""
    prefix, code, kind = draw(st.sampled_from(ENTRIES))
    one = lambda: number(draw(NUMBERS), draw(PADDED))  # noqa: E731
    memory = lambda: number(draw(st.integers(0, 31)), draw(PADDED)) + one()  # noqa: E731
    c, targets = code_section, draw(st.integers(0, 4))
    shape: dict[int, Callable[[], bytes]] = {
        **dict.fromkeys((c.NUMBER, c.BRANCH, c.BRANCH_IF, c.REFERENCE, c.CALL, c.GROW_TABLE, c.DROP_SEGMENT, c.RANGE), one),
        **dict.fromkeys((c.RANGE_OF_TWO, c.CALL_INDIRECT), lambda: one() + one()),
        c.MEMORY: memory,
        c.MEMORY_AND_LANE: lambda: memory() + draw(st.binary(min_size=1, max_size=1)),
        c.FOUR_BYTES: lambda: draw(st.binary(min_size=4, max_size=4)),
        c.EIGHT_BYTES: lambda: draw(st.binary(min_size=8, max_size=8)),
        c.SIXTEEN_BYTES: lambda: draw(st.binary(min_size=16, max_size=16)),
        c.LANE: lambda: draw(st.binary(min_size=1, max_size=1)),
        **dict.fromkeys((c.BLOCK, c.LOOP, c.IF), lambda: draw(st.sampled_from([b"\x40", b"\x7f", b"\x7b", b"\5", b"\x80\1"]))),
        c.BRANCH_TABLE: lambda: number(targets, 0) + b"".join(one() for _ in range(targets + 1)),
        c.SELECT: lambda: b"\1" + draw(st.sampled_from([b"\x7f", b"\x70", b"\x7b", b"\x63\x83\x0e", b"\x64\x70"])),
    }  # fmt: skip
    opcode = bytes([code]) if prefix is None else bytes([prefix]) + number(code, draw(PADDED))
    behind = shape.get(kind, lambda: b"")()
    ranges = prefix == 0xFC and code in (8, 10, 11, 12, 14, 17)
    return opcode + behind, ranges or (prefix is None and code in (0x26, 0x40))


@given(st.lists(instructions(), max_size=12))
def test_the_cores_walk_and_this_one_go_the_same_way(drawn: list[tuple[bytes, bool]]) -> None:
    """Between any two instructions stands a call, which the core counts, and a growth, which is edited here."""
    body, edits = bytearray(b"\0"), []
    for text, edited in drawn:
        if edited:
            edits.append((len(body), len(body) + len(text)))
        body += text
        edits.append((len(body), len(body) + 2))
        body += b"\x40\0\x10\0"
    body += b"\x0b" * (1 + len(drawn))
    size = leb(len(body))
    code = b"\1" + size + body
    at = 1 + len(size)
    expected = places(*((at + here, at + behind) for here, behind in edits))
    for walk in (bulk.ranges_of, bulk.ranges_in_python):
        assert walk(code, 0, len(code)) == (expected, -1)
    read = code_section.read_code(code, (0, len(code)), [(0, 0)], [0, 0], 1)
    own = [text for text, _ in drawn]
    others = sum(1 if text[0] == 0x10 else code_section.INDIRECT if text[0] == 0x11 else 0 for text in own)
    others += sum(text[0] == 0xFC and Reader(text, 1).number() in (9, 13, 15) for text in own)
    assert (read.stopped, read.calls.most, read.ranges) == (-1, len(drawn) + others, expected)
