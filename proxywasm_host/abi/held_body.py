"""The part of a body that a filter holds: bytes that grow at their end and change in place.

With the C extension (``native/held_body.c``), its ``HeldBody`` replaces this one: it passes its bytes on without a
copy, and guests read and write them in place. So the host's memory contains a held body only once, even if the guest
reads and replaces it.
"""

from __future__ import annotations

from io import SEEK_END, BytesIO
from typing import TYPE_CHECKING

from proxywasm_host.abi.native import NATIVE

__all__ = ["HeldBody"]


class HeldBody:
    """``bytes(held)`` are the current bytes; later changes do not affect them."""

    def __init__(self, data: bytes = b"", /) -> None:
        self._stored = BytesIO(bytes(data))  # BytesIO copies bytes only when it changes them

    def __len__(self) -> int:
        return self._stored.seek(0, SEEK_END)

    def __bytes__(self) -> bytes:
        return self._stored.getvalue()

    def append(self, data: bytes, /) -> None:
        """Add bytes at the end."""
        if len(self):
            self._stored.write(data)
        else:
            self._stored = BytesIO(bytes(data))

    def splice(self, start: int, length: int, data: bytes, /) -> None:
        """Replace `length` bytes from `start` on, or fewer at the end, with `data`."""
        size = len(self)
        start = min(start, size)
        end = min(start + length, size)
        if end - start == size:
            self._stored = BytesIO(bytes(data))
            return
        rest = None if end - start == len(data) else self.part(end, size - end)
        self._stored.seek(start)
        self._stored.write(data)
        if rest is not None:
            self._stored.write(rest)
            self._stored.truncate()

    def part(self, start: int, length: int, /) -> bytes:
        """`length` bytes from `start` on, or fewer at the end."""
        self._stored.seek(start)
        return self._stored.read(length)


PythonHeldBody = HeldBody
if not TYPE_CHECKING and NATIVE is not None:
    HeldBody = NATIVE.HeldBody
