"""Checks a module before any engine gets it: its size and shape, the proposals that it uses, and the types of its
imports and exports.

The time to compile a module is linear in the size of its code, except for three things that filters rarely have: values
that many branches merge, nested loops, and long lists in sections, which each engine stores in its own way. These are
limited to several times the figures of large filters (production plugins of 10 MB; Coraza, a web application firewall
in Go, of 25 MB). docs/modules.md has the seconds and bytes that a module within the limits can still cost on each
engine.

Engines differ in the proposals that they support. Proposals that no SDK uses are refused, with the same message for all
engines.

Source: the limits of engines (the JavaScript interface of WebAssembly, "Implementation-defined Limits"), where those
are lower.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field, fields
from functools import cache
from pathlib import Path
from typing import Final

from proxywasm_host.abi.code_section import PROPOSALS, Code, proposal_of, read_code
from proxywasm_host.errors import ModuleError
from proxywasm_host.extension import checksum
from proxywasm_host.services.log import printable
from proxywasm_host.wasm import (
    CODE,
    CUSTOM,
    DATA,
    ELEMENT,
    EXPORT,
    FUNCTION,
    GLOBAL,
    IMPORT,
    MEMORY,
    TABLE,
    TAG,
    TYPE,
    VALUE_TYPES,
    Binary,
    FunctionSignature,
    Reader,
)

__all__ = [
    "DEFAULT_MODULE_LIMITS",
    "ModuleLimits",
    "bounded_tables",
    "check_code",
    "check_sections",
    "check_size",
    "is_small",
    "memory_beside_tables",
]

NUMBERS: Final = frozenset({"i32", "i64", "f32", "f64"})
TABLE_GROWTH: Final = 1024
"""Most elements by which a table may grow."""
ELEMENT_BYTES: Final = 16
"""Bytes that each element of a table counts for."""
_GC_FORMS: Final = (0x4E, 0x4F, 0x50, 0x5E, 0x5F)
_SHARED, _WIDE, _PAGE_SIZE = 2, 4, 8
"""Bits in the flags of a memory or a table."""
_SOURCES: Final = (
    Path(__file__),
    Path(__file__).with_name("code_section.py"),
    Path(__file__).parent.parent / "wasm.py",
)
"""Sources that decide which modules pass and how they are changed. Their C form computes the same figures."""


@dataclass(frozen=True, slots=True)
class ModuleLimits:
    """Limits on the size of a module and its parts; ``None`` for no limit.

    Args:
        size: bytes of the module.
        functions: functions with code.
        body: bytes of the code of one function.
        locals: parameters and locals of one function.
        depth: nested blocks.
        loops: nested loops.
        targets: targets of one ``br_table``.
        merges: values (locals and stack) that branches merge, summed over all branches of a function.
        all_merges: the sum of that over all functions.
        calls: calls in one function. An indirect call counts as ten; each result after the first counts as one, and so
            do ``table.grow``, ``elem.drop`` and ``data.drop``, which call the engine.
        optimising: microseconds that an optimising compiler needs for one function, by an estimate for V8.
        all_optimising: the sum of that over all functions that need more than 40 ms each.
        types: types of functions.
        values: parameters, or results, of one type.
        imports, exports, globals: their numbers in the module.
        name: letters of the name of an import or export.
        tables: their number in the module.
        elements: initial elements of all tables together.
        segments: segments of elements, and elements that are expressions.
        data: segments of data.
        names: names of functions and other things, for backtraces.
        compile_seconds: processor time that compiling may take.
        compile_memory: bytes that compiling may take.
        proposals: names of proposals that a module may use beyond those of all engines: ``"exceptions"``,
            ``"tail calls"``, ``"relaxed SIMD"``. An engine may still refuse one.

    ``compile_seconds`` and ``compile_memory`` apply if the engine can serialise compiled code. A module that is not
    small is then compiled in a separate process; if that process fails, the module is refused with the reason.

    Raises: ValueError, for an unknown proposal.
    """

    size: int | None = 64 << 20
    functions: int | None = 50_000
    body: int | None = 1 << 20
    locals: int | None = 10_000
    depth: int | None = 20_000
    loops: int | None = 100
    targets: int | None = 65_000
    merges: int | None = 2_000_000
    all_merges: int | None = 50_000_000
    calls: int | None = 20_000
    optimising: int | None = 2_000_000
    all_optimising: int | None = 20_000_000
    types: int | None = 2_000
    values: int | None = 100
    imports: int | None = 1_000
    exports: int | None = 10_000
    globals: int | None = 10_000
    name: int | None = 1_000
    tables: int | None = 10
    elements: int | None = 1_000_000
    segments: int | None = 10_000
    data: int | None = 100_000
    names: int | None = 100_000
    compile_seconds: float | None = 120.0
    compile_memory: int | None = 2 << 30
    proposals: frozenset[str] = field(default=frozenset())

    def __post_init__(self) -> None:
        object.__setattr__(self, "proposals", frozenset(self.proposals))  # limits must be hashable
        if unknown := sorted(set(self.proposals) - PROPOSALS):
            raise ValueError(f"no proposal is called {unknown[0]!r}; known are {', '.join(sorted(PROPOSALS))}")

    @property
    def fingerprint(self) -> str:
        """Text that changes with the limits, and with the code of ours that checks and changes modules."""
        values = (getattr(self, part.name) for part in fields(self) if part.name != "proposals")
        return f"{_revision()} {' '.join(map(str, values))} {' '.join(sorted(self.proposals))}"


@cache
def _revision() -> int | None:
    return checksum(path for path in _SOURCES if path.is_file())


DEFAULT_MODULE_LIMITS: Final = ModuleLimits()
_COUNTED: Final = (
    # section, limit, noun
    (TYPE, "types", "types"),
    (IMPORT, "imports", "imports"),
    (FUNCTION, "functions", "functions"),
    (TABLE, "tables", "tables"),
    (GLOBAL, "globals", "globals"),
    (EXPORT, "exports", "exports"),
    (ELEMENT, "segments", "segments of elements"),
    (DATA, "data", "segments of data"),
)


def check_size(data: bytes, limits: ModuleLimits) -> None:
    """Refuse a module for its size. Raises: ModuleError."""
    _within(limits, "size", len(data), "the module has {} bytes or more")


def check_sections(bytecode: Binary, limits: ModuleLimits) -> None:
    """Check all sections of a module except the code. Takes microseconds.

    Raises: ModuleError.
    """
    for section, limit, what in _COUNTED:
        if reader := bytecode.section(section):
            _within(limits, limit, reader.leb(), f"the module has {{}} {what}")
    _check_types(bytecode, limits)
    _check_memories(bytecode)
    _check_tables(bytecode, limits)
    if bytecode.section(TAG) and "exceptions" not in limits.proposals:
        raise _refused("exceptions")
    _check_elements(bytecode, limits)
    _within(limits, "names", _names(bytecode), "the module has {} names")
    for module, name, kind, signature in bytecode.imports:
        where = f"import {_short(module)}.{_short(name)}"
        _check_name(where, module + name, max(len(module), len(name)), limits)
        if kind == "function":
            _check_signature(where, signature)
    types = _global_types(bytecode, limits)
    imported = sum(kind == "global" for _, _, kind, _ in bytecode.imports)
    for name, kind, signature, index in bytecode.export_entries:
        where = f"export {_short(name)}"
        _check_name(where, name, len(name), limits)
        if kind == "function":
            _check_signature(where, signature)
        elif kind == "global" and imported <= index < imported + len(types):
            type = types[index - imported]
            if type not in NUMBERS:
                raise ModuleError(f"{where} is a global of the type {type}, which cannot cross between guest and host")


def check_code(bytecode: Binary, limits: ModuleLimits) -> Code | None:
    """Check the code of a module whose sections have been checked. Takes a millisecond for half a megabyte.

    Returns: the figures of the code, or ``None`` if there is no code.

    Raises: ModuleError.
    """
    place = next(((start, end) for section, start, end in bytecode.sections if section == CODE), None)
    if place is None:
        return None
    types = [(len(params), len(results)) for params, results in bytecode.types]
    index_of = {signature: at for at, signature in enumerate(bytecode.types)}
    imported = [
        -1 if signature is None else index_of[signature]
        for _, _, kind, signature in bytecode.imports
        if kind == "function"
    ]
    functions = [*imported, *bytecode.functions]
    code = read_code(bytecode.data, place, types, functions, len(imported), limits.proposals)
    first = len(imported)

    def refuse_if(figure: str, what: str) -> None:
        most, function = getattr(code, figure)
        _within(limits, figure, most, f"function {first + function} {what}")

    refuse_if("body", "has {} bytes of code")
    refuse_if("locals", "has {} parameters and locals")
    refuse_if("depth", "has {} nested blocks")
    refuse_if("loops", "has {} nested loops")
    refuse_if("targets", "has a br_table of {} targets")
    refuse_if("merges", "merges {} values at its branches")
    refuse_if("calls", "has {} calls (an indirect one counts as ten)")
    refuse_if("optimising", "needs {} microseconds to be optimised, by estimate")
    slow = "the functions that take more than 40 ms each need {} microseconds to be optimised"
    _within(limits, "all_optimising", code.all_optimising, slow)
    _within(limits, "all_merges", code.all_merges, "the functions merge {} values at their branches")
    if code.stopped >= 0:
        reader = Reader(bytecode.data, code.stopped, len(bytecode.data))
        opcode = reader.byte()
        more = reader.leb() if opcode in (0xFB, 0xFC, 0xFD, 0xFE) else 0
        proposal = proposal_of(opcode, more)
        if proposal is not None:
            raise _refused(proposal, code.stopped)
    return code


def is_small(bytecode: Binary, code: Code | None) -> bool:
    """Whether a checked module cannot take an engine more than a second or two to compile."""
    if code is None:
        return True
    counts = ((FUNCTION, 2_000), (ELEMENT, 100), (TYPE, 200))
    readers = ((bytecode.section(section), most) for section, most in counts)
    return (
        bytecode.size_of(CODE) <= 256 << 10
        and bytecode.size_of(ELEMENT) <= 16 << 10
        and code.body.most <= 16 << 10
        and code.all_merges <= 100_000
        and not code.slow
        and _names(bytecode) <= 10_000
        and all(reader is None or reader.leb() <= most for reader, most in readers)
    )


def memory_beside_tables(bytecode: Binary, limit: int | None) -> int | None:
    """Bytes that the memory may have, if memory and tables together may have `limit`.

    Raises: ModuleError, if that is less than the memory's initial size.
    """
    if limit is None or not bytecode.tables:
        return limit
    elements = sum(_bound(*table) for table in bytecode.tables)
    room = limit - ELEMENT_BYTES * elements
    least = bytecode.memory[0] if bytecode.memory else 0
    if room < least <= limit:
        raise ModuleError(
            f"tables of {elements} elements, which count as {ELEMENT_BYTES} bytes each, and a memory of {least} bytes "
            f"are beyond the limit of {limit} bytes"
        )
    return max(room, 0)


def bounded_tables(bytecode: Binary, code: Code | None) -> bytes:
    """The module with its tables limited to grow by `TABLE_GROWTH`; the module itself, if they do not grow.

    Sections after the tables may move by a few bytes.
    """
    reader = bytecode.section(TABLE)
    bounds = [_bound(*table) for table in bytecode.tables]
    if code is None or not code.grows_tables or reader is None:
        return bytecode.data
    if [maximum for _, maximum in bytecode.tables] == bounds:
        return bytecode.data
    kinds = []
    for _ in range(reader.leb()):
        kinds.append(reader.byte())
        reader.limits()
    made = _leb(len(bounds)) + b"".join(
        bytes([kind, 1]) + _leb(minimum) + _leb(bound)
        for kind, (minimum, _), bound in zip(kinds, bytecode.tables, bounds, strict=True)
    )
    data = bytearray(b"\0asm\1\0\0\0")
    at = len(data)
    for section, start, end in bytecode.sections:
        data += bytes([TABLE]) + _leb(len(made)) + made if section == TABLE else bytecode.data[at:end]
        at = end
        del start
    return bytes(data)


def _bound(minimum: int, maximum: int | None) -> int:
    return minimum + TABLE_GROWTH if maximum is None else max(minimum, min(maximum, minimum + TABLE_GROWTH))


def _within(limits: ModuleLimits, part: str, count: int, sentence: str) -> None:
    limit = getattr(limits, part)
    if limit is not None and count > limit:
        raise ModuleError(
            f"{sentence.format(count)}, and {limit} is the limit: "
            f"if you trust it, load it with module_limits=ModuleLimits({part}=…)"
        )


def _refused(proposal: str, at: int | None = None) -> ModuleError:
    where = "" if at is None else f", at byte {at}"
    remedy = (
        f", or load it with module_limits=ModuleLimits(proposals=frozenset({{{proposal!r}}})) "
        "on an engine that supports them"
        if proposal in PROPOSALS
        else ""
    )
    return ModuleError(
        f"the module uses a proposal of WebAssembly that filters may not use ({proposal}{where}): "
        f"build it without that{remedy}"
    )


def _each(bytecode: Binary, section: int) -> Iterator[tuple[int, Reader]]:
    """Yield an index and the reader for each entry of a section; the caller reads the entry to its end."""
    if reader := bytecode.section(section):
        for index in range(reader.leb()):
            yield index, reader


def _short(name: str) -> str:
    return printable(name if len(name) <= 100 else f"{name[:100]}…")


def _check_name(where: str, name: str, length: int, limits: ModuleLimits) -> None:
    """Check the name of an import or export, because logs and terminals show it."""
    _within(limits, "name", length, f"{where} has a name of {{}} letters")
    if printable(name) != name:
        raise ModuleError(f"{where} has control characters in its name, which no compiler of filters writes")


def _check_types(bytecode: Binary, limits: ModuleLimits) -> None:
    for index, reader in _each(bytecode, TYPE):
        form = reader.byte()
        if form in _GC_FORMS:
            raise _refused("garbage collection")
        if form != 0x60:
            raise ModuleError(f"type {index} has an unknown form {form:#x}: the module is damaged")
        for what in ("parameters", "results"):
            count = reader.leb()
            _within(limits, "values", count, f"type {index} has {{}} {what}")
            for kind in reader.take(count):
                _check_value(kind, f"type {index}", limits)


def _check_value(kind: int, where: str, limits: ModuleLimits) -> None:
    if kind in VALUE_TYPES:
        return
    if kind in (0x69, 0x74):
        if "exceptions" not in limits.proposals:
            raise _refused("exceptions")
    elif kind in (0x63, 0x64):
        raise _refused("typed function references")
    elif 0x65 <= kind <= 0x73:
        raise _refused("garbage collection")
    else:
        raise ModuleError(f"{where} has a value of an unknown type {kind:#x}: the module is damaged")


def _check_memories(bytecode: Binary) -> None:
    reader = bytecode.section(MEMORY)
    count = reader.leb() if reader else 0
    if count > 1:
        raise _refused("multiple memories")
    if reader and count:
        _check_flags(reader.byte())


def _check_flags(flags: int) -> None:
    for flag, proposal in ((_SHARED, "threads"), (_WIDE, "64-bit memory"), (_PAGE_SIZE, "custom page sizes")):
        if flags & flag:
            raise _refused(proposal)


def _check_tables(bytecode: Binary, limits: ModuleLimits) -> None:
    elements = 0
    for index, reader in _each(bytecode, TABLE):
        kind = reader.byte()
        if kind == 0x40:
            raise _refused("typed function references")
        _check_value(kind, f"table {index}", limits)
        _check_flags(reader.data[reader.at] if reader.at < reader.end else 0)
        elements += reader.limits()[0]
    _within(limits, "elements", elements, "the tables begin with {} elements")


def _check_elements(bytecode: Binary, limits: ModuleLimits) -> None:
    """Check the segments of elements, and the numbers of elements and of expressions in them."""
    expressions = elements = 0
    for _, reader in _each(bytecode, ELEMENT):
        flags = reader.leb()
        if flags > 7:
            raise ModuleError(f"a segment of elements has an unknown form {flags}: the module is damaged")
        if flags & 3 == 2:
            reader.leb()
        if not flags & 1:
            _expression(reader)
        if flags & 3:
            kind = reader.byte()
            if flags & 4:
                _check_value(kind, "a segment of elements", limits)
        count = reader.leb()
        elements += count
        expressions += 1 + (count if flags & 4 else 0)
        _within(limits, "elements", elements, "the segments have {} elements")
        _within(limits, "segments", expressions, "the module has {} segments of elements and expressions in them")
        if not flags & 4:
            reader.skip_lebs(count)
        for _ in range(count if flags & 4 else 0):
            _expression(reader)


def _names(bytecode: Binary) -> int:
    """The number of names for backtraces, up to the first damaged one."""
    count = 0
    with suppress(ModuleError):
        for section, start, end in bytecode.sections:
            reader = Reader(bytecode.data, start, end)
            if section == CUSTOM and reader.name() == "name":
                while reader.at < end:
                    reader.byte()
                    size = reader.leb()
                    count += Reader(bytecode.data, reader.at, end).leb()
                    reader.take(size)
    return count


def _expression(reader: Reader) -> None:
    """Skip a constant expression."""
    while (code := reader.byte()) != 0x0B:
        if code in (0x41, 0x42, 0x23, 0xD0, 0xD2):
            reader.leb()
        elif code in (0x43, 0x44):
            reader.take(4 if code == 0x43 else 8)
        elif code == 0xFD and reader.leb() == 12:
            reader.take(16)
        elif code == 0xFB:
            raise _refused("garbage collection")
        elif code not in (0x6A, 0x6B, 0x6C, 0x7C, 0x7D, 0x7E):
            raise ModuleError(f"the instruction {code:02x} at byte {reader.at - 1} is not allowed in a constant")


def _global_types(bytecode: Binary, limits: ModuleLimits) -> list[str]:
    """The types of the module's own globals."""
    types: list[str] = []
    for index, reader in _each(bytecode, GLOBAL):
        kind = reader.byte()
        _check_value(kind, f"global {index}", limits)
        types.append(VALUE_TYPES.get(kind, "exnref"))
        reader.byte()
        _expression(reader)
    return types


def _check_signature(where: str, signature: FunctionSignature | None) -> None:
    if signature is None:
        return  # the type or function does not exist, which the engine reports
    for what, types in zip(("parameter", "result"), signature, strict=True):
        for type in types:
            if type not in NUMBERS:
                raise ModuleError(f"{where} has a {what} of the type {type}, which cannot cross between guest and host")
    if len(signature[1]) > 1:
        raise ModuleError(f"{where} has {len(signature[1])} results, and only one can be passed between guest and host")


def _leb(value: int) -> bytes:
    output = bytearray()
    while value > 0x7F:
        output.append(value & 0x7F | 0x80)
        value >>= 7
    output.append(value)
    return bytes(output)
