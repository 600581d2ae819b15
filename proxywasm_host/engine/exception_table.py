"""Makes callbacks that let no exception escape, not even one raised before their first line.

A signal that arrives while the guest runs (Ctrl-C, an alarm) is handled when Python code runs again, at the beginning
of the next host function: on CPython ≥ 3.11 by the instruction ``RESUME``, which precedes even a ``try`` around the
whole body. ctypes would print and drop an exception that the signal handler raises there. So the ``try`` of the
function is extended to cover this instruction, by a change of two numbers in the exception table of its code.
"""

from __future__ import annotations

from types import CodeType

__all__ = ["extend_try", "extend_try_within"]


def extend_try(code: CodeType) -> CodeType:
    """Extend the ``try`` of `code`, whose body is one ``try`` statement, to the first instruction."""
    table: bytes = getattr(code, "co_exceptiontable", b"")  # CPython 3.10 has neither a table nor the problem
    if not table:
        return code
    start, rest = _number(table)
    length, rest = _number(rest)
    stretched = _encoded(0, first=True) + _encoded(start + length) + rest
    return code.replace(co_exceptiontable=stretched)  # type: ignore[call-arg, unused-ignore]


def extend_try_within(code: CodeType, name: str) -> CodeType:
    """Apply `extend_try` to all functions in `code` with this name."""
    inner = (extend_try_within(item, name) if isinstance(item, CodeType) else item for item in code.co_consts)
    code = code.replace(co_consts=tuple(inner))
    return extend_try(code) if code.co_name == name else code


def _number(table: bytes) -> tuple[int, bytes]:
    """The number at the beginning of `table`, and the rest.

    Each byte has six bits of the number, the highest first; bit 6 is set in all bytes but the last.
    """
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
