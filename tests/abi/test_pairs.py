"""Header pairs: their bytes, their limits, and what damaged ones are told."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxywasm_host.abi.pairs import MAX_ENTRIES, MAX_SIZE, MalformedPairs, decode, encode

strings = st.binary(max_size=20)
header_lists = st.lists(st.tuples(strings, strings), max_size=20)

VECTORS = {
    "nothing": ([], ""),
    "one": ([(b"a", b"bc")], "01000000 01000000 02000000 61 00 62 63 00"),
    "empty strings": ([(b"", b"")], "01000000 00000000 00000000 00 00"),
    "NULs inside": ([(b"\0", b"\0\0")], "01000000 01000000 02000000 00 00 0000 00"),
    "two, one name": (
        [(b"k", b"1"), (b"k", b"22")],
        "02000000 01000000 01000000 01000000 02000000 6b 00 31 00 6b 00 3232 00",
    ),
}


@pytest.mark.parametrize(("headers", "data"), VECTORS.values(), ids=VECTORS)
def test_bytes(headers, data):
    assert encode(headers) == bytes.fromhex(data)
    assert decode(bytes.fromhex(data)) == headers


def test_a_count_of_zero_is_accepted():
    assert decode(bytes(4)) == []


def test_any_iterable_is_encoded():
    assert encode(iter([[b"a", b"bc"]])) == bytes.fromhex("01000000010000000200000061006263 00")


def test_a_view_is_decoded_into_bytes():
    assert decode(memoryview(bytearray(encode([(b"a", b"bc")])))) == [(b"a", b"bc")]


MALFORMED = {
    "1 byte": ("01", "1 bytes are too few for the number of pairs"),
    "3 bytes": ("010000", "3 bytes are too few for the number of pairs"),
    "no sizes": ("01000000", "4 bytes are too few for the sizes of 1 pairs"),
    "half of the sizes": ("01000000 01000000 020000", "11 bytes are too few for the sizes of 1 pairs"),
    "no strings": ("01000000 00000000 00000000", "string 0 of 0 bytes at byte 12 reaches beyond the 12 bytes"),
    "no value": ("01000000 01000000 01000000 61 00", "string 1 of 1 bytes at byte 14 reaches beyond the 14 bytes"),
    "no last NUL": (
        "01000000 01000000 01000000 61 00 62",
        "string 1 of 1 bytes at byte 14 reaches beyond the 15 bytes",
    ),
    "no NUL after the name": ("01000000 01000000 01000000 61 2e 62 00", "string 0 at byte 12 does not end in NUL"),
    "no NUL after the value": ("01000000 01000000 01000000 61 00 62 2e", "string 1 at byte 14 does not end in NUL"),
    "a size of 2³²-1": (
        "01000000 ffffffff 00000000 61 00 00",
        "string 0 of 4294967295 bytes at byte 12 reaches beyond the 15 bytes",
    ),
    "a byte left over": ("01000000 01000000 01000000 61 00 62 00 00", "1 bytes follow the last pair"),
    "bytes after no pairs": ("00000000 0000", "2 bytes follow the last pair"),
    "too many": ("01040000", "1025 header pairs, and 1024 is the limit"),
    "as many as there are numbers": ("ffffffff", "4294967295 header pairs, and 1024 is the limit"),
    "the counts of the specification's example": (
        "01 01 02 61 00 62 63 00",
        "1627521281 header pairs, and 1024 is the limit",
    ),
}


@pytest.mark.parametrize(("data", "message"), MALFORMED.values(), ids=MALFORMED)
def test_malformed(data, message):
    with pytest.raises(MalformedPairs) as caught:
        decode(bytes.fromhex(data))
    assert str(caught.value) == message


def test_1024_entries_are_taken_and_1025_are_not():
    headers = [(b"k", b"%d" % i) for i in range(MAX_ENTRIES + 1)]
    assert decode(encode(headers[:-1])) == headers[:-1]
    with pytest.raises(MalformedPairs, match=r"^1025 header pairs, and 1024 is the limit$"):
        decode(encode(headers))


@pytest.mark.parametrize("size", [MAX_SIZE - 1, MAX_SIZE])
def test_a_mebibyte_is_taken(size):
    data = encode([(b"k", bytes(size - 15))])
    assert len(data) == size
    assert decode(data) == [(b"k", bytes(size - 15))]


def test_a_byte_more_is_not():
    with pytest.raises(MalformedPairs, match=r"^more than 1048576 bytes of header pairs$"):
        decode(encode([(b"k", bytes(MAX_SIZE + 1 - 15))]))


def test_the_host_may_send_more_than_a_guest():
    assert len(encode([(b"k", b"")] * (MAX_ENTRIES + 1))) == 4 + (8 + 3) * 1025


@given(header_lists)
def test_what_is_encoded_is_decoded(headers):
    assert decode(encode(headers)) == headers


@given(st.binary(max_size=200))
def test_any_bytes_are_pairs_or_malformed(data):
    check_canonical(data)


@given(header_lists, st.data())
def test_damaged_pairs_are_other_pairs_or_malformed(headers, data):
    encoded = bytearray(encode(headers))
    for _ in range(data.draw(st.integers(1, 3))):
        if encoded:
            encoded[data.draw(st.integers(0, len(encoded) - 1))] = data.draw(st.integers(0, 255))
    check_canonical(bytes(encoded))
    check_canonical(bytes(encoded[: data.draw(st.integers(0, len(encoded)))]))


def check_canonical(data: bytes) -> None:
    """Only what `encode` gives is accepted, and a count of 0."""
    try:
        headers = decode(data)
    except MalformedPairs:
        return
    assert encode(headers) == data or data == bytes(4)
