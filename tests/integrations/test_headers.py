"""Headers between HTTP libraries and filters."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxywasm_host.integrations import headers as headers_module
from proxywasm_host.integrations import heads as heads_module
from proxywasm_host.integrations.headers import received_request, received_response, sendable
from proxywasm_host.integrations.heads import request_head, response_head

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
    [
        b"host",
        b"connection",
        b"keep-alive",
        b"te",
        b"transfer-encoding",
        b"upgrade",
        b"expect",
        b"x-a",
        b"content-length",
    ]
)
SEEN = st.sampled_from([b" v", b"keep-alive", b"v\t", b"v\r\n", b"chunked", b"x-a, b", b"trailers", b"5", b"05", b"a:80", b"a:b"])
ANY = st.lists(st.tuples(NAMES | MET, VALUES | SEEN), max_size=6)
TARGETS = st.sampled_from([b"/", b"/a?b", b"/#", b"*", b"", b"http://a/b", b"/\0#", b"/ ", b"x"])
FIRST = st.lists(
    st.tuples(
        st.sampled_from([b":method", b":path", b":scheme", b":authority", b":status", b":other"]),
        st.sampled_from([b"GET", b"/", b"/ ", b"*", b"http", b"200", b"2 0", b"199", b"600", b"a\0", b""]),
    ),
    max_size=5,
)


def outcome(function, *given):
    try:
        return function(*given)
    except headers_module.Refused as refused:
        return refused.status, refused.why
    except (KeyError, IndexError) as error:
        return type(error)  # the core lets no headers out without what must be there


def in_both(function, *given):
    """What C, with Python where that has to, and Python alone make of it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(headers_module, "NATIVE", None)
        patch.setattr(heads_module, "NATIVE", None)
        python = outcome(function, *given)
    return outcome(function, *given), python


needs_c = pytest.mark.skipif(headers_module.NATIVE is None, reason="there is no compiler, or PROXYWASM_NATIVE=no")


@needs_c
@given(ANY, TARGETS)
def test_c_and_python_say_the_same_of_what_came(headers, target):
    native, python = in_both(received_request, headers, b"GET", target, b"http", b"server")
    assert native == python
    native, python = in_both(received_response, 200, headers)
    assert native == python


@needs_c
@given(FIRST, ANY)
def test_c_and_python_say_the_same_of_what_goes(first, headers):
    native, python = in_both(request_head, [*first, *headers], False)
    assert native == python
    native, python = in_both(response_head, [*first, *headers], False)
    assert native == python


PLAIN = [(b"host", b"example.com:80"), (b"x-a", b"some value"), (b"content-length", b"5")]
ODD = [
    (b"te", b"gzip, trailers"),
    (b"connection", b"close"),
    (b"transfer-encoding", b"chunked"),  # beside a length
    (b"x-a", b" v"),
    (b"host", b"another"),
    [b"x-a", b"v"],
    (b"x-a", "v"),
    (b"content-length", b"5"),
    None,
]


@needs_c
def test_c_answers_where_nothing_is_unusual():
    native, request = headers_module.NATIVE, (b"GET", b"/", b"http", b"s")
    pseudo = [(b":authority", b"example.com:80"), (b":path", b"/"), (b":method", b"GET"), (b":scheme", b"http")]
    assert native.received_request(PLAIN, *request) == ([*pseudo, *PLAIN[1:]], 5, False, True)
    assert native.received_response(200, PLAIN[1:]) == ([(b":status", b"200"), *PLAIN[1:]], 5)
    assert native.sent_request([*pseudo, *PLAIN[1:]]) == (b"GET", b"/", b"http", PLAIN, 2)
    assert native.sent_response([(b":status", b"200"), *PLAIN[1:]]) == (200, PLAIN[1:], 1)


@needs_c
def test_c_answers_what_clients_of_http_1_1_usually_say_of_their_connection():
    headers = [(b"host", b"a"), (b"connection", b"keep-alive"), (b"te", b"trailers"), (b"transfer-encoding", b"chunked")]
    shown, length, chunked, clean = headers_module.NATIVE.received_request(headers, b"POST", b"/", b"http", b"s")
    assert (shown[4:], length, chunked, clean) == ([(b"te", b"trailers")], None, True, True)


@needs_c
@pytest.mark.parametrize("odd", ODD)
def test_c_leaves_what_is_unusual_to_python(odd):
    native, pseudo = headers_module.NATIVE, headers_module.NATIVE.received_request(PLAIN, b"GET", b"/", b"http", b"")[0]
    assert native.received_request([*PLAIN, odd], b"GET", b"/", b"http", b"s") is None
    name = odd[0] if isinstance(odd, tuple) else None
    if name not in (b"te", b"host", b"connection"):  # which are headers of responses as any
        assert native.received_response(200, [*PLAIN, odd]) is None
    if name not in (b"te", b"host"):
        assert native.sent_request([*pseudo, odd]) is None
        assert native.sent_response([(b":status", b"200"), (b"content-length", b"5"), odd]) is None
