"""Values as Python writes them, for tests that are written by us."""

from __future__ import annotations

from typing import Any

__all__ = ["literal"]

MANY = 40


def literal(value: Any) -> str:
    """A value as Python writes it, a character that is repeated often as ``b'a' * 2000``; tuples of them as lists."""
    if isinstance(value, (bytes, str)):
        return f"{value[:1]!r} * {len(value)}" if len(value) > MANY and len(set(value)) == 1 else repr(value)
    if all(isinstance(part, tuple) for part in value):
        return f"[{', '.join('(' + ', '.join(map(literal, part)) + ')' for part in value)}]"
    return f"[{', '.join(map(literal, value))}]"
