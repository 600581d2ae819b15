"""What a filter holds of a body: bytes that grow at their end and change in place.

Where the C extension is there (``native/held_body.c``), its ``HeldBody`` takes the place of the one here: it gives its
bytes away without a copy of them, and guests read and write them where they are. So a body that is held, read, replaced
and sent on is in the host's memory once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from proxywasm_host.abi.native import NATIVE

__all__ = ["HeldBody"]


class HeldBody:
    """``bytes(held)`` are those that are held now; what is changed later does not change them."""

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
        """Put `data` in the place of `length` bytes from `start` on, as far as there are some."""
        self._data[start : start + length] = data

    def part(self, start: int, length: int, /) -> bytes:
        """`length` bytes from `start` on, as far as there are some."""
        return bytes(memoryview(self._data)[start : start + length])


PythonHeldBody = HeldBody
if not TYPE_CHECKING and NATIVE is not None:
    HeldBody = NATIVE.HeldBody
