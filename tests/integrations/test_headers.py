"""Headers between HTTP libraries and filters."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxywasm_host.integrations.headers import sendable

NAMES = st.sampled_from(
    [b"a", b"x-1", b":path", b":", b"", b"a b", b"a\0b", b":a\0b", b"\0", b"a\n", b"A", b"\xc3\xa4", b"a:"]
)
VALUES = st.sampled_from(
    [b"", b"v", b"a b", b"\0", b"a\0b", b"\r", b"\n", b"a\r\nb: c", b"\xff", b"\t", b"a\x01b", b"\x7f"]
)


def is_good(name: bytes, value: bytes) -> bool:
    """RFC 9110: a token, and a value without controls but tabs."""
    good = re.fullmatch(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+", name)
    return bool(good) and not re.search(rb"[\x00-\x08\x0a-\x1f\x7f]", value)


@given(st.lists(st.tuples(NAMES, VALUES), max_size=4))
def test_what_can_be_put_into_http(headers):
    assert sendable(headers) is all(is_good(name, value) for name, value in headers)


@pytest.mark.parametrize("byte", range(256))
def test_each_byte(byte):
    character = bytes([byte])
    token = chr(byte).isascii() and (chr(byte).isalnum() or chr(byte) in "!#$%&'*+-.^_`|~")
    assert sendable([(b"x" + character, b"")]) is token
    assert sendable([(b"x", character)]) is (byte == 0x09 or (byte >= 0x20 and byte != 0x7F))
