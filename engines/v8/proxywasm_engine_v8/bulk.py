"""Changes code that V8 does not interrupt in time: tail calls, and instructions on whole ranges.

V8 checks for interrupts at the beginning of a function. In a loop, code of the first tier checks only when the loop has
used up its budget before optimisation: tens of thousands of iterations. A function that ends in a tail call does not
check at all. So that deadlines hold:

* A module with tail calls is refused.
* ``memory.copy``, ``memory.fill``, ``memory.init`` and their counterparts for tables become calls of functions at the
  end of the module, one for each combination of instruction and immediates. Such a function handles `BYTES` or
  `ELEMENTS` at a time, and calls itself for each part. (If a range is out of bounds, the parts before its end are
  written before the trap.)
* ``memory.grow`` and ``table.set`` become calls too, but are not divided: each takes V8 a microsecond or more.
* A `LARGE` function begins with a call that is never made. Without it, an optimised function into which all its callees
  are inlined would not check at its beginning, and tens of thousands of iterations of its caller take seconds.

The host may pass the positions of such instructions; otherwise `ranges_of` finds them, in milliseconds per megabyte.
"""

from __future__ import annotations

import re
from array import array
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate

from proxywasm_host.extension import check_constants
from proxywasm_host.forks import cached_property

from .extension import NATIVE
from .reader import Malformed, Reader, Refused, leb, vector

__all__ = ["BYTES", "ELEMENTS", "LARGE", "MOST", "Bodies", "interruptible", "joined"]

BYTES, ELEMENTS = 64 << 10, 4 << 10
"""The most that one instruction handles: this takes microseconds, or milliseconds for elements that are functions."""

LARGE = 2 << 10
"""Size in bytes from which a function takes a microsecond or more."""

MOST = 1 << 20
"""How many instructions of a module may become calls."""

_LEB = rb"[\x80-\xff]*[\x00-\x7f]"
_MEMARG = rb"(?:[\x00-\x3f]|[\x40-\x7f]" + _LEB + rb"|[\x80-\xff]+[\x00-\x7f])" + _LEB
_HEAP_TYPE = rb"(?:[\x63\x64]|(?![\x63\x64]))" + _LEB  # after 63 or 64, a reference's heap type
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
_RUN = re.compile(rb"(?:" + _PLAIN + rb"){1,4096}")  # limited, because `re` stores each repetition while it matches
_LABELS, _SELECT, _TRY = 0x0E, 0x1C, 0x1F
_VECTOR, _ATOMIC = 0xFD, 0xFE
_PREFIXES = 0xFC, 0xFD, 0xFE
_LAST_CONVERSION, _FENCE, _WITH_MEMORY = 7, 3, 0x40
_TABLE_SET, _GROW = _SLOW = 0x26, 0x40
_TAIL_CALLS = {0x12: "return_call", 0x13: "return_call_indirect", 0x15: "return_call_ref"}
_INIT, _COPY, _FILL, _TABLE_INIT, _TABLE_COPY, _TABLE_FILL = 8, 10, 11, 12, 14, 17
_QUICK = (9, 13, 15, 16)  # data.drop and elem.drop, table.grow, table.size
_IMMEDIATES = {_INIT: 2, _COPY: 2, _FILL: 1, _TABLE_INIT: 2, _TABLE_COPY: 2, _TABLE_FILL: 1, **dict.fromkeys(_QUICK, 1)}


@dataclass
class Bodies:
    """The contents of a code section, as they are changed for V8."""

    start: int
    """Position of the contents in the original module."""
    end: int
    edits: bytes = b""
    """The replaced parts, three 64-bit integers each: begin and end in the original module, and the replacement. This
    is an index in `calls`; a negative number -1 - n means the number n (a size or a count) in LEB128."""
    calls: Sequence[bytes] = ()
    types: Sequence[bytes] = ()
    """The types of the called functions."""
    added: Sequence[bytes] = ()
    """The called functions."""
    large: Sequence[tuple[int, int]] = ()
    """The `LARGE` functions: number (without imported functions) and size in bytes."""

    @property
    def size(self) -> int:
        """Size of the changed contents in bytes."""
        return self._guests + sum(map(len, self.added))

    def original(self, position: int) -> int | None:
        """Convert an offset in the changed contents to one in the original; ``None`` for added functions."""
        if not 0 <= position < self._guests:
            return None
        starts, shifts = self._shifted
        at = bisect_right(starts, position)
        return position - shifts[at - 1] if at else position

    @cached_property
    def _guests(self) -> int:
        """Size of the changed contents without the added functions, in bytes."""
        return self.end - self.start + sum(moved for _, moved in self._moves())

    @cached_property
    def _shifted(self) -> tuple[list[int], list[int]]:
        """Offsets from which code is shifted, and by how many bytes. Computed on demand, because there are many."""
        moves = list(self._moves())
        shifts = list(accumulate(moved for _, moved in moves))
        return [at - self.start + shift for (at, _), shift in zip(moves, shifts, strict=True)], shifts

    def _moves(self) -> Iterator[tuple[int, int]]:
        """For each edit, its end in the original module, and the number of bytes that it adds."""
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
    """A code section that V8 interrupts in time. In modules without a memory, large functions are not changed.

    Args:
        first: The index of the first added function.
        elements: The types of the elements of each table.
        ranges: The result of `ranges_of`, if known.

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
    """The begin and end of each instruction on ranges, as 64-bit integers; ``None`` if there are more than `MOST`.

    The second result is -1. If the code cannot be read, it is the position of the error, and the first one is empty.
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
    """The edits of a code section, the instructions that become calls, and the large functions: see `Bodies`.

    An empty instruction represents a call that is never made.

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
    """Join `before`, a part of `code` with its edits, and `after`, in a single copy: modules have megabytes.

    `bodies` has the begin and end of the part, its edits, and their calls: see `Bodies`.
    """
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
    """Skip an instruction that is not plain. Returns whether it works on a range. Raises: Malformed."""
    opcode = body.byte()
    if opcode == _LABELS:
        body.skip_numbers(body.number() + 1)
    elif opcode == _SELECT:
        body.vector(body.value_type)
    elif opcode == _TRY:
        if body.at < body.end and body.data[body.at] in (0x63, 0x64):  # the block's type is a reference
            body.byte()
        body.number()
        for _ in range(body.number()):
            body.skip_numbers(2 if body.number() < 2 else 1)
    elif opcode in _SLOW:
        body.number()
        return True
    elif opcode in _PREFIXES:  # numbers with redundant bytes come here too
        return _skip_numbered(body, opcode, body.number())
    else:
        raise Malformed("an unknown instruction")
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
        raise Malformed("an unknown instruction")
    return False


def _skip_memory_argument(body: Reader) -> None:
    body.skip_numbers(2 if body.number() & _WITH_MEMORY else 1)


def _unreadable(code: bytes, at: int) -> Exception:
    name = _TAIL_CALLS.get(code[at])
    if name is None:
        return Malformed(f"an unknown instruction, at {at:#x}")
    return Refused(f"tail calls are refused on V8 ({name} at {at:#x}): no deadline ends a loop of them")


check_constants(NATIVE, LARGE=LARGE, MOST=MOST)
ranges_of = ranges_in_python if NATIVE is None else NATIVE.ranges_of
planned = planned_in_python if NATIVE is None else NATIVE.planned
joined = joined_in_python if NATIVE is None else NATIVE.joined


# Parts of the added functions. Their parameters are the destination, the source or value, and the count.
_TO, _FROM, _COUNT = b"\x20\0", b"\x20\1", b"\x20\2"
_ADD, _SUBTRACT, _AT_MOST, _NOT = b"\x6a", b"\x6b", b"\x4d", b"\x45"
_LOOP, _IF, _ELSE, _AGAIN, _END = b"\x03\x40", b"\x04\x40", b"\x05", b"\x0c\1", b"\x0b"
_SET_TO, _SET_FROM, _SET_COUNT = b"\x21\0", b"\x21\1", b"\x21\2"


def _never(index: int) -> bytes:
    """A call of a function if the memory has no pages: that is never true, but V8 cannot prove it."""
    return b"\x3f\0" + _NOT + _IF + b"\x10" + leb(index) + _END


def _type(instruction: bytes, elements: Sequence[bytes]) -> bytes:
    """The type of the function that replaces `instruction`; if it is empty, of the function that is never called."""
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
    """The code of function `index`, which replaces `instruction`; if it is empty, the function is never called."""
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
    if kind in (_COPY, _TABLE_COPY):  # backwards if the destination begins inside the source
        backward = less + _TO + _COUNT + _ADD + _FROM + _COUNT + _ADD + do
        forward = _TO + _FROM + _AT_MOST + _IF + forward + _ELSE + backward + _END
    parts = _LOOP + _COUNT + part + _AT_MOST + _NOT + _IF + forward + _AGAIN + _END + _END
    body = vector([]) + parts + _TO + _FROM + _COUNT + instruction + _END
    return leb(len(body)) + body
