"""Header pairs: the one serialisation that the ABI defines.

    u32 count, then count × (u32 key size, u32 value size), then for each pair: key, NUL, value, NUL.

All numbers are little-endian. An empty list is sent as no bytes; no bytes and a count of 0 are both accepted.
Source: ``pairs_util.cc`` of Envoy's host (the example in the specification is wrong: its counts have one byte).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache
from struct import Struct

from proxywasm_host.abi.native import check_constants

__all__ = ["MAX_ENTRIES", "MAX_SIZE", "HeaderList", "MalformedPairs", "decode", "encode"]

HeaderList = list[tuple[bytes, bytes]]
"""A header map: a plain list, in the order of the wire, names in lower case."""

MAX_SIZE = 1024 * 1024
"""Most bytes of a guest's pairs (``limits.h`` of Envoy's host)."""
MAX_ENTRIES = 1024
"""Most pairs that a guest may send at once (``limits.h`` of Envoy's host)."""


check_constants(MAX_PAIRS_SIZE=MAX_SIZE, MAX_PAIRS=MAX_ENTRIES)


class MalformedPairs(ValueError):
    """The bytes are not header pairs; the message says what is wrong and where."""


@lru_cache(MAX_ENTRIES + 1)
def _sizes(numbers: int) -> Struct:
    return Struct(f"<{numbers}I")


def encode(pairs: Iterable[tuple[bytes, bytes]]) -> bytes:
    """Serialise header pairs; ``b""`` for an empty list."""
    flat = [part for pair in pairs for part in pair]
    if not flat:
        return b""
    return b"%b%b\0" % (
        _sizes(len(flat) + 1).pack(len(flat) // 2, *map(len, flat)),
        b"\0".join(flat),
    )


def decode(data: bytes | memoryview) -> HeaderList:
    """Decode header pairs that a guest sent.

    Raises: MalformedPairs, if they exceed the limits, a NUL or a byte is missing, or bytes are left over.
    """
    size = len(data)
    if not size:
        return []
    if size > MAX_SIZE:
        raise MalformedPairs(f"more than {MAX_SIZE} bytes of header pairs")
    if size < 4:
        raise MalformedPairs(f"{size} bytes are too few for the number of pairs")
    count = int.from_bytes(data[:4], "little")
    if count > MAX_ENTRIES:
        raise MalformedPairs(f"{count} header pairs, and {MAX_ENTRIES} is the limit")
    at = 4 + 8 * count
    if at > size:
        raise MalformedPairs(f"{size} bytes are too few for the sizes of {count} pairs")
    sizes: Sequence[int] = _sizes(2 * count).unpack_from(data, 4)
    parts: list[bytes] = []
    for part_size in sizes:
        end = at + part_size
        if end >= size:
            raise MalformedPairs(
                f"string {len(parts)} of {part_size} bytes at byte {at} reaches beyond the {size} bytes"
            )
        if data[end]:
            raise MalformedPairs(f"string {len(parts)} at byte {at} does not end in NUL")
        parts.append(bytes(data[at:end]))
        at = end + 1
    if at != size:
        raise MalformedPairs(f"{size - at} bytes follow the last pair")
    return list(zip(parts[::2], parts[1::2], strict=True))
