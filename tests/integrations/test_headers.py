"""Headers between HTTP libraries and filters."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxywasm_host.integrations import headers as headers_module
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


# -- In C and in Python --------------------------------------------------------------------------------------------------

MET = st.sampled_from(
    [b"host", b"connection", b"keep-alive", b"te", b"transfer-encoding", b"upgrade", b"expect", b"x-a", b"content-length"]
)
SEEN = st.sampled_from([b" v", b"v\t", b"v\r\n", b"chunked", b"x-a, b", b"trailers", b"5"])
ANY = st.lists(st.tuples(NAMES | MET, VALUES | SEEN), max_size=6)


def outcome(function, headers):
    try:
        return function(headers)
    except headers_module.Refused as refused:
        return refused.status, refused.why


@pytest.mark.skipif(headers_module.NATIVE is None, reason="there is no compiler, or PROXYWASM_NATIVE=no")
@given(ANY)
def test_c_and_python_say_the_same(headers):
    native = [outcome(function, list(headers)) for function in (headers_module.sent, headers_module.received)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(headers_module, "NATIVE", None)
        assert native == [outcome(function, list(headers)) for function in (headers_module.sent, headers_module.received)]


@pytest.mark.skipif(headers_module.NATIVE is None, reason="there is no compiler, or PROXYWASM_NATIVE=no")
def test_c_answers_where_nothing_is_unusual():
    plain = [(b"host", b"example.com"), (b"x-a", b"some value"), (b"content-length", b"5")]
    assert headers_module.NATIVE.received(plain) == (plain[1:], b"example.com")
    assert headers_module.NATIVE.sent([(b":path", b"/"), *plain]) == plain
    for odd in ((b"te", b"trailers"), (b"x-a", b" v"), (b"host", b"another"), [b"x-a", b"v"], (b"x-a", "v"), None):
        assert headers_module.NATIVE.received([*plain, odd]) is None
    for odd in ((b"upgrade", b"h2c"), (b"x-a", b"v\n"), (b"x a", b"v"), (b"x-a", b"\x01"), [b"x-a", b"v"], None):
        assert headers_module.NATIVE.sent([*plain, odd]) is None
