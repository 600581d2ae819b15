"""Measures the code of a module: the figures that determine the cost of compiling it.

Every instruction is read once and not kept. The engine decides whether the code is valid; the figures of invalid code
are those of the part that can be read. The C form (``native/code_section.c``) is 200 times faster.

Source: WebAssembly core specification 3.0, "Binary Format: Instructions", and the proposals that it names.
"""

from __future__ import annotations

import re
from array import array
from collections.abc import Sequence
from functools import cache, lru_cache
from typing import Final, NamedTuple

from proxywasm_host import wasm
from proxywasm_host.abi.native import NATIVE, check_constants
from proxywasm_host.errors import ModuleError
from proxywasm_host.wasm import Reader

__all__ = ["PROPOSALS", "Code", "Figure", "proposal_of", "read_code"]


class Figure(NamedTuple):
    """The largest value of a figure, and the index of the function that has it, among the functions with code."""

    most: int
    function: int


class Code(NamedTuple):
    """The largest figures of any function, and sums over all functions."""

    body: Figure
    """Bytes of a function's code."""
    locals: Figure
    """Parameters and locals of a function."""
    depth: Figure
    """Depth of nested blocks."""
    loops: Figure
    """Depth of nested loops."""
    targets: Figure
    """Targets of one ``br_table``."""
    merges: Figure
    """Values (locals and stack) that branches merge, summed over all branches of a function. They can make the cost of
    compiling more than linear in the size of the code."""
    calls: Figure
    """Calls in a function. An indirect call counts as `INDIRECT` calls, because it costs at least as much. Each result
    after the first counts as a call, and so does an instruction that calls the engine (``table.grow``, ``elem.drop``,
    ``data.drop``)."""
    optimising: Figure
    """Microseconds that V8 needs to optimise a function, estimated with `OPTIMISING`."""
    all_merges: int
    """The merges of all functions."""
    all_optimising: int
    """Microseconds that V8 needs to optimise all `slow` functions."""
    grows_tables: bool
    stopped: int
    """Position of the first instruction that is not allowed; -1 if all are allowed."""
    slow: tuple[int, ...]
    """Indices, among the functions with code, of those that need more than `SLOW` to be optimised."""
    ranges: bytes | None
    """Start and end of each instruction that works on a range of memory or of a table, and of each ``memory.grow`` and
    ``table.set``, as positions of 64 bits in the module. ``None`` for more than `MOST_RANGES` instructions."""


# The immediates of an instruction, or its special treatment.
(
    UNKNOWN,
    NOTHING,
    NUMBER,
    FOUR_BYTES,
    EIGHT_BYTES,
    SIXTEEN_BYTES,
    LANE,
    MEMORY,
    MEMORY_AND_LANE,
    BLOCK,
    LOOP,
    IF,
    ELSE,
    END,
    BRANCH,
    BRANCH_IF,
    BRANCH_TABLE,
    LEAVE,
    LEAVE_TO,
    SELECT,
    CALL,
    CALL_INDIRECT,
    GROW_TABLE,
    MORE,
    MORE_VECTOR,
    TRY_TABLE,
    DELEGATE,
    SPLIT,
    REFERENCE,
    DROP_SEGMENT,
    DIVIDE,
    RANGE,
    RANGE_OF_TWO,
) = range(33)
check_constants(
    UNKNOWN=UNKNOWN,
    NOTHING=NOTHING,
    NUMBER=NUMBER,
    FOUR_BYTES=FOUR_BYTES,
    EIGHT_BYTES=EIGHT_BYTES,
    SIXTEEN_BYTES=SIXTEEN_BYTES,
    LANE=LANE,
    MEMORY=MEMORY,
    MEMORY_AND_LANE=MEMORY_AND_LANE,
    BLOCK=BLOCK,
    LOOP=LOOP,
    IF=IF,
    ELSE=ELSE,
    END=END,
    BRANCH=BRANCH,
    BRANCH_IF=BRANCH_IF,
    BRANCH_TABLE=BRANCH_TABLE,
    LEAVE=LEAVE,
    LEAVE_TO=LEAVE_TO,
    SELECT=SELECT,
    CALL=CALL,
    CALL_INDIRECT=CALL_INDIRECT,
    GROW_TABLE=GROW_TABLE,
    MORE=MORE,
    MORE_VECTOR=MORE_VECTOR,
    TRY_TABLE=TRY_TABLE,
    DELEGATE=DELEGATE,
    SPLIT=SPLIT,
    REFERENCE=REFERENCE,
    DROP_SEGMENT=DROP_SEGMENT,
    DIVIDE=DIVIDE,
    RANGE=RANGE,
    RANGE_OF_TWO=RANGE_OF_TWO,
)

_NUMERIC = (
    # first, last, effect on the height of the stack
    (0x45, 0x45, 0),
    (0x46, 0x4F, -1),
    (0x50, 0x50, 0),
    (0x51, 0x66, -1),
    (0x67, 0x69, 0),
    (0x6A, 0x78, -1),
    (0x79, 0x7B, 0),
    (0x7C, 0x8A, -1),
    (0x8B, 0x91, 0),
    (0x92, 0x98, -1),
    (0x99, 0x9F, 0),
    (0xA0, 0xA6, -1),
    (0xA7, 0xC4, 0),
)
_PLAIN: Final[dict[int, tuple[int, int]]] = {
    0x00: (LEAVE, 0),
    0x01: (NOTHING, 0),
    0x02: (BLOCK, 0),
    0x03: (LOOP, 0),
    0x04: (IF, -1),
    0x05: (ELSE, 0),
    0x0B: (END, 0),
    0x0C: (BRANCH, 0),
    0x0D: (BRANCH_IF, -1),
    0x0E: (BRANCH_TABLE, -1),
    0x0F: (LEAVE, 0),
    0x10: (CALL, 0),
    0x11: (CALL_INDIRECT, -1),
    0x1A: (NOTHING, -1),
    0x1B: (NOTHING, -2),
    0x1C: (SELECT, -2),
    0x20: (NUMBER, 1),
    0x21: (NUMBER, -1),
    0x22: (NUMBER, 0),
    0x23: (NUMBER, 1),
    0x24: (NUMBER, -1),
    0x25: (REFERENCE, 0),
    0x26: (RANGE, -2),
    **dict.fromkeys(range(40, 54), (MEMORY, 0)),
    **dict.fromkeys(range(54, 63), (MEMORY, -2)),
    0x3F: (NUMBER, 1),
    0x40: (RANGE, 0),
    0x41: (NUMBER, 1),
    0x42: (NUMBER, 1),
    0x43: (FOUR_BYTES, 1),
    0x44: (EIGHT_BYTES, 1),
    **{code: (NOTHING, effect) for first, last, effect in _NUMERIC for code in range(first, last + 1)},
    **dict.fromkeys((0x6D, 0x6F, 0x7F, 0x81), (DIVIDE, -1)),
    0xD0: (NUMBER, 1),
    0xD1: (NOTHING, 0),
    0xD2: (REFERENCE, 1),
    0xFC: (MORE, 0),
    0xFD: (MORE_VECTOR, 0),
}
_MORE: Final[dict[int, tuple[int, int]]] = {
    **dict.fromkeys(range(8), (SPLIT, 0)),  # saturating conversions
    8: (RANGE_OF_TWO, -3),
    9: (DROP_SEGMENT, 0),
    10: (RANGE_OF_TWO, -3),
    11: (RANGE, -3),
    12: (RANGE_OF_TWO, -3),
    13: (DROP_SEGMENT, 0),
    14: (RANGE_OF_TWO, -3),
    15: (GROW_TABLE, -1),
    16: (NUMBER, 1),
    17: (RANGE, -3),
}
_UNARY_VECTOR = (
    *range(15, 21), 77, 83, *range(94, 96), 96, 97, 98, 99, 100, *range(103, 107), 116, 117, 122, 124, 125, 126, 127,
    128, 129, 131, 132, 135, 136, 137, 138, 148, 160, 161, 163, 164, 167, 168, 169, 170, 192, 193, 195, 196, 199, 200,
    201, 202, 224, 225, 227, 236, 237, 239, *range(248, 256),
)  # fmt: skip
_VECTOR: Final[dict[int, tuple[int, int]]] = {
    **dict.fromkeys(range(14, 256), (NOTHING, -1)),
    **dict.fromkeys(_UNARY_VECTOR, (NOTHING, 0)),
    **dict.fromkeys((*range(11), 92, 93), (MEMORY, 0)),
    11: (MEMORY, -2),
    12: (SIXTEEN_BYTES, 1),
    13: (SIXTEEN_BYTES, -1),
    **dict.fromkeys((21, 22, 24, 25, 27, 29, 31, 33), (LANE, 0)),
    **dict.fromkeys((23, 26, 28, 30, 32, 34), (LANE, -1)),
    82: (NOTHING, -2),
    **dict.fromkeys(range(84, 88), (MEMORY_AND_LANE, -1)),
    **dict.fromkeys(range(88, 92), (MEMORY_AND_LANE, -2)),
}
_ALLOWED_IF_ASKED: Final[dict[str, tuple[dict[int, tuple[int, int]], ...]]] = {
    "exceptions": (
        {
            0x06: (BLOCK, 0),
            0x07: (ELSE, 0),
            0x08: (LEAVE_TO, 0),
            0x09: (LEAVE_TO, 0),
            0x0A: (LEAVE, 0),
            0x18: (DELEGATE, 0),
            0x19: (ELSE, 0),
            0x1F: (TRY_TABLE, 0),
        },
        {},
        {},
    ),
    "tail calls": ({0x12: (LEAVE_TO, 0), 0x13: (CALL_INDIRECT, -1)}, {}, {}),
    "relaxed SIMD": ({}, {}, dict.fromkeys(range(256, 276), (NOTHING, -1))),
}
_OTHERS: Final = (
    # Proposals that are never allowed: first and last opcode, first and last number after a prefix, name.
    (0x14, 0x15, 0, 0, "typed function references"),
    (0x28, 0x3E, 0, 0, "multiple memories"),
    (0xD3, 0xD3, 0, 0, "garbage collection"),
    (0xD4, 0xD6, 0, 0, "typed function references"),
    (0xE0, 0xE6, 0, 0, "stack switching"),
    (0xFB, 0xFB, 0, 1 << 32, "garbage collection"),
    (0xFC, 0xFC, 18, 18, "memory control"),
    (0xFC, 0xFC, 19, 22, "wide arithmetic"),
    (0xFD, 0xFD, 0, 11, "multiple memories"),
    (0xFD, 0xFD, 84, 93, "multiple memories"),
    (0xFE, 0xFE, 0, 1 << 32, "threads"),
)


def proposal_of(opcode: int, more: int) -> str | None:
    """The proposal that an instruction belongs to, or ``None`` if it belongs to no known one."""
    for proposal, tables in _ALLOWED_IF_ASKED.items():
        for prefix, table in zip((None, 0xFC, 0xFD), tables, strict=True):
            if (opcode in table) if prefix is None else (opcode == prefix and more in table):
                return proposal
    for first, last, first_more, last_more, proposal in _OTHERS:
        if first <= opcode <= last and (opcode < 0xFB or first_more <= more <= last_more):
            return proposal
    return None


PROPOSALS: Final = frozenset(_ALLOWED_IF_ASKED)
"""Proposals that can be allowed."""
_VECTORS = 276
_OF_ANOTHER_MEMORY = 0x40
"""If the flags of a load or store are at least this, the number of a memory follows them."""
MOST_RANGES: Final = 1 << 20


@cache
def _simple() -> re.Pattern[bytes]:
    """A pattern for the instructions that need no context, with a group for each effect on the stack."""
    behind = {
        NOTHING: b"",
        NUMBER: wasm.NUMBER,
        MEMORY: b"[\x00-\x3f]" + wasm.NUMBER,
        FOUR_BYTES: b".{4}",
        EIGHT_BYTES: b".{8}",
    }
    groups = []
    for wanted in _EFFECTS[1:]:
        codes = {code: kind for code, (kind, effect) in _PLAIN.items() if kind in behind and effect == wanted}
        alone = wanted != 0
        one = b"|".join(
            re.escape(bytes([code])) + behind[kind] for code, kind in codes.items() if alone or code not in _NOTED
        )
        groups.append(b"((?:" + one + (b"))" if alone else b")+)"))
    return re.compile(b"|".join(groups), re.DOTALL)


_EFFECTS: Final = (0, 0, 1, -1, -2)
_END, _GET_LOCAL, _TEE_LOCAL, _IS_ZERO = 0x0B, 0x20, 0x22, 0x45
_NOTED: Final = (_TEE_LOCAL, _IS_ZERO)
"""Instructions without effect on the stack that end a run of plain ones, because a branch after one may be a choice."""


@lru_cache(8)
def _tables(allowed: frozenset[str]) -> tuple[bytes, bytes]:
    """Kinds and stack effects, a byte for each instruction: plain ones, then those after 0xFC, then after 0xFD."""
    kinds, effects = bytearray(256 + 256 + _VECTORS), array("b", bytes(256 + 256 + _VECTORS))
    for asked in ((_PLAIN, _MORE, _VECTOR), *(_ALLOWED_IF_ASKED[name] for name in sorted(allowed))):
        for first, table in zip((0, 256, 512), asked, strict=True):
            for code, (kind, effect) in table.items():
                kinds[first + code], effects[first + code] = kind, effect
    return bytes(kinds), effects.tobytes()


def read_code(
    data: bytes,
    section: tuple[int, int],
    types: Sequence[tuple[int, int]],
    functions: Sequence[int],
    imported: int,
    allowed: frozenset[str] = frozenset(),
) -> Code:
    """Measure the code section of a module.

    Args:
        section: its start and end in `data`.
        types: the numbers of parameters and results of each function type.
        functions: the type of each function, imported ones first.
        imported: the number of imported functions.
        allowed: names of proposals whose instructions are allowed, in addition to those of every engine.
    """
    read = _read_code if NATIVE is None else NATIVE.read_code
    flat = array("Q", (params | results << 32 for params, results in types))
    kinds, effects = _tables(allowed)
    weights = array("d", (*OPTIMISING, SLOW)).tobytes()
    figures, all_merges, all_optimising, grows, stopped, slow, ranges = read(
        data, *section, kinds, effects, flat.tobytes(), array("Q", functions).tobytes(), imported, weights
    )
    body, locals, depth, loops, targets, merges, calls, optimising = (
        Figure(*figures[at : at + 2]) for at in range(0, len(figures), 2)
    )
    return Code(
        body,
        locals,
        depth,
        loops,
        targets,
        merges,
        calls,
        optimising,
        all_merges,
        all_optimising,
        grows,
        stopped,
        tuple(slow),
        ranges,
    )


INDIRECT: Final = 10
check_constants(VECTORS=_VECTORS, INDIRECT=INDIRECT, MOST_RANGES=MOST_RANGES)
SLOW: Final = 40_000
"""A function that needs more microseconds than this should not be optimised during a call."""


class Optimising(NamedTuple):
    """Microseconds that V8's optimising compiler needs for each unit of a figure."""

    bytes: float
    merges: float
    calls: float
    locals_squared: float
    """Values of a function, all of which may be live at the same time."""
    phis: float
    """Each local that a loop may set counts three times, and once more for each branch back to the loop."""
    phis_squared: float
    """Registers are allocated for all values at each phi."""
    splits: float
    """An instruction that splits the code: a loop, a branch back to one, an indirect call, a signed division, a
    ``catch``. A saturating conversion and a ``throw`` count as two, a ``table.get`` and a ``ref.func`` as three."""
    splits_squared: float
    targets_squared: float
    """All targets of a function's ``br_table``."""
    choices_squared: float
    """A branch on a local or on a block's result, or on whether it is zero; a ``br_table`` counts as two. If the value
    is known on one of the paths to the branch, V8 copies the code that follows."""


OPTIMISING: Final = Optimising(0.74, 0.1, 2.5, 0.002, 0.5, 0.0002, 10.0, 0.0065, 0.001, 0.13)
"""Measured on V8 14.4. 190 shapes of code, each as expensive as its size allows, need hardly more than the estimate, as
does the code of filters. 1,800 random functions need at most 1.5 times the estimate."""
_MOST = 1 << 32
_MAX_MERGES = 1 << 62
check_constants(MOST=_MOST, MAX_MERGES=_MAX_MERGES)
"""Counters stop at this number."""


def _read_code(
    data: bytes,
    start: int,
    end: int,
    kinds: bytes,
    effects: bytes,
    types: bytes,
    functions: bytes,
    imported: int,
    weights: bytes,
) -> tuple[tuple[int, ...], int, int, bool, int, list[int], bytes | None]:
    """The Python form of `_native.read_code`.

    Returns: pairs of a figure and its function, all merges, the time of slow functions, whether tables grow, the
    position of the first instruction that is not allowed, the slow functions, and the positions of instructions on
    ranges.
    """
    known = array("Q", types), array("Q", functions)
    *costs, most_quick = array("d", weights)
    reader = Reader(data, start, end)
    best = [0, 0] * 8
    slow: list[int] = []
    ranges = array("Q")
    all_merges, all_optimising, grows, stopped = 0, 0, False, -1
    try:
        for index in range(reader.leb()):
            size = reader.leb()
            body = _Body(data, reader.at, min(reader.at + size, end), *known, kinds, effects)
            body.read(imported + index)
            optimising = body.optimising(size, Optimising(*costs))
            for at, figure in enumerate((size, *body.figures(), optimising)):
                if figure > best[2 * at]:
                    best[2 * at : 2 * at + 2] = figure, index
            if optimising > most_quick:
                slow.append(index)
                all_optimising = min(all_optimising + optimising, _MAX_MERGES)
            all_merges = min(all_merges + body.merges, _MAX_MERGES)
            grows = grows or body.grows
            ranges += body.ranges
            if stopped < 0:
                stopped = body.stopped
            reader.take(size)
    except ModuleError:
        pass
    all_ranges = ranges.tobytes() if len(ranges) <= 2 * MOST_RANGES else None
    return tuple(best), all_merges, all_optimising, grows, stopped, slow, all_ranges


class _Block:
    """An open block: the height of the stack below it, the numbers of its parameters and results, and, for a loop, its
    start and the number of branches back to it."""

    __slots__ = ("backs", "below", "loop_at", "params", "results")

    def __init__(self, below: int, params: int, results: int, loop_at: int = -1) -> None:
        self.below, self.params, self.results, self.loop_at = below, params, results, loop_at
        self.backs = 0


class _Body:
    """The figures of one function."""

    def __init__(
        self, data: bytes, at: int, end: int, types: array[int], functions: array[int], kinds: bytes, effects: bytes
    ) -> None:
        self._reader = Reader(data, at, end)
        self._types, self._functions = types, functions
        self._kinds = kinds
        self._effects = array("b", effects)
        self.locals = self.depth = self.loops = self.targets = self.merges = self.calls = 0
        self.phis = self.splits = self.all_targets = self.choices = 0
        self.grows = False
        self.stopped = -1
        self.ranges = array("Q")

    def figures(self) -> tuple[int, ...]:
        """The figures except size and time, in the order of `Code`."""
        return self.locals, self.depth, self.loops, self.targets, self.merges, self.calls

    def optimising(self, size: int, each: Optimising) -> int:
        """The microseconds of `Code.optimising`."""
        needed = size * each.bytes + self.merges * each.merges + self.calls * each.calls + self.phis * each.phis
        needed += float(self.locals) * float(self.locals) * each.locals_squared
        phis, splits = float(self.phis), float(self.splits)
        targets, choices = float(self.all_targets), float(self.choices)
        needed += phis * phis * each.phis_squared + splits * each.splits + splits * splits * each.splits_squared
        needed += targets * targets * each.targets_squared + choices * choices * each.choices_squared
        return int(min(needed, _MAX_MERGES))

    def _arity(self, type: int) -> tuple[int, int]:
        packed = self._types[type] if type < len(self._types) else 0
        return packed & _MOST - 1, packed >> 32

    def _block(self) -> tuple[int, int]:
        """The numbers of parameters and results of a block."""
        first = self._reader.data[self._reader.at] if self._reader.at < self._reader.end else 0
        type = self._reader.leb()
        if first == 0x40:
            return 0, 0
        if first & 0xC0 == 0x40:  # a negative number of one byte is the type of a single result
            if first in (0x63, 0x64):
                self._reader.leb()
            return 0, 1
        return self._arity(type)

    def _merge(self, height: int, targets: int = 1) -> None:
        self.merges = min(self.merges + (self.locals + height) * targets, _MAX_MERGES)

    def _phis(self, values: int, backs: int) -> None:
        self.phis += values * (3 + backs)

    def _branch(self, blocks: Sequence[_Block], depth: int) -> None:
        """Count a branch to the label at this depth, if it goes back to a loop."""
        if depth < len(blocks) and blocks[-1 - depth].loop_at >= 0:
            blocks[-1 - depth].backs += 1
            self.splits += 1

    def read(self, index: int) -> None:
        """Read the function with this index among all functions."""
        try:
            type = self._functions[index] if index < len(self._functions) else len(self._types)
            self._read(*self._arity(type))
        except ModuleError:
            pass

    def _read(self, params: int, results: int) -> None:
        reader, kinds, effects, match = self._reader, self._kinds, self._effects, _simple().match
        byte, number, take = reader.byte, reader.leb, reader.take
        self.locals = params
        for _ in range(number()):
            self.locals = min(self.locals + number(), _MOST)
            if number() in (0x63, 0x64):
                number()
        blocks = [_Block(0, 0, results)]
        height = loops = 0
        last = before = 0  # the last two instructions
        while True:
            below = blocks[-1].below
            while found := match(reader.data, reader.at, reader.end):
                before, last = last, reader.data[reader.at]
                if found.lastindex == 1:  # a run of plain instructions
                    before = last
                reader.at = found.end()
                height = max(height + _EFFECTS[found.lastindex or 0], below)
            at = reader.at
            code = byte()
            kind = kinds[code]
            if kind in (MORE, MORE_VECTOR):
                first, count = (256, 256) if kind == MORE else (512, _VECTORS)
                more = number()
                code = first + more
                kind = kinds[code] if more < count else UNKNOWN
            if kind == UNKNOWN:
                self.stopped = at
                return
            if kind in (IF, BRANCH_IF, BRANCH_TABLE):
                value = before if last == _IS_ZERO else last
                if value in (_END, _GET_LOCAL, _TEE_LOCAL):
                    self.choices += 2 if kind == BRANCH_TABLE else 1
            before, last = last, reader.data[at]
            height = max(height + effects[code], blocks[-1].below)
            if kind == NOTHING:
                pass
            elif kind == NUMBER:
                number()
            elif kind in (RANGE, RANGE_OF_TWO):
                number()
                if kind == RANGE_OF_TWO:
                    number()
                self.ranges.extend((at, reader.at))
            elif kind in (MEMORY, MEMORY_AND_LANE):
                if number() >= _OF_ANOTHER_MEMORY:
                    self.stopped = at
                    return
                number()
                if kind == MEMORY_AND_LANE:
                    take(1)
            elif kind == FOUR_BYTES:
                take(4)
            elif kind == EIGHT_BYTES:
                take(8)
            elif kind == SIXTEEN_BYTES:
                take(16)
            elif kind == LANE:
                take(1)
            elif kind in (BLOCK, LOOP, IF, TRY_TABLE):
                params, results = self._block()
                if kind == TRY_TABLE:
                    for _ in range(number()):
                        if byte() < 2:
                            number()
                        number()
                        self._merge(height)
                        self.splits += 1
                self._merge(height)
                is_loop = kind == LOOP
                below = max(height - params, blocks[-1].below)
                blocks.append(_Block(below, params, results, reader.at if is_loop else -1))
                loops += is_loop
                self.splits += is_loop
                self.depth = max(self.depth, len(blocks) - 1)
                self.loops = max(self.loops, loops)
            elif kind == ELSE:
                self._merge(height)
                height = blocks[-1].below + blocks[-1].params
                if code == 0x07:
                    number()
            elif kind in (END, DELEGATE):
                ended = blocks.pop()
                if kind == DELEGATE:
                    number()
                if not blocks:
                    return
                height = ended.below + ended.results
                if ended.loop_at >= 0:  # setting a local takes two bytes or more
                    loops -= 1
                    self._phis(min(self.locals, (reader.at - ended.loop_at) // 2), ended.backs)
            elif kind == BRANCH_IF:
                self._branch(blocks, number())
                self._merge(height)
            elif kind == BRANCH:
                self._branch(blocks, number())
                self._merge(height)
                height = blocks[-1].below
            elif kind == BRANCH_TABLE:
                targets = number()
                self.targets = max(self.targets, targets)
                targets = min(targets, reader.end - reader.at) + 1
                self.all_targets += targets
                self._merge(height, targets)
                for _ in range(targets):
                    self._branch(blocks, number())
                height = blocks[-1].below
            elif kind == LEAVE:
                height = blocks[-1].below
            elif kind == LEAVE_TO:
                self.splits += 2
                number()
                height = blocks[-1].below
            elif kind == SELECT:
                for _ in range(number()):
                    if number() in (0x63, 0x64):
                        number()
            elif kind == CALL:
                callee = number()
                self.calls += 1
                type = self._functions[callee] if callee < len(self._functions) else len(self._types)
                params, results = self._arity(type)
                self.calls += max(results - 1, 0)
                height = max(height - params, blocks[-1].below) + results
            elif kind == CALL_INDIRECT:
                params, results = self._arity(number())
                self.calls += INDIRECT + max(results - 1, 0)
                self.splits += 1
                number()
                height = max(height - params, blocks[-1].below) + results
            elif kind == SPLIT:
                self.splits += 2
            elif kind == DIVIDE:
                self.splits += 1
            elif kind == DROP_SEGMENT:
                self.calls += 1
                number()
            elif kind == REFERENCE:
                self.splits += 3
                number()
            elif kind == GROW_TABLE:
                self.calls += 1
                number()
                self.grows = True
