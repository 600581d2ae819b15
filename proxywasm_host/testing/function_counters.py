"""Counts entries of each function of a guest, with a counter at the beginning of the function.

Additions are at the ends of sections: a global for each function, and an exported function that reads the globals by
index. So existing indices, memory, tables, the start function and custom sections do not change. Offsets of code
change, which affects only DWARF.
"""

from __future__ import annotations

import re
from collections import Counter
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING

from proxywasm_host.errors import ModuleError
from proxywasm_host.fetch.fetcher import default_fetcher
from proxywasm_host.runtime.demangle import demangled
from proxywasm_host.runtime.filter_config import FilterConfig
from proxywasm_host.wasm import CODE, CUSTOM, EXPORT, FUNCTION, GLOBAL, TYPE, Binary, Reader

if TYPE_CHECKING:
    from proxywasm_host.runtime.plugin import Plugin

__all__ = ["FunctionCounters", "counted", "counting", "namespace"]

READER = "proxywasm_host_entries"
"""Name of the exported function that reads a counter."""
ORDER = (1, 2, 3, 4, 5, 13, 6, 7, 8, 9, 12, 10, 11)
"""Ids of sections, in the order of a module."""
I32, FUNCTION_TYPE, MUTABLE = 0x7F, 0x60, 1
SIGNATURE = (("i32",), ("i32",))
REFERENCES = (0x63, 0x64)
"""Value types with a heap type after them."""
CRATE = re.compile(r"([A-Za-z_]\w*)::")


def counting(code: bytes) -> bytes:
    """The module with counters; unchanged if it has no names, or types other than functions.

    Raises: ModuleError, if it is damaged.
    """
    module = Binary(code)
    if not function_names(module) or not module.functions or any(name == READER for name, *_ in module.exports):
        return code
    types = module.section(TYPE)
    assert types is not None  # noqa: S101 - a module with functions has types
    if types.leb() != len(module.types):
        return code
    imported = sum(kind == "function" for _, _, kind, _ in module.imports)
    globals = module.section(GLOBAL)
    first = sum(kind == "global" for _, _, kind, _ in module.imports) + (globals.leb() if globals else 0)
    count = len(module.functions)
    known = SIGNATURE in module.types
    added: dict[int, list[bytes]] = {
        TYPE: [] if known else [bytes((FUNCTION_TYPE, 1, I32, 1, I32))],
        FUNCTION: [leb(module.types.index(SIGNATURE) if known else len(module.types))],
        GLOBAL: [bytes((I32, MUTABLE, 0x41, 0, 0x0B))] * count,
        EXPORT: [leb(len(READER)) + READER.encode() + b"\0" + leb(imported + count)],
    }
    parts = [code[:8]]
    waiting = [section for section in ORDER if section in added]
    for section, start, end in module.sections:
        if section != CUSTOM:
            place = ORDER.index(section) if section in ORDER else len(ORDER)
            while waiting and ORDER.index(waiting[0]) < place:  # the module has no such section
                parts.append(_section(waiting[0], b"", 0, added[waiting.pop(0)]))
        if section in waiting:
            waiting.remove(section)
            reader = Reader(code, start, end)
            parts.append(_section(section, code, reader.leb(), added[section], reader.at, end))
        elif section == CODE:
            bodies = [*_counted(code, start, end, first), _body(b"\0" + _reader(first, 0, count) + b"\x0b")]
            parts.append(_section(CODE, b"", 0, bodies))
        else:
            parts.append(bytes((section,)) + leb(end - start) + code[start:end])
    return b"".join(parts)


def _section(id: int, code: bytes, count: int, added: list[bytes], start: int = 0, end: int = 0) -> bytes:
    """A section that is a vector, with entries added at its end."""
    content = leb(count + len(added)) + code[start:end] + b"".join(added)
    return bytes((id,)) + leb(len(content)) + content


def _counted(code: bytes, start: int, end: int, first: int) -> list[bytes]:
    """The bodies of all functions, each with code for its counter after the locals."""
    reader = Reader(code, start, end)
    bodies = []
    for number in range(reader.leb()):
        size = reader.leb()
        begin, after = reader.at, reader.at + size
        for _ in range(reader.leb()):
            reader.leb()
            if reader.byte() in REFERENCES:
                reader.leb()
        at = leb(first + number)
        bodies.append(_body(code[begin : reader.at] + b"\x23" + at + b"\x41\1\x6a\x24" + at + code[reader.at : after]))
        reader.at = after
    return bodies


def _body(content: bytes) -> bytes:
    return leb(len(content)) + content


def _reader(first: int, low: int, high: int) -> bytes:
    """Instructions that return the counter of the function whose index (`low` ≤ index < `high`) is the parameter."""
    if high - low <= 1:
        return b"\x23" + leb(first + low)
    middle = (low + high) // 2
    less, more = _reader(first, low, middle), _reader(first, middle, high)
    return b"\x20\0\x41" + signed_leb(middle) + b"\x49\x04\x7f" + less + b"\x05" + more + b"\x0b"


def leb(value: int) -> bytes:
    """An unsigned number in LEB128."""
    digits = bytearray()
    while True:
        digit, value = value & 0x7F, value >> 7
        digits.append(digit | 0x80 * bool(value))
        if not value:
            return bytes(digits)


def signed_leb(value: int) -> bytes:
    """A non-negative number in signed LEB128."""
    digits = leb(value)
    return digits if digits[-1] < 0x40 else digits[:-1] + bytes((digits[-1] | 0x80, 0))


# -- Names -------------------------------------------------------------------------------------------------------------


def function_names(module: Binary) -> dict[int, str]:
    """Names of functions by index, imported ones first; empty if the name section is missing or damaged."""
    content = module.custom("name")
    with suppress(ModuleError):
        reader = Reader(content or b"", 0, len(content or b""))
        while reader.at < reader.end:
            id, size = reader.byte(), reader.leb()
            if id == 1:
                inner = Reader(reader.data, reader.at, reader.at + size)
                return {inner.leb(): inner.name() for _ in range(inner.leb())}
            reader.at += size
    return {}


def namespace(name: str) -> str:
    """The Rust crate, Go package or AssemblyScript folder of a function, or an empty text."""
    if crate := CRATE.search(name):
        return crate[1]
    if name.startswith("~lib/"):
        return "~lib"
    folder, slash, last = name.lstrip("(*").rpartition("/")
    package, dot, _ = last.partition(".")
    return f"{folder}{slash}{package}" if dot else folder.partition("/")[0]


# -- Counters ----------------------------------------------------------------------------------------------------------


def counted(filter: FilterConfig) -> FilterConfig:
    """The filter with counters in its module. Raises: OSError. The host reports errors of the module."""
    code = filter.code
    if not isinstance(code, bytes):
        code = default_fetcher().read(code, filter.sha256, filter.pull_policy)
    with suppress(ModuleError):
        code = counting(code)
    return replace(filter, code=code, sha256="", name=filter.plugin_name)


class FunctionCounters:
    """Counts of entries of the functions of a plugin's guest, including its failed VMs."""

    def __init__(self, plugin: Plugin) -> None:
        self._plugin = plugin
        self._before: Counter[str] = Counter()
        module = plugin._vm.bytecode
        imported = sum(kind == "function" for _, _, kind, _ in module.imports)
        counts = any(name == READER for name, *_ in module.exports)
        count = len(module.functions) - 1 if counts else 0
        names = function_names(module)
        self._names = [demangled(names.get(imported + at, f"function {imported + at}")) for at in range(count)]
        plugin.on_failure.append(lambda _: self._before.update(self._read()))

    def take(self) -> Counter[str]:
        """The counts by name, with 0 for unused functions. Counts of functions with the same name are added up."""
        failed = self._plugin.failure is not None
        return Counter({**dict.fromkeys(self._names, 0), **(self._before if failed else self._before + self._read())})

    def _read(self) -> Counter[str]:
        found: Counter[str] = Counter()
        read = self._plugin._vm.instance.function(READER)
        if read is not None:
            for at, name in enumerate(self._names):
                found[name] += read(at) & 0xFFFFFFFF
        return found
