"""Handles the code that V8 does not interrupt in time: tail calls, and instructions on whole ranges.

V8 checks for interrupts where a function begins. In a loop, code of its first tier checks only when the loop has used
up the budget after which it is optimised, that is tens of thousands of turns. A function that ends in a tail call does
not check at all. So, for deadlines to hold:

* A module with tail calls is refused.
* ``memory.copy``, ``memory.fill``, ``memory.init``, and those of tables, become calls of functions at the end of the
  module, one for each of these with other immediates, which do so many `BYTES` or `ELEMENTS` at a time and call
  themselves for each part. (What a range that reaches too far holds before its end is written before the trap.)
* So do ``memory.grow`` and ``table.set``, as they are: they take V8 a microsecond or more.
* A function that is `LARGE` begins with a call that is never made. For one that calls nothing, once it is optimised
  and what it called is part of it, does not look where it begins: and those tens of thousands of turns take seconds.

Where such instructions are, the host may know; else `ranges_of` finds them, which takes milliseconds for megabytes.
"""

from __future__ import annotations

import re
from array import array
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate

from .extension import load
from .reader import Malformed, Reader, Refused, leb, vector

__all__ = ["BYTES", "ELEMENTS", "LARGE", "MOST", "Bodies", "interruptible", "joined"]

BYTES, ELEMENTS = 64 << 10, 4 << 10
"""What one instruction does at most: some microseconds; for elements that are functions, some milliseconds."""

LARGE = 2 << 10
"""Bytes of a function that takes a microsecond, and more."""

MOST = 1 << 20
"""Instructions that a module may have of those that become calls."""

_LEB = rb"[\x80-\xff]*[\x00-\x7f]"
_MEMARG = rb"(?:[\x00-\x3f]|[\x40-\x7f]" + _LEB + rb"|[\x80-\xff]+[\x00-\x7f])" + _LEB
_HEAP_TYPE = rb"(?:[\x63\x64]|(?![\x63\x64]))" + _LEB  # of a reference behind these, else any other type
_PLAIN = rb"|".join(
    (
        rb"[\x00\x01\x05\x0a\x0b\x0f\x19-\x1b\x45-\xc4\xd1\xd3\xd4]+",
        rb"[\x07-\x09\x0c\x0d\x10\x14\x18\x20-\x25\x3f\x41\x42\xd0\xd2\xd5\xd6]" + _LEB,
        rb"[\x28-\x3e]" + _MEMARG,
        rb"[\x02-\x04\x06]" + _HEAP_TYPE,
        rb"\x11" + _LEB + _LEB,
        rb"\x43[\s\S]{4}",
        rb"\x44[\s\S]{8}",
        rb"\xfc[\x00-\x07]",
        rb"\xfc[\x09\x0d\x0f\x10]" + _LEB,
        rb"\xfd(?:[\x00-\x0b\x5c\x5d]" + _MEMARG + rb"|[\x54-\x5b]" + _MEMARG + rb"[\s\S])",
        rb"\xfd[\x0c\x0d][\s\S]{16}",
        rb"\xfd[\x15-\x22][\s\S]",
        rb"\xfd(?:[\x0e-\x14\x23-\x53\x5e-\x7f]|[\x80-\xff]+[\x01-\x7f])",
        rb"\xfe(?:\x03\x00|(?!\x03)[\x00-\x7f]" + _MEMARG + rb")",
    )
)
_RUN = re.compile(rb"(?:" + _PLAIN + rb"){1,4096}")  # an end to it, for each of them is remembered meanwhile
_LABELS, _SELECT, _TRY = 0x0E, 0x1C, 0x1F
_VECTOR, _ATOMIC = 0xFD, 0xFE
_PREFIXES = 0xFC, 0xFD, 0xFE
_LAST_CONVERSION, _FENCE, _WITH_MEMORY = 7, 3, 0x40
_TABLE_SET, _GROW = _SLOW = 0x26, 0x40
_TAIL_CALLS = {0x12: "return_call", 0x13: "return_call_indirect", 0x15: "return_call_ref"}
_INIT, _COPY, _FILL, _TABLE_INIT, _TABLE_COPY, _TABLE_FILL = 8, 10, 11, 12, 14, 17
_QUICK = (9, 13, 15, 16)  # to drop a segment, to grow a table, to tell its size
_IMMEDIATES = {_INIT: 2, _COPY: 2, _FILL: 1, _TABLE_INIT: 2, _TABLE_COPY: 2, _TABLE_FILL: 1, **dict.fromkeys(_QUICK, 1)}


@dataclass
class Bodies:
    """What the contents of a code section become for V8."""

    start: int
    """Where they begin in the module as it came."""
    end: int
    edits: bytes = b""
    """What is replaced: where it begins and ends in the module, and by what. That is the number of one of `calls`, or,
    if negative, -1 less the size of a function, which stands there. Of 64 bits each."""
    calls: Sequence[bytes] = ()
    types: Sequence[bytes] = ()
    """Of the functions that are called."""
    added: Sequence[bytes] = ()
    """Those functions."""
    large: Sequence[tuple[int, int]] = ()
    """Of functions that are `LARGE`: the number among those that have code, and the bytes."""

    @property
    def size(self) -> int:
        """How many bytes they have."""
        return self._guests + sum(map(len, self.added))

    def original(self, position: int) -> int | None:
        """Where something was that is at `position` of the contents; ``None`` for what is not the guest's."""
        if not 0 <= position < self._guests:
            return None
        starts, shifts = self._shifted
        at = bisect_right(starts, position)
        return position - shifts[at - 1] if at else position

    @cached_property
    def _guests(self) -> int:
        """How many bytes of them are the guest's."""
        return self.end - self.start + sum(moved for _, moved in self._moves())

    @cached_property
    def _shifted(self) -> tuple[list[int], list[int]]:
        """Where what is shifted begins, and by how much it is; sought when somebody asks, for there are many."""
        moves = list(self._moves())
        shifts = list(accumulate(moved for _, moved in moves))
        return [at - self.start + shift for (at, _), shift in zip(moves, shifts, strict=True)], shifts

    def _moves(self) -> Iterator[tuple[int, int]]:
        """Where something follows in the module, and how many bytes more than there were put before it."""
        for at, behind, which in _triples(self.edits):
            yield behind, len(_replacement(self.calls, which)) - (behind - at)


def _triples(edits: bytes) -> Iterator[tuple[int, int, int]]:
    numbers = iter(array("q", edits))
    return zip(numbers, numbers, numbers, strict=True)


def _replacement(calls: Sequence[bytes], which: int) -> bytes:
    return calls[which] if which >= 0 else leb(-1 - which)


def interruptible(
    code: bytes,
    start: int,
    end: int,
    first: int,
    elements: Sequence[bytes],
    *,
    has_memory: bool,
    ranges: bytes | None = None,
) -> Bodies:
    """A code section that V8 interrupts in time; without a memory, large functions are left as they are.

    Function `first` is the next that there is not; `elements` are the types of the tables' elements; `ranges` are what
    `ranges_of` gives, if somebody knows.

    Raises: Refused, Malformed.
    """
    if ranges is None:
        ranges, stopped = ranges_of(code, start, end)
        if stopped >= 0:
            raise _unreadable(code, stopped)
    if ranges is None or len(ranges) > 16 * MOST:
        raise Refused(
            f"more than {MOST} instructions that fill, copy or grow are refused: each becomes a call, which a "
            "deadline can end"
        )
    edits, instructions, large = planned(code, start, end, ranges, first, has_memory)
    if not edits:
        return Bodies(start, end, large=large)
    numbered = list(enumerate(instructions, first))
    calls = [b"\x10" + leb(index) if instruction else _never(index) for index, instruction in numbered]
    types = [_type(instruction, elements) for instruction in instructions]
    added = [_helper(instruction, index) for index, instruction in numbered]
    return Bodies(start, end, edits, calls, types, added, large)


def ranges_in_python(code: bytes, start: int, end: int) -> tuple[bytes | None, int]:
    """Where instructions on ranges begin and end, of 64 bits each, and -1; ``None`` if there are more than `MOST`.

    Or nothing, and where the code cannot be read.
    """
    found = array("Q")
    here = start
    try:
        reader = Reader(code, start, end)
        for _ in range(reader.number()):
            here = reader.at
            size = reader.number()
            body = Reader(code, reader.at, reader.at + size)
            reader.skip(size)
            here = body.at
            _skip_locals(body)
            while body.at < body.end:
                run = _RUN.match(code, body.at, body.end)
                if run:
                    body.at = run.end()
                    continue
                here = body.at
                if _skip_instruction(body):
                    found.extend((here, body.at))
    except Malformed:
        return b"", here
    return found.tobytes() if len(found) <= 2 * MOST else None, -1


def planned_in_python(
    code: bytes, start: int, end: int, ranges: bytes, first: int, has_memory: bool
) -> tuple[bytes, list[bytes], list[tuple[int, int]]]:
    """What is to be replaced in a code section, and by calls for which instructions, an empty one for a call that is
    never made; and the large functions. See `Bodies`.

    Raises: Malformed.
    """
    edits = array("q")
    calls: dict[bytes, int] = {}
    large = []
    numbers = iter(array("Q", ranges))
    places = zip(numbers, numbers, strict=True)
    place = next(places, None)
    reader = Reader(code, start, end)
    count_at = reader.at
    count = reader.number()
    first_body = reader.at
    for number in range(count):
        before, size = reader.at, reader.number()
        begin = reader.at
        reader.skip(size)
        own = array("q")
        if size >= LARGE:
            large.append((number, size))
            if has_memory:
                body = Reader(code, begin, reader.at)
                _skip_locals(body)
                own.extend((body.at, body.at, calls.setdefault(b"", len(calls))))
                size += len(_never(first + own[2]))
        while place is not None and place[0] < reader.at:
            instruction = code[place[0] : place[1]]
            which = calls.setdefault(instruction, len(calls))
            own.extend((*place, which))
            size += 1 + len(leb(first + which)) - len(instruction)
            place = next(places, None)
        if own:
            edits.extend((before, begin, -1 - size))
            edits += own
    if not edits:
        return b"", [], large
    return array("q", (count_at, first_body, -1 - count - len(calls))).tobytes() + edits.tobytes(), list(calls), large


def joined_in_python(
    before: Sequence[bytes | memoryview],
    code: bytes,
    bodies: tuple[int, int, bytes, Sequence[bytes]],
    after: Sequence[bytes | memoryview],
) -> bytes:
    """What is `before`, a part of `code` after its edits (begin, end, edits and calls: see `Bodies`), and what is
    `after`: megabytes, which are put together once."""
    at, end, edits, calls = bodies
    view = memoryview(code)
    output = [*before]
    for here, behind, which in _triples(edits):
        output += (view[at:here], _replacement(calls, which))
        at = behind
    return b"".join((*output, view[at:end], *after))


def _skip_locals(body: Reader) -> None:
    for _ in range(body.number()):
        body.number()
        body.value_type()


def _skip_instruction(body: Reader) -> bool:
    """Skip an instruction that is not plain, and tell whether it is one on a range. Raises: Malformed."""
    opcode = body.byte()
    if opcode == _LABELS:
        body.skip_numbers(body.number() + 1)
    elif opcode == _SELECT:
        body.vector(body.value_type)
    elif opcode == _TRY:
        if body.at < body.end and body.data[body.at] in (0x63, 0x64):  # a reference, the type of a block's value
            body.byte()
        body.number()
        for _ in range(body.number()):
            body.skip_numbers(2 if body.number() < 2 else 1)
    elif opcode in _SLOW:
        body.number()
        return True
    elif opcode in _PREFIXES:  # here with numbers that are longer than they need be, too
        return _skip_numbered(body, opcode, body.number())
    else:
        raise Malformed("an instruction that is not known here")
    return False


def _skip_numbered(body: Reader, prefix: int, kind: int) -> bool:
    if prefix == _ATOMIC and kind == _FENCE:
        body.byte()
    elif prefix == _ATOMIC:
        _skip_memory_argument(body)
    elif prefix == _VECTOR:
        if kind <= 0x0B or 0x54 <= kind <= 0x5D:
            _skip_memory_argument(body)
        body.skip(16 if kind in (0x0C, 0x0D) else int(0x15 <= kind <= 0x22 or 0x54 <= kind <= 0x5B))
    elif kind in _IMMEDIATES:
        body.skip_numbers(_IMMEDIATES[kind])
        return kind not in _QUICK
    elif kind > _LAST_CONVERSION:
        raise Malformed("an instruction that is not known here")
    return False


def _skip_memory_argument(body: Reader) -> None:
    body.skip_numbers(2 if body.number() & _WITH_MEMORY else 1)


def _unreadable(code: bytes, at: int) -> Exception:
    name = _TAIL_CALLS.get(code[at])
    if name is None:
        return Malformed(f"an instruction that is not known here, at {at:#x}")
    return Refused(f"tail calls are refused on V8 ({name} at {at:#x}): no deadline ends a loop of them")


_native = load()[0]
ranges_of = ranges_in_python if _native is None else _native.ranges_of
planned = planned_in_python if _native is None else _native.planned
joined = joined_in_python if _native is None else _native.joined


# The functions at the end are made of these, with the locals: where to, what or where from, how many.
_TO, _FROM, _COUNT = b"\x20\0", b"\x20\1", b"\x20\2"
_ADD, _SUBTRACT, _AT_MOST, _NOT = b"\x6a", b"\x6b", b"\x4d", b"\x45"
_LOOP, _IF, _ELSE, _AGAIN, _END = b"\x03\x40", b"\x04\x40", b"\x05", b"\x0c\1", b"\x0b"
_SET_TO, _SET_FROM, _SET_COUNT = b"\x21\0", b"\x21\1", b"\x21\2"


def _never(index: int) -> bytes:
    """A call of a function if the memory has no pages: it never has none, which V8 does not know."""
    return b"\x3f\0" + _NOT + _IF + b"\x10" + leb(index) + _END


def _type(instruction: bytes, elements: Sequence[bytes]) -> bytes:
    """The type of the function for an instruction, or of the one that is never called."""
    if not instruction:
        return b"\x60\0\0"
    if instruction[0] == _GROW:
        return b"\x60\1\x7f\1\x7f"
    reader = Reader(instruction, 1)
    if instruction[0] == _TABLE_SET:
        return b"\x60\2\x7f" + elements[reader.number()] + b"\0"
    second = b"\x7f" if reader.number() != _TABLE_FILL else elements[reader.number()]
    return b"\x60\3\x7f" + second + b"\x7f\0"


def _helper(instruction: bytes, index: int) -> bytes:
    """The function `index`, which does what an instruction does, or is never called."""
    if not instruction:
        body = vector([]) + _never(index) + _END
        return leb(len(body)) + body
    if instruction[0] in _SLOW:
        body = vector([]) + _TO + (_FROM if instruction[0] == _TABLE_SET else b"") + instruction + _END
        return leb(len(body)) + body
    kind = Reader(instruction, 1).number()
    part = b"\x41" + leb(BYTES if kind in (_INIT, _COPY, _FILL) else ELEMENTS)
    advance_to, advance_from = _TO + part + _ADD + _SET_TO, _FROM + part + _ADD + _SET_FROM
    less = _COUNT + part + _SUBTRACT + _SET_COUNT
    do = part + b"\x10" + leb(index)
    forward = _TO + _FROM + do + advance_to + (b"" if kind in (_FILL, _TABLE_FILL) else advance_from) + less
    if kind in (_COPY, _TABLE_COPY):  # from the end where it begins within what is copied
        backward = less + _TO + _COUNT + _ADD + _FROM + _COUNT + _ADD + do
        forward = _TO + _FROM + _AT_MOST + _IF + forward + _ELSE + backward + _END
    parts = _LOOP + _COUNT + part + _AT_MOST + _NOT + _IF + forward + _AGAIN + _END + _END
    body = vector([]) + parts + _TO + _FROM + _COUNT + instruction + _END
    return leb(len(body)) + body
