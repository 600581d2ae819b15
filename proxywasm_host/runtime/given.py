"""What embedders give a stream that is not quite what it takes: taken if it is clear, else refused in words."""

from __future__ import annotations

from typing import Any

__all__ = ["body_of", "instead"]


def body_of(data: Any) -> bytes:
    """A part of a body as bytes. Raises: TypeError."""
    if isinstance(data, (bytes, bytearray, memoryview)):
        return bytes(data)
    if isinstance(data, str):
        raise TypeError(f"a body is bytes, not text: write {data[:20]!r}{'…' if len(data) > 20 else ''}.encode()")
    raise TypeError(f"a body is bytes, not {data!r}")


def instead(headers: Any, pair: Any) -> str:
    """What to write instead of an invalid header."""
    if isinstance(headers, dict):
        return ": write list(headers.items())"
    if isinstance(pair, tuple) and [isinstance(part, (str, bytes)) for part in pair] == [True, True]:
        name, value = (part.encode() if isinstance(part, str) else part for part in pair)
        return f": write {(name, value)!r}"
    return ""
