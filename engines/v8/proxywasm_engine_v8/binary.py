"""Reads the parts of the binary format that V8 does not report: imports, exports and names.

V8 gets a changed module:

* Memories are imports. Each instance gets a memory with its own upper bound, beyond which growth returns -1.
* The start function is an export, and is called when everything else is in place.
* Functions at the end of the module replace instructions that V8 would not interrupt in time, see `bulk`.
* Two kinds of functions have hints to compile them at once: those that the host finds slow to optimise, and those that
  are `VERY_LARGE`. They are exports, so that they can be optimised. The module's own hints of this kind are removed.

Functions keep their indices; `Binary.original` converts positions in code back.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass

from proxywasm_host.engine.protocol import Export, FunctionType, Import
from proxywasm_host.forks import cached_property

from .bulk import Bodies, interruptible, joined
from .reader import Malformed, Reader, Refused, leb, section, vector

__all__ = ["VERY_LARGE", "Binary", "MemoryType"]

_HEAD = b"\0asm\1\0\0\0"
_CUSTOM, _TYPE, _IMPORT, _FUNCTION, _TABLE, _MEMORY, _EXPORT, _START, _CODE = 0, 1, 2, 3, 4, 5, 7, 8, 10
_ORDER = (_TYPE, _IMPORT, _FUNCTION, _TABLE, _MEMORY, 13, 6, _EXPORT, _START, 9, 12, _CODE, 11)
_KINDS = ("function", "table", "memory", "global", "tag")
_NO_MAXIMUM = 1 << 16
_MAX_TABLES = 16
_HINTS, _PRIORITIES = b"metadata.code.", b"metadata.code.compilation_priority"

VERY_LARGE = 100 << 10
"""Size in bytes from which a function is optimised when the first instance is made, even if the host has not found it
slow. V8 optimises other functions when they are hot, which is during a request."""


@dataclass(frozen=True, slots=True)
class MemoryType:
    """Limits of a memory, in pages of 64 KiB."""

    minimum: int
    maximum: int
    shared: bool
    wide: bool


@dataclass(frozen=True, slots=True)
class _Section:
    id: int
    start: int
    body: int
    end: int


class Binary:
    """A module in its binary form.

    Args:
        slow: Functions to optimise at once, in addition to those that are `VERY_LARGE`. They are numbered without
            imported functions.
        ranges: Positions of instructions on ranges, see `bulk.ranges_of`; by default the code is searched for them.

    Raises: Malformed, Refused.
    """

    def __init__(self, bytecode: bytes, slow: Sequence[int] = (), ranges: bytes | None = None) -> None:
        self._code = bytecode
        if not bytecode.startswith(_HEAD):
            raise Malformed("not a WebAssembly module of version 1")
        self._sections = list(_sections(bytecode))
        self._types: list[FunctionType] = []
        self._imported: list[int] = []
        self._defined: list[int] = []
        self._memory_types: list[bytes] = []
        self._elements: list[bytes] = []
        self._wide = False
        self.imports: list[Import] = []
        self.memories: list[MemoryType] = []
        self.exported_memory: int | None = None
        self._start: int | None = None
        export_entries: list[tuple[str, int, int]] = []
        for part in self._sections:
            reader = Reader(bytecode, part.body, part.end)
            if part.id == _TYPE:
                reader.vector(lambda: self._read_types(reader))  # noqa: B023 - called at once
            elif part.id == _IMPORT:
                self.imports = reader.vector(lambda: self._read_import(reader))  # noqa: B023
            elif part.id == _FUNCTION:
                self._defined = reader.numbers()
            elif part.id == _TABLE:
                self._read_tables(reader)
            elif part.id == _MEMORY:
                reader.vector(lambda: self._read_memory(reader))  # noqa: B023
            elif part.id == _EXPORT:
                export_entries = reader.vector(lambda: (reader.name(), reader.byte(), reader.number()))  # noqa: B023
            elif part.id == _START:
                self._start = reader.number()
        self.exports: list[Export] = []
        for name, kind, index in export_entries:
            self.exports.append(Export(name, _KINDS[kind], self._function_type(index) if kind == 0 else None))
            if name == "memory" and kind == 2:
                self.exported_memory = index
        self.start_name = ""
        if self._start is not None:
            self.start_name = self._new_name("start")
        self._bodies = self._interruptible(ranges)
        large = self._bodies.large if self._bodies else ()
        told = {len(self._imported) + number for number in slow if number < len(self._defined)}
        at_once = sorted(told.union(len(self._imported) + number for number, size in large if size >= VERY_LARGE))
        self.optimised = {self._new_name(f"function {index}"): index for index in at_once}
        """The functions to optimise at once, by the names under which V8's module exports them."""
        self.rewritten, self._code_at = self._rewrite()

    @cached_property
    def module_name(self) -> str:
        """The name of the module in its name section, or empty."""
        with suppress(Malformed):
            return next((reader.name() for id, reader in self._names() if id == 0), "")
        return ""

    def function_name(self, index: int) -> str:
        """The name of function `index` in the name section, or ``<wasm function N>``."""
        return self._function_names.get(index) or f"<wasm function {index}>"

    def function_at(self, offset: int) -> int:
        """The index of the function whose code is at `offset`."""
        return len(self._imported) + bisect_right(self._starts, offset) - 1

    def original(self, position: int) -> int | None:
        """Convert a position in V8's module to one in the original; ``None`` for code that was added."""
        code = self._place(_CODE)
        if self._bodies is None or code is None:
            return None
        offset = self._bodies.original(position - self._code_at)
        return None if offset is None else code[0] + offset

    @cached_property
    def _function_names(self) -> dict[int, str]:
        with suppress(Malformed):
            for id, reader in self._names():
                if id == 1:
                    return dict(reader.vector(lambda: (reader.number(), reader.name())))  # noqa: B023
        return {}

    @cached_property
    def _starts(self) -> list[int]:
        starts = []
        for part in self._sections:
            if part.id == _CODE:
                reader = Reader(self._code, part.body, part.end)
                for _ in range(reader.number()):
                    size = reader.number()
                    starts.append(reader.at)
                    reader.at += size
        return starts

    def _names(self) -> Iterable[tuple[int, Reader]]:
        """The subsections of the name section, up to the first that is malformed."""
        try:
            for part in self._sections:
                reader = Reader(self._code, part.body, part.end)
                if part.id == _CUSTOM and reader.name() == "name":
                    while reader.at < part.end:
                        id, size = reader.byte(), reader.number()
                        yield id, Reader(self._code, reader.at, reader.at + size)
                        reader.at += size
        except Malformed:
            return

    def _new_name(self, name: str) -> str:
        """A name that begins with `name`, and that no export has."""
        taken = {export.name for export in self.exports}
        return next(new for n in range(len(taken) + 1) if (new := f"{name} {n}") not in taken)

    def _function_type(self, index: int) -> FunctionType | None:
        functions = [*self._imported, *self._defined] if index >= len(self._imported) else self._imported
        try:
            return self._types[functions[index]]
        except IndexError:
            raise Malformed(f"function {index} is exported, but does not exist") from None

    def _read_types(self, reader: Reader) -> None:
        if reader.data[reader.at] == 0x4E:  # a recursion group
            reader.byte()
            reader.vector(lambda: self._read_type(reader))
        else:
            self._read_type(reader)

    def _read_type(self, reader: Reader) -> None:
        form = reader.byte()
        if form in (0x50, 0x4F):  # a subtype
            reader.vector(reader.number)
            form = reader.byte()
        if form == 0x60:
            types = [tuple(reader.vector(reader.value_type)) for _ in range(2)]
            self._types.append(FunctionType(*types))
        elif form in (0x5F, 0x5E):  # a structure, an array
            raise Refused("structures and arrays (garbage collection) are refused: V8 cannot limit their memory")
        else:
            raise Malformed(f"a type of an unknown form {form:#x}, at {reader.at - 1:#x}")

    def _read_import(self, reader: Reader) -> Import:
        module, name, kind = reader.name(), reader.name(), reader.byte()
        if kind == 0:
            self._imported.append(reader.number())
            try:
                return Import(module, name, "function", self._types[self._imported[-1]])
            except IndexError:
                raise Malformed(f"import {module}.{name} has a type that does not exist") from None
        if kind == 1:
            self._elements.append(_element(reader))
            self._wide |= _limits(reader).wide
        elif kind == 2:
            self._wide |= _limits(reader).wide
        elif kind == 3:
            reader.value_type()
            reader.byte()
        elif kind == 4:
            reader.byte()
            reader.number()
        else:
            raise Malformed(f"import {module}.{name} is of an unknown kind {kind:#x}")
        return Import(module, name, _KINDS[kind])

    def _read_tables(self, reader: Reader) -> None:
        """Read the types of elements, up to the first table with an initial value."""
        count = reader.number()
        if count > _MAX_TABLES:
            raise Refused(f"more than {_MAX_TABLES} tables are refused: V8's heap could not hold them")
        for _ in range(count):
            valued = reader.data[reader.at] == 0x40
            if valued:
                reader.take(2)
            self._elements.append(_element(reader))
            if valued:
                return
            self._wide |= _limits(reader).wide

    def _read_memory(self, reader: Reader) -> None:
        start = reader.at
        self.memories.append(_limits(reader))
        self._wide |= self.memories[-1].wide
        self._memory_types.append(reader.data[start : reader.at])

    def _place(self, id: int) -> tuple[int, int] | None:
        return next(((part.body, part.end) for part in self._sections if part.id == id), None)

    def _interruptible(self, ranges: bytes | None) -> Bodies | None:
        place = self._place(_CODE)
        if place is None:
            return None
        if self._wide:  # the functions would need other types; only embedders that ask for wide memories get them
            return Bodies(*place)
        first = len(self._imported) + len(self._defined)
        has_memory = bool(self.memories)
        return interruptible(self._code, *place, first, self._elements, has_memory=has_memory, ranges=ranges)

    def _rewrite(self) -> tuple[bytes, int]:
        """The module for V8, and the position of the contents of its code section."""
        replaced: dict[int, bytes] = {}
        if self.memories:
            replaced[_MEMORY] = b""
            replaced[_IMPORT] = self._appended(_IMPORT, [b"\0\0\2" + type for type in self._memory_types])
        if self._start is not None:
            replaced[_START] = b""
        exported = {**({} if self._start is None else {self.start_name: self._start}), **self.optimised}
        if exported:
            entries = [_name(name.encode()) + b"\0" + leb(index) for name, index in exported.items()]
            replaced[_EXPORT] = self._appended(_EXPORT, entries)
        if self._bodies and self._bodies.types:
            types = list(dict.fromkeys(self._bodies.types))
            indices = [leb(len(self._types) + types.index(type)) for type in self._bodies.types]
            replaced[_TYPE] = self._appended(_TYPE, types)
            replaced[_FUNCTION] = self._appended(_FUNCTION, indices)
        view = memoryview(self._code)
        before: list[bytes | memoryview] = []
        output: list[bytes | memoryview] = [_HEAD]
        code_at = 0
        missing = sorted((id for id in replaced if replaced[id] and not self._place(id)), key=_ORDER.index)
        for part in self._sections:
            while missing and part.id != _CUSTOM and _rank(part.id) > _rank(missing[0]):
                output.append(section(missing[0], replaced[missing.pop(0)]))
            if part.id == _CODE and self.optimised:
                output.append(section(_CUSTOM, _priorities(list(self.optimised.values()))))
            if part.id == _CUSTOM and _is_hint(self._code, part):
                continue
            if part.id == _CODE and self._bodies:
                output.append(bytes([_CODE]) + leb(self._bodies.size))
                code_at = sum(map(len, output))
                before, output = output, [*self._bodies.added]
            elif part.id not in replaced:
                output.append(view[part.start : part.end])
            elif replaced[part.id]:
                output.append(section(part.id, replaced[part.id]))
        output += (section(id, replaced[id]) for id in missing)
        bodies = self._bodies or Bodies(0, 0)
        return joined(before, self._code, (bodies.start, bodies.end, bodies.edits, bodies.calls), output), code_at

    def _appended(self, id: int, entries: Sequence[bytes]) -> bytes:
        """The contents of a section with `entries` added at its end."""
        place = self._place(id)
        if place is None:
            return vector(entries)
        reader = Reader(self._code, *place)
        return leb(reader.number() + len(entries)) + self._code[reader.at : place[1]] + b"".join(entries)


def _is_hint(code: bytes, part: _Section) -> bool:
    """Whether a custom section has hints for compilers."""
    with suppress(Malformed):
        reader = Reader(code, part.body, part.end)
        return reader.take(reader.number()).startswith(_HINTS)
    return False


def _priorities(functions: Sequence[int]) -> bytes:
    """The contents of a section that makes V8 compile these functions at once.

    An entry has the index of a function, the offset 0 for the whole function, and its priority, one byte. Source: the
    WebAssembly proposal "Compilation Hints".
    """
    return _name(_PRIORITIES) + vector([leb(index) + b"\0" + vector([leb(1)]) for index in functions])


def _name(name: bytes) -> bytes:
    return leb(len(name)) + name


def _rank(id: int) -> int:
    return _ORDER.index(id) if id in _ORDER else len(_ORDER)


def _sections(code: bytes) -> Iterable[_Section]:
    reader = Reader(code, len(_HEAD))
    while reader.at < len(code):
        start = reader.at
        id, size = reader.byte(), reader.number()
        body = reader.at
        reader.skip(size)
        yield _Section(id, start, body, reader.at)


def _element(reader: Reader) -> bytes:
    start = reader.at
    reader.value_type()
    return reader.data[start : reader.at]


def _limits(reader: Reader) -> MemoryType:
    flags = reader.byte()
    if flags > 7:
        raise Malformed(f"limits of an unknown form {flags:#x}, at {reader.at - 1:#x}")
    minimum = reader.number()
    maximum = reader.number() if flags & 1 else _NO_MAXIMUM
    return MemoryType(minimum, maximum, shared=bool(flags & 2), wide=bool(flags & 4))
