"""Property paths and property values, in the form that they have in a guest's memory.

Source: ``Context::getProperty`` and ``serializeValue`` in Envoy's ``context.cc``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta, timezone
from functools import lru_cache
from struct import Struct
from typing import Any, Union

from proxywasm_host.abi import pairs
from proxywasm_host.errors import UnencodableType, UnencodableValue

__all__ = [
    "PropertyValue",
    "check_properties",
    "decode_path",
    "encode_path",
    "encode_text",
    "encode_value",
]

PropertyValue = Union[
    None, bool, int, float, str, bytes, datetime, timedelta, "Mapping[str, PropertyValue]", "Sequence[PropertyValue]"
]
"""The types of a property's value. ``None`` is Envoy's null message, which a guest gets as no bytes."""

MAX_SEGMENTS = 64
"""Most segments of a path. A longer path names no property, and must not become millions of strings."""
MAX_REMEMBERED = 64
"""Most bytes of a path whose segments are cached. All guests share the cache, because they mostly read the same."""

_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)
NO_PAIRS = bytes(4)
"""An empty mapping as a property: a count of 0, not the empty string (as in Envoy)."""
_I64 = Struct("<q")
_U64 = Struct("<Q")
_F64 = Struct("<d")


_ALWAYS_ENCODABLE = frozenset((bytes, bool, float, type(None)))
_VALUES = (
    "text, bytes, a number of at most 64 bits, a bool, a datetime with a time zone, a timedelta, None, "
    "or a mapping or a list of these"
)


def decode_path(data: bytes) -> tuple[str, ...]:
    """Split a property path at its NULs. One NUL at the end is tolerated, because some SDKs send it.

    If a path has more than `MAX_SEGMENTS`, the last segment holds the rest, with its NULs.
    """
    return _remembered(data) if len(data) <= MAX_REMEMBERED else _split(data)


def _split(data: bytes) -> tuple[str, ...]:
    if data.endswith(b"\0"):
        data = data[:-1]
    return tuple(part.decode("utf-8", "surrogateescape") for part in data.split(b"\0", MAX_SEGMENTS - 1))


_remembered = lru_cache(maxsize=1024)(_split)


def encode_path(path: Sequence[str]) -> bytes:
    """Join the segments of a property path as SDKs do."""
    return b"\0".join(part.encode("utf-8", "surrogateescape") for part in path)


def _nanoseconds(span: timedelta) -> int:
    return (span.days * 86_400_000_000 + span.seconds * 1_000_000 + span.microseconds) * 1000


def encode_text(value: PropertyValue) -> bytes:
    """A property in the form of ngx_wasm_module: decimal numbers, ``true`` and ``false``, times and spans in seconds.

    Raises: as `encode_value`.
    """
    if isinstance(value, bool):
        return b"true" if value else b"false"
    if isinstance(value, (int, float)):
        return b"%d" % value if isinstance(value, int) else repr(value).encode()
    if isinstance(value, datetime):
        return b"%.3f" % value.timestamp()
    return b"%.3f" % value.total_seconds() if isinstance(value, timedelta) else encode_value(value)


def encode_value(value: PropertyValue) -> bytes:
    """The bytes of a property for a guest.

    Numbers are 8 bytes, little-endian. A bool is one byte. A time is nanoseconds since 1970, a time span nanoseconds. A
    mapping is header pairs; a list is header pairs with its elements as keys and empty values (``serializeValue``).

    Raises: UnencodableValue, for another type, a number of more than 64 bits, a time without a time zone, or text
    that is not Unicode.
    """
    if isinstance(value, bytes):
        return value
    if isinstance(value, (bytearray, memoryview)):
        return bytes(value)
    if isinstance(value, str):
        try:
            return value.encode("utf-8", "surrogateescape")
        except UnicodeEncodeError:
            raise UnencodableValue(f"{value!r} is not Unicode text") from None
    if isinstance(value, bool):
        return b"\1" if value else b"\0"
    if isinstance(value, int):
        if -(1 << 63) <= value < 1 << 63:
            return _I64.pack(value)
        if 0 <= value < 1 << 64:
            return _U64.pack(value)
        raise UnencodableValue(f"{value} needs more than 64 bits")
    if isinstance(value, float):
        return _F64.pack(value)
    if isinstance(value, datetime):
        if value.utcoffset() is None:
            raise UnencodableValue(f"{value!r} has no time zone")
        return encode_value(_nanoseconds(value - _EPOCH))
    if isinstance(value, timedelta):
        return encode_value(_nanoseconds(value))
    if isinstance(value, Mapping):
        return pairs.encode((encode_value(str(key)), encode_value(item)) for key, item in value.items()) or NO_PAIRS
    if isinstance(value, Sequence):
        return pairs.encode((encode_value(item), b"") for item in value) or NO_PAIRS
    if value is None:
        return b""
    raise UnencodableType(f"a {type(value).__name__} has no form in the ABI")


def check_properties(properties: object) -> None:
    """Check the properties of an embedder, before a filter reads them.

    Values in dicts and lists are checked now. Another mapping may compute its values, so these are checked when a
    filter reads them.

    Raises: TypeError, if they are not a mapping of names to values, or a value is of another type; UnencodableValue,
        for a value without a form in the ABI, such as a number of more than 64 bits.
    """
    if not isinstance(properties, Mapping):
        raise TypeError(f"properties are a mapping of dotted names to values, not {properties!r}")
    if not isinstance(properties, dict):
        return
    for name, value in properties.items():
        if not isinstance(name, str):
            raise TypeError(f"a property is named by text with dots, such as 'source.address', not by {name!r}")
        try:
            _check(value)
        except UnencodableValue as error:
            raise type(error)(f"property {name!r}: {error}; give {_VALUES}") from None


def _check(value: Any) -> None:
    kind = value.__class__
    if kind in _ALWAYS_ENCODABLE:
        return
    if kind is dict:
        for key, item in value.items():
            encode_value(str(key))
            _check(item)
    elif kind is list or kind is tuple:
        for item in value:
            _check(item)
    elif isinstance(value, str) or not isinstance(value, (Mapping, Sequence)):
        encode_value(value)
