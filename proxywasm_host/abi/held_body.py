"""The part of a body that a filter holds: bytes that grow at their end and change in place.

With the C extension (``native/held_body.c``), its ``HeldBody`` replaces this one: it hands its bytes over without a
copy, and guests read and write them in place. So a body that is held, read, replaced and sent on is in the host's
memory once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from proxywasm_host.abi.native import NATIVE

__all__ = ["HeldBody"]


class HeldBody:
    """``bytes(held)`` are the current bytes; later changes do not affect them."""

    def __init__(self, data: bytes = b"", /) -> None:
        self._data = bytearray(data)

    def __len__(self) -> int:
        return len(self._data)

    def __bytes__(self) -> bytes:
        return bytes(self._data)

    def append(self, data: bytes, /) -> None:
        """Add bytes at the end."""
        self._data += data

    def splice(self, start: int, length: int, data: bytes, /) -> None:
        """Replace `length` bytes from `start` on, or fewer at the end, by `data`."""
        self._data[start : start + length] = data

    def part(self, start: int, length: int, /) -> bytes:
        """`length` bytes from `start` on, or fewer at the end."""
        return bytes(memoryview(self._data)[start : start + length])


PythonHeldBody = HeldBody
if not TYPE_CHECKING and NATIVE is not None:
    HeldBody = NATIVE.HeldBody
