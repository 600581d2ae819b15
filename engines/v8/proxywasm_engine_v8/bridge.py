"""Two small WebAssembly modules between a guest and Python, so that no value ever becomes a JavaScript value.

One provides the guest's imports: each of its functions writes its arguments to a page of memory that Python shares,
calls Python without arguments, and reads the answer from that page. The other one calls the guest's exports and does
the reverse. Numbers keep all their bits, and V8 compiles calls between modules to plain calls.

Before the call of a host function, the field for its answer is filled with `UNANSWERED`, which no 32-bit answer can
equal; a 64-bit answer overwrites the arguments instead. If `UNANSWERED` is still there when the function returns, the
function has raised an exception, or could not even be entered. Then a trap ends the guest: guests can catch exceptions,
but not traps.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from proxywasm_host.engine.protocol import FunctionType
from proxywasm_host.extension import check_constants

from .extension import NATIVE
from .reader import leb, section, vector
from .routes import Thrown

__all__ = [
    "ANSWER",
    "ARGUMENTS",
    "FAILED",
    "INDEX",
    "NAME",
    "PAGE",
    "REPORT",
    "UNANSWERED",
    "WIDE",
    "exports_bridge",
    "failure",
    "imports_bridge",
]

PAGE = 65536
FAILED, INDEX, ANSWER, ARGUMENTS, REPORT = 0, 4, 8, 16, 16384
"""Offsets in the page: a flag (u32), the number of the called import (u32), the answer, the arguments (8 bytes each),
a report (length and UTF-16)."""
UNANSWERED = 0x7FF4_0B57_A6E1_9D3C
check_constants(NATIVE, PAGE=PAGE, ARGUMENTS=ARGUMENTS, UNANSWERED=UNANSWERED)
NAME = "proxywasm_bridge"
"""The name of both modules; backtraces leave out frames with this name."""

WIDE = ("i64", "f64")

_CODES = {"i32": b"\x7f", "i64": b"\x7e", "f32": b"\x7d", "f64": b"\x7c"}
_LOAD = {"i32": b"\x28\x02", "i64": b"\x29\x03", "f32": b"\x2a\x02", "f64": b"\x2b\x03"}
_STORE = {"i32": b"\x36\x02", "i64": b"\x37\x03", "f32": b"\x38\x02", "f64": b"\x39\x03"}
_ZERO, _CALL, _GET, _END = b"\x41\0", b"\x10", b"\x20", b"\x0b"
_NOTHING = FunctionType((), ())
_BASE = b"\0asm\1\0\0\0"
_PAGE_IMPORT = b"\1c\1p\2\1\1\1"  # c.p, a memory of exactly one page
_SENTINEL = b"\x42" + bytes(UNANSWERED >> 7 * i & 0x7F | 0x80 for i in range(9)) + b"\0"


@lru_cache(maxsize=256)
def imports_bridge(types: tuple[FunctionType, ...]) -> bytes:
    """The module for guests that import functions of `types`: its function *i* calls its import *i*."""
    bodies = []
    for index, type in enumerate(types):
        code = _ZERO + _SENTINEL + _STORE["i64"] + leb(ANSWER)
        code += _ZERO + b"\x41" + _signed(index) + _STORE["i32"] + leb(INDEX)
        for number, kind in enumerate(type.params):
            code += _ZERO + _GET + leb(number) + _STORE[kind] + leb(ARGUMENTS + 8 * number)
        code += _CALL + leb(index)
        code += _ZERO + _LOAD["i64"] + leb(ANSWER) + _SENTINEL + b"\x51\x04\x40\0\x0b"  # unreachable if equal
        if type.results:
            (kind,) = type.results
            code += _ZERO + _LOAD[kind] + leb(ARGUMENTS if kind in WIDE else ANSWER)
        bodies.append(code)
    return _module(imported=[_NOTHING] * len(types), defined=types, bodies=bodies)


@lru_cache(maxsize=256)
def exports_bridge(types: tuple[FunctionType, ...]) -> bytes:
    """The module for guests that export functions of `types`: its function *i* calls its import *i*."""
    bodies = []
    for index, type in enumerate(types):
        code = _ZERO if type.results else b""
        for number, kind in enumerate(type.params):
            code += _ZERO + _LOAD[kind] + leb(ARGUMENTS + 8 * number)
        code += _CALL + leb(index)
        if type.results:
            code += _STORE[type.results[0]] + leb(ANSWER)
        bodies.append(code)
    return _module(imported=types, defined=[_NOTHING] * len(types), bodies=bodies)


def failure(page: Any) -> Thrown:
    """The last exception that the glue has reported in `page`."""
    report = memoryview(page).cast("B")[REPORT:]
    size = int.from_bytes(report[:4], "little")
    kind, _, text = bytes(report[4 : 4 + 2 * size]).decode("utf-16-le", "replace").partition("\n")
    message, _, stack = text.partition("\n")
    return Thrown(kind, message, stack)


def _module(imported: Sequence[FunctionType], defined: Sequence[FunctionType], bodies: Sequence[bytes]) -> bytes:
    types = list(dict.fromkeys([*imported, *defined]))
    imports = [_PAGE_IMPORT, *(b"\1f\1f\0" + leb(types.index(type)) for type in imported)]
    exports = []
    for index in range(len(defined)):
        name = str(index).encode()
        exports.append(leb(len(name)) + name + b"\0" + leb(len(imported) + index))
    functions = [b"\0" + body + _END for body in bodies]
    name = NAME.encode()
    named = b"\4name" + section(0, leb(len(name)) + name)
    return _BASE + b"".join(
        (
            section(1, vector([_type(type) for type in types])),
            section(2, vector(imports)),
            section(3, vector([leb(types.index(type)) for type in defined])),
            section(7, vector(exports)),
            section(10, vector([leb(len(body)) + body for body in functions])),
            section(0, named),
        )
    )


def _signed(value: int) -> bytes:
    """A natural number in signed LEB128: bit 6 of the last byte is clear."""
    return leb(value) if value.bit_length() % 7 else leb(value)[:-1] + bytes([leb(value)[-1] | 0x80, 0])


def _type(type: FunctionType) -> bytes:
    return b"\x60" + b"".join(vector([_CODES[kind] for kind in kinds]) for kinds in (type.params, type.results))
