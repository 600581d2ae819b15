"""Reads and writes the elements of the binary format."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from proxywasm_host.extension import check_constants

from .extension import NATIVE

__all__ = ["Malformed", "Reader", "Refused", "leb", "section", "vector"]

_T = TypeVar("_T")
_MAX_BITS = 70  # a number of 64 bits has up to 10 bytes, each with 7 bits
check_constants(NATIVE, MAX_BITS=_MAX_BITS)
_NUMBERS = {0x7F: "i32", 0x7E: "i64", 0x7D: "f32", 0x7C: "f64", 0x7B: "v128", 0x78: "i8", 0x77: "i16"}
_REFERENCES = {0x70: "funcref", 0x6F: "externref", 0x6E: "anyref", 0x6D: "eqref", 0x69: "exnref"}


class Malformed(Exception):
    """The bytes are not a module, or the module has parts that the engine does not support."""


class Refused(Exception):
    """The module is valid, but V8 cannot run it within limits.

    It could fill V8's heap, whereupon V8 ends the process, or run past every deadline.
    """


class Reader:
    """Reads bytes from the position `at` on, up to `end`. Raises: IndexError, Malformed."""

    __slots__ = ("at", "data", "end")

    def __init__(self, data: bytes, at: int = 0, end: int | None = None) -> None:
        self.data = data
        self.at = at
        self.end = len(data) if end is None else end

    def byte(self) -> int:
        """Read a byte."""
        if self.at >= self.end:
            raise Malformed(f"the bytes end too early, at {self.at:#x}")
        self.at += 1
        return self.data[self.at - 1]

    def number(self) -> int:
        """Read an unsigned number in LEB128, or the bits of a signed one."""
        value = shift = 0
        while shift < _MAX_BITS:
            byte = self.byte()
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value
            shift += 7
        raise Malformed(f"a number of more than {_MAX_BITS // 7} bytes, at {self.at:#x}")

    def take(self, size: int) -> bytes:
        """Read `size` bytes."""
        if size > self.end - self.at:
            raise Malformed(f"the bytes end too early, at {self.end:#x}")
        self.at += size
        return self.data[self.at - size : self.at]

    def skip(self, size: int) -> None:
        """Skip `size` bytes without a copy: they may be megabytes."""
        if size > self.end - self.at:
            raise Malformed(f"the bytes end too early, at {self.end:#x}")
        self.at += size

    def name(self) -> str:
        """Read a name."""
        return self.take(self.number()).decode(errors="replace")

    def skip_numbers(self, count: int) -> None:
        """Skip `count` numbers."""
        for _ in range(count):
            self.number()

    def numbers(self) -> list[int]:
        """Read a vector of numbers."""
        count = self.number()
        taken = self.data[self.at : self.at + count]
        if len(taken) == count and taken.isascii():  # each number has one byte
            self.skip(count)
            return list(taken)
        return [self.number() for _ in range(count)]

    def value_type(self) -> str:
        """Read the type of a value, and return its name."""
        code = self.byte()
        if code in (0x63, 0x64):  # a reference to a heap type
            return f"ref {self.number():#x}"
        return _NUMBERS.get(code) or _REFERENCES.get(code) or f"ref {code:#x}"

    def vector(self, read: Callable[[], _T]) -> list[_T]:
        """Read a vector; `read` reads one element."""
        return [read() for _ in range(self.number())]


def leb(value: int) -> bytes:
    """Encode an unsigned number in LEB128."""
    if value < 0x80:
        return bytes((value,))
    if value < 0x4000:
        return bytes((value & 0x7F | 0x80, value >> 7))
    output = bytearray()
    while value > 0x7F:
        output.append(value & 0x7F | 0x80)
        value >>= 7
    output.append(value)
    return bytes(output)


def vector(items: Sequence[bytes]) -> bytes:
    """Encode a vector: the number of items, and the items."""
    return leb(len(items)) + b"".join(items)


def section(id: int, contents: bytes) -> bytes:
    """Encode a section of a module."""
    return bytes([id]) + leb(len(contents)) + contents
