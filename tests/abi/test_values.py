"""Property paths and values, byte by byte."""

from __future__ import annotations

from collections import OrderedDict
from datetime import datetime, timedelta, timezone, tzinfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxywasm_host.abi import pairs
from proxywasm_host.abi.values import decode_path, encode_path, encode_value
from proxywasm_host.errors import UnencodableValue

PATHS = {
    "one segment": (b"plugin_name", ("plugin_name",)),
    "several": (b"request\0headers\0x-foo", ("request", "headers", "x-foo")),
    "a NUL at the end": (b"request\0path\0", ("request", "path")),
    "only one NUL at the end": (b"request\0\0", ("request", "")),
    "a NUL in front": (b"\0request", ("", "request")),
    "nothing": (b"", ("",)),
    "a NUL": (b"\0", ("",)),
    "UTF-8": ("métadonnées\0€".encode(), ("métadonnées", "€")),
    "no UTF-8": (b"\xff\0a\xc3", ("\udcff", "a\udcc3")),
    "64 segments": (b"a\0" * 63 + b"b", ("a",) * 63 + ("b",)),
    "more": (b"a\0" * 63 + b"b\0c\0", ("a",) * 63 + ("b\0c",)),
}


@pytest.mark.parametrize(("data", "path"), PATHS.values(), ids=PATHS)
def test_path(data, path):
    assert decode_path(data) == path


@given(st.binary())
def test_any_bytes_are_a_path(data):
    assert encode_path(decode_path(data)) == data.removesuffix(b"\0")


@given(st.lists(st.text(st.characters(exclude_characters="\0", codec="utf-8"), min_size=1), min_size=1, max_size=64))
def test_a_path_is_read_as_it_was_written(path):
    assert decode_path(encode_path(path)) == tuple(path)


def number(value: int) -> str:
    return (value % (1 << 64)).to_bytes(8, "little").hex()


DAY = 86_400_000_000_000

VALUES = {
    "bytes": (b"\0\xff", "00ff"),
    "no bytes": (b"", ""),
    "text": ("é", "c3a9"),
    "bytes that came as text": ("\udcff", "ff"),
    "null": (None, ""),
    "true": (True, "01"),
    "false": (False, "00"),
    "zero": (0, "0000000000000000"),
    "minus one": (-1, "ffffffffffffffff"),
    "the least i64": (-(1 << 63), "0000000000000080"),
    "the greatest i64": ((1 << 63) - 1, "ffffffffffffff7f"),
    "beyond i64": (1 << 63, "0000000000000080"),
    "the greatest u64": ((1 << 64) - 1, "ffffffffffffffff"),
    "float": (1.5, "000000000000f83f"),
    "infinity": (float("inf"), "000000000000f07f"),
    "1970": (datetime(1970, 1, 1, tzinfo=timezone.utc), number(0)),
    "a microsecond before": (datetime(1969, 12, 31, 23, 59, 59, 999_999, tzinfo=timezone.utc), number(-1000)),
    "another time zone": (datetime(1970, 1, 2, 2, tzinfo=timezone(timedelta(hours=2))), number(DAY)),
    "a span": (timedelta(days=1, seconds=1, microseconds=1), number(DAY + 1_000_001_000)),
    "a negative span": (timedelta(microseconds=-1), number(-1000)),
    "mapping": ({"a": "bc"}, "01000000 01000000 02000000 61 00 6263 00"),
    "another mapping": (OrderedDict(a=True), "01000000 01000000 01000000 61 00 01 00"),
    "a number as key": ({1: b""}, "01000000 01000000 00000000 31 00 00"),
    "no items": ({}, "00000000"),
    "list": (["a"], "01000000 01000000 00000000 61 00 00"),
    "tuple of numbers": ((1,), "01000000 08000000 00000000 0100000000000000 00 00"),
    "no elements": ([], "00000000"),
}


@pytest.mark.parametrize(("value", "data"), VALUES.values(), ids=VALUES)
def test_value(value, data):
    assert encode_value(value) == bytes.fromhex(data)


def test_nested():
    inner = pairs.encode([(b"c", b"\1")])
    assert encode_value({"a": {"c": True}}) == pairs.encode([(b"a", inner)])


class Undecided(tzinfo):
    """A time zone that does not know its offset."""

    def utcoffset(self, when):
        return None

    def __repr__(self):
        return "Undecided()"


UNENCODABLE = {
    "2⁶⁴": (1 << 64, "18446744073709551616 needs more than 64 bits"),
    "-2⁶³-1": (-(1 << 63) - 1, "-9223372036854775809 needs more than 64 bits"),
    "a time without a zone": (datetime(1970, 1, 1), "datetime.datetime(1970, 1, 1, 0, 0) has no time zone"),  # noqa: DTZ001
    "a time without an offset": (
        datetime(1970, 1, 1, tzinfo=Undecided()),
        "datetime.datetime(1970, 1, 1, 0, 0, tzinfo=Undecided()) has no time zone",
    ),
    "a time after 2554": (datetime(9999, 1, 1, tzinfo=timezone.utc), "253370764800000000000 needs more than 64 bits"),
    "a set": ({1}, "a set has no form in the ABI"),
    "an object": (object(), "a object has no form in the ABI"),
    "inside a mapping": ({"a": object()}, "a object has no form in the ABI"),
    "inside a list": ([1 << 64], "18446744073709551616 needs more than 64 bits"),
    "half of a surrogate pair": ("\ud800", "'\\ud800' is not Unicode text"),
    "in a key": ({"\ud800": 1}, "'\\ud800' is not Unicode text"),
}


@pytest.mark.parametrize(("value", "message"), UNENCODABLE.values(), ids=UNENCODABLE)
def test_unencodable(value, message):
    with pytest.raises(UnencodableValue) as caught:
        encode_value(value)
    assert str(caught.value) == message


@given(st.integers(-(1 << 63), (1 << 64) - 1))
def test_numbers_are_eight_bytes(value):
    assert encode_value(value) == bytes.fromhex(number(value))


@given(st.dictionaries(st.text(st.characters(codec="utf-8")), st.binary()))
def test_a_mapping_is_header_pairs(value):
    assert pairs.decode(encode_value(value)) == [(key.encode(), item) for key, item in value.items()]
