"""Reads imports, exports, memory, tables and producers from a module's bytes, without an engine.

It reads only the sections that are needed, which takes microseconds even for a filter of several megabytes.
`proxywasm_host.abi.code_section` reads the code. The engine decides whether a module is valid.

Source: WebAssembly core specification, "Binary Format".
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

from proxywasm_host.errors import ModuleError
from proxywasm_host.forks import cached_property

__all__ = ["Binary", "FunctionSignature"]

T = TypeVar("T")

CUSTOM, TYPE, IMPORT, FUNCTION, TABLE, MEMORY, GLOBAL, EXPORT, START, ELEMENT, CODE, DATA, DATA_COUNT, TAG = range(14)
KINDS = ("function", "table", "memory", "global", "tag")
VALUE_TYPES = {0x7F: "i32", 0x7E: "i64", 0x7D: "f32", 0x7C: "f64", 0x7B: "v128", 0x70: "funcref", 0x6F: "externref"}
PAGE = 65536
MAX_SECTIONS = 10_000
"""Maximum number of sections in a module; a typical module has a dozen."""

FunctionSignature = tuple[tuple[str, ...], tuple[str, ...]]
"""The type names of the parameters, and those of the results."""


NUMBER = rb"[\x80-\xff]{0,9}[\x00-\x7f]"
"""A regular expression for one LEB128 number."""
_AT_ONCE = 32
_NUMBERS = re.compile(b"(?:" + NUMBER + b"){%d}" % _AT_ONCE)


class Reader:
    """A cursor over bytes. A read beyond the end means that the module is truncated."""

    def __init__(self, data: bytes, at: int, end: int) -> None:
        self.data, self.at, self.end = data, at, end

    def byte(self) -> int:
        """The next byte. Raises: ModuleError."""
        if self.at >= self.end:
            raise ModuleError(f"the module ends too early, at byte {self.at}: it is truncated")
        self.at += 1
        return self.data[self.at - 1]

    def leb(self) -> int:
        """The next unsigned LEB128 number. Raises: ModuleError."""
        result = shift = 0
        while True:
            byte = self.byte()
            result |= (byte & 0x7F) << shift
            if byte < 0x80:
                return result & (1 << 64) - 1
            shift += 7
            if shift > 63:
                raise ModuleError(f"a number at byte {self.at} is too long: the module is damaged")

    def take(self, size: int) -> bytes:
        """The next `size` bytes. Raises: ModuleError."""
        end = self.at + size
        if end > self.end:
            raise ModuleError(f"{size} bytes must follow byte {self.at}, but the module or section ends at {self.end}")
        self.at = end
        return self.data[end - size : end]

    def skip_lebs(self, count: int) -> None:
        """Skip `count` LEB128 numbers. Raises: ModuleError."""
        while count >= _AT_ONCE and (found := _NUMBERS.match(self.data, self.at, self.end)):
            self.at = found.end()
            count -= _AT_ONCE
        for _ in range(count):
            self.leb()

    def name(self) -> str:
        """The next name; bytes that are not UTF-8 are replaced. Raises: ModuleError."""
        return self.take(self.leb()).decode("utf-8", "replace")

    def vector(self, read: Callable[[], T]) -> list[T]:
        """The next vector; `read` reads each element."""
        return [read() for _ in range(self.leb())]

    def limits(self) -> tuple[int, int | None]:
        """The minimum and maximum of a memory or table."""
        flags = self.byte()
        minimum = self.leb()
        return minimum, self.leb() if flags & 1 else None


@dataclass(frozen=True)
class Binary:
    """A module as bytes, with the content of its sections. Each section is read on first use.

    Raises: ModuleError, on construction if the bytes are not a WebAssembly module or end early.
    """

    data: bytes

    def __post_init__(self) -> None:
        self.sections  # noqa: B018 - a damaged module is refused here, not when it is first read

    @cached_property
    def sections(self) -> list[tuple[int, int, int]]:
        """The id, first byte and end of each section, in order."""
        data = self.data
        if len(data) < 8 and data[:4] == b"\0asm"[: len(data)]:
            raise ModuleError(f"not a WebAssembly module: it has only {len(data)} bytes")
        if data[:4] != b"\0asm":
            hint = " (this is WebAssembly text: make a module of it with wat2wasm)" if data.lstrip()[:1] == b"(" else ""
            raise ModuleError(f"not a WebAssembly module: it begins with {data[:4]!r}, not with b'\\x00asm'{hint}")
        if data[4:8] != b"\1\0\0\0":
            version, layer = int.from_bytes(data[4:6], "little"), int.from_bytes(data[6:8], "little")
            what = "a WebAssembly component" if layer else f"WebAssembly of version {version}"
            raise ModuleError(f"{what}, not a core module of version 1: build the filter as a core module")
        reader = Reader(data, 8, len(data))
        sections: list[tuple[int, int, int]] = []
        while reader.at < reader.end:
            section, size = reader.byte(), reader.leb()
            if reader.at + size > reader.end:
                raise ModuleError(
                    f"section {section} at byte {reader.at} has {size} bytes, but the module ends after "
                    f"{reader.end - reader.at}: the file is truncated"
                )
            if len(sections) >= MAX_SECTIONS:
                raise ModuleError(f"the module has more than {MAX_SECTIONS} sections")
            sections.append((section, reader.at, reader.at + size))
            reader.at += size
        return sections

    def section(self, wanted: int) -> Reader | None:
        """The content of the first section with this id, or ``None``."""
        for section, start, end in self.sections:
            if section == wanted:
                return Reader(self.data, start, end)
        return None

    def custom(self, name: str) -> bytes | None:
        """The content of the first custom section of this name, or ``None``."""
        for section, start, end in self.sections:
            if section == CUSTOM:
                reader = Reader(self.data, start, end)
                if reader.name() == name:
                    return self.data[reader.at : end]
        return None

    @cached_property
    def types(self) -> list[FunctionSignature]:
        """The function types, by index. The list stops at a type that is not a plain function type."""
        types: list[FunctionSignature] = []
        if reader := self.section(TYPE):
            for _ in range(reader.leb()):
                if reader.byte() != 0x60:
                    break
                types.append((_value_types(reader), _value_types(reader)))
        return types

    @cached_property
    def imports(self) -> list[tuple[str, str, str, FunctionSignature | None]]:
        """The module, name, kind and, for a function, type of each import."""
        return list(self._imports())

    def _imports(self) -> Iterator[tuple[str, str, str, FunctionSignature | None]]:
        if reader := self.section(IMPORT):
            for _ in range(reader.leb()):
                module, name, kind = reader.name(), reader.name(), reader.byte()
                signature = None
                if kind == 0:
                    index = reader.leb()
                    signature = self.types[index] if index < len(self.types) else None
                elif kind == 1:
                    reader.byte()
                    reader.limits()
                elif kind == 2:
                    reader.limits()
                elif kind == 3:
                    reader.take(2)
                elif kind == 4:
                    reader.byte()
                    reader.leb()
                else:
                    raise ModuleError(f"import {module}.{name} is of an unknown kind {kind}: the module is damaged")
                yield module, name, KINDS[kind], signature

    @cached_property
    def exports(self) -> list[tuple[str, str, FunctionSignature | None]]:
        """The name, kind and, for a function, type of each export."""
        return [entry[:3] for entry in self.export_entries]

    @cached_property
    def export_entries(self) -> list[tuple[str, str, FunctionSignature | None, int]]:
        """As `exports`, with the index of each in the index space of its kind, which begins with imports."""
        entries: list[tuple[str, str, FunctionSignature | None, int]] = []
        imported = [signature for _, _, kind, signature in self.imports if kind == "function"]
        own = self.functions
        if reader := self.section(EXPORT):
            for _ in range(reader.leb()):
                name, kind, index = reader.name(), reader.byte(), reader.leb()
                signature = None
                if kind == 0 and index < len(imported):
                    signature = imported[index]
                elif kind == 0 and index - len(imported) < len(own):
                    at = own[index - len(imported)]
                    signature = self.types[at] if at < len(self.types) else None
                entries.append((name, KINDS[kind] if kind < len(KINDS) else "?", signature, index))
        return entries

    @cached_property
    def functions(self) -> Sequence[int]:
        """The type of each function that is not imported, as an index into `types`."""
        reader = self.section(FUNCTION)
        if reader is None:
            return ()
        count = reader.leb()
        rest = self.data[reader.at : reader.end]
        return rest if rest.isascii() and len(rest) == count else [reader.leb() for _ in range(count)]

    @cached_property
    def memory(self) -> tuple[int, int | None] | None:
        """Bytes of the module's own memory, or ``None`` without one: initial, and maximum if there is a limit."""
        reader = self.section(MEMORY)
        if not reader or not reader.leb():
            return None
        minimum, maximum = reader.limits()
        return minimum * PAGE, None if maximum is None else maximum * PAGE

    @cached_property
    def tables(self) -> list[tuple[int, int | None]]:
        """Elements of each of the module's own tables: initial, and maximum if there is a limit."""
        reader = self.section(TABLE)
        return reader.vector(lambda: _table(reader)) if reader else []

    @cached_property
    def has_start(self) -> bool:
        """Whether the module has a start function."""
        return any(section == START for section, _, _ in self.sections)

    @cached_property
    def producers(self) -> dict[str, list[tuple[str, str]]]:
        """Pairs of name and version in the ``producers`` section, by field (``language``, ``sdk``,
        ``processed-by``)."""
        content = self.custom("producers")
        if content is None:
            return {}
        try:
            reader = Reader(content, 0, len(content))
            return {
                reader.name(): [(reader.name(), reader.name()) for _ in range(reader.leb())]
                for _ in range(reader.leb())
            }
        except ModuleError:
            return {}

    def size_of(self, section: int) -> int:
        """The total bytes of all sections with this id (`CODE`, `DATA`, `CUSTOM`, …)."""
        return sum(end - start for number, start, end in self.sections if number == section)


def _value_types(reader: Reader) -> tuple[str, ...]:
    return tuple(VALUE_TYPES.get(kind, "?") for kind in reader.take(reader.leb()))


def _table(reader: Reader) -> tuple[int, int | None]:
    reader.byte()
    return reader.limits()
