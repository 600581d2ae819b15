"""Fields of protobuf messages, byte by byte."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxywasm_host.protobuf import fields

MESSAGES = {
    "nothing": ("", []),
    "varint": ("08 96 01", [(1, 150)]),
    "the greatest u64": ("10 ffffffffffffffffff01", [(2, (1 << 64) - 1)]),
    "bytes": ("0a 03 616263", [(1, b"abc")]),
    "no bytes": ("12 00", [(2, b"")]),
    "64 bits": ("19 0102030405060708", [(3, bytes(range(1, 9)))]),
    "32 bits": ("25 01020304", [(4, b"\1\2\3\4")]),
    "a field of a high number": ("82 7d 01 78", [(2000, b"x")]),
    "several, one twice": ("08 01 0a 01 78 08 02", [(1, 1), (1, b"x"), (1, 2)]),
}


@pytest.mark.parametrize(("data", "found"), MESSAGES.values(), ids=MESSAGES)
def test_fields(data, found):
    assert list(fields(bytes.fromhex(data))) == found


DAMAGED = {
    "half a tag": ("80", IndexError),
    "no value": ("08", IndexError),
    "half a value": ("08 80", IndexError),
    "a value of 71 bits": ("08" + "80" * 10 + "01", ValueError),
    "bytes beyond the end": ("0a 04 616263", ValueError),
    "very many bytes": ("0a ffffffffffffffff7f", ValueError),
    "half of 64 bits": ("19 01020304", ValueError),
    "half of 32 bits": ("25 0102", ValueError),
    "the start of a group": ("0b", ValueError),
    "a wire type that does not exist": ("0f", ValueError),
}


@pytest.mark.parametrize(("data", "error"), DAMAGED.values(), ids=DAMAGED)
def test_damaged(data, error):
    with pytest.raises(error):
        list(fields(bytes.fromhex(data)))


def test_a_message_of_very_many_fields():
    assert list(fields(b"\x08\1" * 1024)) == [(1, 1)] * 1024
    with pytest.raises(ValueError, match=r"^more than 1024 fields$"):
        list(fields(b"\x08\1" * 1025))


@given(st.binary(max_size=100))
def test_any_bytes(data):
    with suppress(ValueError, IndexError):
        assert all(isinstance(number, int) for number, _ in fields(data))
