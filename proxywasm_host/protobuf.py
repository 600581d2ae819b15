"""The part of protobuf's wire format that the host needs for filters: the fields of one message, in order."""

from __future__ import annotations

from collections.abc import Iterator

__all__ = ["field", "fields"]

VARINT, LENGTH_DELIMITED = 0, 2
FIXED_SIZES = {1: 8, 5: 4}
MAX_FIELDS = 1024
"""Maximum number of fields in one message, so that a guest cannot keep the host busy with reading."""


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while shift < 64:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
    raise ValueError("a varint of more than 64 bits")


def field(number: int, value: int | bytes | str) -> bytes:
    """Encode one field of a message: a non-negative number as a varint, anything else with its length."""
    if isinstance(value, int):
        return _written(number << 3 | VARINT) + _written(value)
    content = value.encode() if isinstance(value, str) else value
    return _written(number << 3 | LENGTH_DELIMITED) + _written(len(content)) + content


def _written(value: int) -> bytes:
    return bytes([value]) if value < 0x80 else bytes([value & 0x7F | 0x80]) + _written(value >> 7)


def fields(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    """The number and content of each field; the content is an integer or bytes.

    Raises: ValueError or IndexError, at a damaged field.
    """
    at = count = 0
    while at < len(data):
        count += 1
        if count > MAX_FIELDS:
            raise ValueError(f"more than {MAX_FIELDS} fields")
        tag, at = _varint(data, at)
        wire = tag & 7
        if wire == VARINT:
            value, at = _varint(data, at)
            yield tag >> 3, value
            continue
        if wire == LENGTH_DELIMITED:
            size, at = _varint(data, at)
        elif wire in FIXED_SIZES:
            size = FIXED_SIZES[wire]
        else:
            raise ValueError(f"wire type {wire}")
        if at + size > len(data):
            raise ValueError("a field reaches beyond the message")
        yield tag >> 3, data[at : at + size]
        at += size
