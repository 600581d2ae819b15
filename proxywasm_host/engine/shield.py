"""Callbacks that let no exception escape, not even one that strikes before their first line.

A signal that arrives while the guest runs (Ctrl-C, an alarm) is handled as soon as Python code runs again, which is
the very start of the next host function: on CPython ≥ 3.11 the instruction ``RESUME``, which stands before a ``try``
that opens the body. ctypes would print and drop what the signal's handler raises there. So the function's ``try`` is
stretched to cover it, by a change of two numbers in the exception table of its code.

What Python raises when its stack is full strikes before any ``try``, and what ctypes then hands to native code is
whatever was in memory, which may end the process. So a guest is entered only if there is headroom for the first steps
of a host function, and for those that clear away what a failed call has left.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from types import CodeType
from typing import Any

__all__ = ["headroom", "shielded", "shielded_within"]


def headroom(calls: int) -> Callable[[], object]:
    """A function that raises RecursionError unless there is room for `calls` calls of Python functions in each other.

    On CPython < 3.12 one number counts these and calls in C; since then each has its own. There is room for twice as
    many of those, and some to spare: for what C calls of Python, and Python of C.
    """
    classes: Any = type(None)
    for _ in range(2 * calls + 4):
        classes = (classes,)
    check: Callable[[], object] = partial(isinstance, None, classes)  # calls itself for each, at the speed of C
    if sys.version_info >= (3, 12):
        for _ in range(calls):
            check = _around(check)
    return check


def _around(inner: Callable[[], object]) -> Callable[[], object]:
    def outer() -> None:
        inner()

    return outer


def shielded(code: CodeType) -> CodeType:
    """`code`, whose body is one ``try`` statement, with that ``try`` reaching back to the first instruction."""
    table: bytes = getattr(code, "co_exceptiontable", b"")  # CPython 3.10 has none, nor the problem
    if not table:
        return code
    start, rest = _number(table)
    length, rest = _number(rest)
    stretched = _encoded(0, first=True) + _encoded(start + length) + rest
    return code.replace(co_exceptiontable=stretched)  # type: ignore[call-arg, unused-ignore]


def shielded_within(code: CodeType, name: str) -> CodeType:
    """`code` with all functions of that name in it shielded."""
    inner = (shielded_within(item, name) if isinstance(item, CodeType) else item for item in code.co_consts)
    code = code.replace(co_consts=tuple(inner))
    return shielded(code) if code.co_name == name else code


def _number(table: bytes) -> tuple[int, bytes]:
    """The number at the head of `table`: six bits in each byte, the highest first, bit 6 set in all but the last."""
    value = 0
    for index, byte in enumerate(table):
        value = value << 6 | byte & 0x3F
        if not byte & 0x40:
            return value, table[index + 1 :]
    raise ValueError("an exception table ends within a number")


def _encoded(value: int, *, first: bool = False) -> bytes:
    groups = [value & 0x3F]
    while value := value >> 6:
        groups.append(value & 0x3F | 0x40)
    groups[-1] |= 0x80 if first else 0  # the first byte of an entry is marked
    return bytes(reversed(groups))
