"""What a module's bytes say without an engine: ABI version, imports, exports, memory, SDK and language.

Only the sections that are needed are read, and code never is, so that this costs microseconds for a filter of
megabytes. Whether the module is valid is for the engine to say.

Source: WebAssembly core specification, "Binary Format"; the marker is searched as in ``bytecode_util.cc`` of Envoy's
host (first export of a known name).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import TypeVar

from proxywasm_host.abi.types import AbiVersion
from proxywasm_host.errors import ModuleError

__all__ = ["Bytecode", "FunctionSignature"]

T = TypeVar("T")

CUSTOM, TYPE, IMPORT, FUNCTION, TABLE, MEMORY, GLOBAL, EXPORT, START = range(9)
CODE, DATA = 10, 11
KINDS = ("function", "table", "memory", "global", "tag")
VALUE_TYPES = {0x7F: "i32", 0x7E: "i64", 0x7D: "f32", 0x7C: "f64", 0x7B: "v128", 0x70: "funcref", 0x6F: "externref"}
PAGE = 65536

FunctionSignature = tuple[tuple[str, ...], tuple[str, ...]]
"""Names of the types of parameters and of results."""


class _Reader:
    """A cursor over bytes; any read beyond the end is a truncated module."""

    def __init__(self, data: bytes, at: int, end: int) -> None:
        self.data, self.at, self.end = data, at, end

    def byte(self) -> int:
        if self.at >= self.end:
            raise ModuleError(f"the module ends in the middle of something, at byte {self.at}: it is truncated")
        self.at += 1
        return self.data[self.at - 1]

    def leb(self) -> int:
        result = shift = 0
        while True:
            byte = self.byte()
            result |= (byte & 0x7F) << shift
            if byte < 0x80:
                return result
            shift += 7
            if shift > 63:
                raise ModuleError(f"a number at byte {self.at} is too long: the module is damaged")

    def take(self, size: int) -> bytes:
        end = self.at + size
        if end > self.end:
            raise ModuleError(f"{size} bytes are promised at byte {self.at}, the module or section ends at {self.end}")
        self.at = end
        return self.data[end - size : end]

    def name(self) -> str:
        return self.take(self.leb()).decode("utf-8", "replace")

    def vector(self, read: Callable[[], T]) -> list[T]:
        return [read() for _ in range(self.leb())]

    def limits(self) -> tuple[int, int | None]:
        flags = self.byte()
        minimum = self.leb()
        return minimum, self.leb() if flags & 1 else None


@dataclass(frozen=True)
class Bytecode:
    """A module as bytes, with what its sections say; each is read when it is first asked for.

    Raises: ModuleError, on construction if the bytes are no WebAssembly module or end early.
    """

    data: bytes

    def __post_init__(self) -> None:
        self.sections  # noqa: B018 - a damaged module is refused at once, not when somebody looks

    @cached_property
    def sections(self) -> list[tuple[int, int, int]]:
        """(section id, first byte, end) of each section, in order."""
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
        reader = _Reader(data, 8, len(data))
        sections = []
        while reader.at < reader.end:
            section, size = reader.byte(), reader.leb()
            if reader.at + size > reader.end:
                raise ModuleError(
                    f"section {section} at byte {reader.at} has {size} bytes, but the module ends after "
                    f"{reader.end - reader.at}: the file is truncated"
                )
            sections.append((section, reader.at, reader.at + size))
            reader.at += size
        return sections

    def _section(self, wanted: int) -> _Reader | None:
        for section, start, end in self.sections:
            if section == wanted:
                return _Reader(self.data, start, end)
        return None

    def custom(self, name: str) -> bytes | None:
        """Content of the first custom section of that name, or ``None``."""
        for section, start, end in self.sections:
            if section == CUSTOM:
                reader = _Reader(self.data, start, end)
                if reader.name() == name:
                    return self.data[reader.at : end]
        return None

    @cached_property
    def types(self) -> list[FunctionSignature]:
        """Function types, by index. A type that is no plain function type ends the list."""
        types: list[FunctionSignature] = []
        if reader := self._section(TYPE):
            for _ in range(reader.leb()):
                if reader.byte() != 0x60:
                    break
                params, results = (tuple(reader.vector(lambda: VALUE_TYPES.get(reader.byte(), "?"))) for _ in "pr")
                types.append((params, results))
        return types

    @cached_property
    def imports(self) -> list[tuple[str, str, str, FunctionSignature | None]]:
        """(module, name, kind, type of a function) of each import."""
        return list(self._imports())

    def _imports(self) -> Iterator[tuple[str, str, str, FunctionSignature | None]]:
        if reader := self._section(IMPORT):
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
        """(name, kind, type of a function) of each export."""
        exports: list[tuple[str, str, FunctionSignature | None]] = []
        imported = [signature for _, _, kind, signature in self.imports if kind == "function"]
        own: list[int] = []
        if reader := self._section(FUNCTION):
            own = reader.vector(reader.leb)
        if reader := self._section(EXPORT):
            for _ in range(reader.leb()):
                name, kind, index = reader.name(), reader.byte(), reader.leb()
                signature = None
                if kind == 0 and index < len(imported):
                    signature = imported[index]
                elif kind == 0 and index - len(imported) < len(own):
                    at = own[index - len(imported)]
                    signature = self.types[at] if at < len(self.types) else None
                exports.append((name, KINDS[kind] if kind < len(KINDS) else "?", signature))
        return exports

    @cached_property
    def abi_version(self) -> AbiVersion:
        """The version that the marker export names.

        Raises: ModuleError, if no export marks an ABI version, or only an unknown one.
        """
        markers = [
            name for name, kind, _ in self.exports if kind == "function" and name.startswith("proxy_abi_version_")
        ]
        known = {version.marker: version for version in AbiVersion}
        for marker in markers:
            if marker in known:
                return known[marker]
        versions = ", ".join(map(str, AbiVersion))
        if markers:
            raise ModuleError(f"the module is for an unknown Proxy-Wasm ABI ({markers[0]}); known are {versions}")
        raise ModuleError(
            "no Proxy-Wasm filter: the module exports no proxy_abi_version_… function "
            f"(known versions: {versions}); build it with a Proxy-Wasm SDK, as a library and not as a program"
        )

    @cached_property
    def memory(self) -> tuple[int, int | None] | None:
        """(initial, maximum or ``None``) size of the module's own memory in bytes, or ``None`` if it has none."""
        reader = self._section(MEMORY)
        if not reader or not reader.leb():
            return None
        minimum, maximum = reader.limits()
        return minimum * PAGE, None if maximum is None else maximum * PAGE

    @cached_property
    def has_start(self) -> bool:
        """Whether the module has a start function."""
        return any(section == START for section, _, _ in self.sections)

    @cached_property
    def producers(self) -> dict[str, list[tuple[str, str]]]:
        """The ``producers`` section: field (``language``, ``sdk``, ``processed-by``) → (name, version) of each."""
        content = self.custom("producers")
        if content is None:
            return {}
        try:
            reader = _Reader(content, 0, len(content))
            return {
                reader.name(): [(reader.name(), reader.name()) for _ in range(reader.leb())]
                for _ in range(reader.leb())
            }
        except ModuleError:
            return {}

    def size_of(self, section: int) -> int:
        """Bytes of all sections of that id (`CODE`, `DATA`, `CUSTOM`, …)."""
        return sum(end - start for number, start, end in self.sections if number == section)
