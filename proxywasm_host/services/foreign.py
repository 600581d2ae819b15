"""Foreign functions: calls that a host offers beyond the ABI, by name.

Source of the built-in ones: ``foreign.cc`` of Envoy.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable

__all__ = ["BUILT_IN", "ForeignCallFailed", "ForeignFunction"]

ForeignFunction = Callable[[bytes], bytes]
"""Takes the argument's bytes and returns the result's.

It may raise `ForeignCallFailed` with the status for the guest; any other exception is INTERNAL_FAILURE.
"""

MAX_UNCOMPRESSED = 64 * 1024 * 1024
"""Bytes that ``uncompress`` gives at most: a guest must not make the host allocate without bound."""


class ForeignCallFailed(Exception):
    """A foreign function refuses; `status` is what the guest is told, the text is the reason in traces."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status


def compress(arguments: bytes) -> bytes:
    """The argument as a zlib stream."""
    return zlib.compress(arguments)


def uncompress(arguments: bytes) -> bytes:
    """What the zlib stream holds; SERIALIZATION_FAILURE if it is damaged or holds more than 64 MiB."""
    stream = zlib.decompressobj()
    try:
        result = stream.decompress(arguments, MAX_UNCOMPRESSED + 1)
    except zlib.error as error:
        raise ForeignCallFailed(3, f"no zlib stream: {error}") from None
    if len(result) > MAX_UNCOMPRESSED:
        raise ForeignCallFailed(3, f"the zlib stream holds more than {MAX_UNCOMPRESSED} bytes")
    if not stream.eof:
        raise ForeignCallFailed(3, "the zlib stream ends early")
    return result


BUILT_IN: dict[str, ForeignFunction] = {"compress": compress, "uncompress": uncompress}
