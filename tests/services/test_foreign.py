"""The built-in foreign functions, with streams that lie."""

from __future__ import annotations

import random
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxywasm_host.services import ForeignCallFailed, foreign
from proxywasm_host.services.foreign import compress, uncompress


@given(st.binary(max_size=2000))
def test_there_and_back(data):
    assert zlib.decompress(compress(data)) == data
    assert uncompress(compress(data)) == data


WHOLE = zlib.compress(b"hello " * 10)

DAMAGED = {
    "nothing": (b"", "the zlib stream ends early"),
    "no stream": (b"hello", "no zlib stream: Error -3 while decompressing data: incorrect header check"),
    "gzip": (b"\x1f\x8b\x08\0", "no zlib stream: Error -3 while decompressing data: incorrect header check"),
    "cut off": (WHOLE[:-5], "the zlib stream ends early"),
    "without its checksum": (WHOLE[:-4], "the zlib stream ends early"),
    "half a checksum": (WHOLE[:-2], "the zlib stream ends early"),
    "a wrong checksum": (
        WHOLE[:-1] + bytes([WHOLE[-1] ^ 1]),
        "no zlib stream: Error -3 while decompressing data: incorrect data check",
    ),
    "with a dictionary": (
        b"\x78\xbb\1\2\3\4",
        "no zlib stream: Error 2 while decompressing data",
    ),
}


@pytest.mark.parametrize(("data", "reason"), DAMAGED.values(), ids=DAMAGED)
def test_damaged(data, reason):
    with pytest.raises(ForeignCallFailed) as caught:
        uncompress(data)
    assert (caught.value.status, str(caught.value)) == (3, reason)


@given(st.binary(max_size=200), st.data())
def test_any_bytes(data, draw):
    damaged = bytearray(zlib.compress(data))
    damaged[draw.draw(st.integers(0, len(damaged) - 1))] = draw.draw(st.integers(0, 255))
    for stream in (data, bytes(damaged)):
        try:
            assert isinstance(uncompress(stream), bytes)
        except ForeignCallFailed as error:
            assert error.status == 3


def test_what_follows_the_stream_is_ignored():
    assert uncompress(WHOLE + b"more") == b"hello " * 10


@pytest.mark.parametrize("size", [999, 1000])
def test_up_to_the_limit(monkeypatch, size):
    monkeypatch.setattr(foreign, "MAX_UNCOMPRESSED", 1000)
    assert uncompress(zlib.compress(bytes(size))) == bytes(size)


@pytest.mark.parametrize("size", [1001, 1002, 100_000])
def test_beyond_the_limit(monkeypatch, size):
    monkeypatch.setattr(foreign, "MAX_UNCOMPRESSED", 1000)
    with pytest.raises(ForeignCallFailed) as caught:
        uncompress(zlib.compress(bytes(size)))
    assert (caught.value.status, str(caught.value)) == (3, "the zlib stream holds more than 1000 bytes")


def test_a_bomb():
    bomb = zlib.compress(bytes(9 << 20))
    assert len(bomb) < 100_000
    with pytest.raises(ForeignCallFailed, match=r"^the zlib stream holds more than 8388608 bytes$"):
        uncompress(bomb)


@pytest.mark.parametrize("function", [compress, uncompress])
def test_no_more_than_a_mebibyte_at_once(function):
    with pytest.raises(ForeignCallFailed) as caught:
        function(bytes((1 << 20) + 1))
    assert (caught.value.status, str(caught.value)) == (2, "the argument has 1048577 bytes, at most 1048576 are taken")


def test_what_is_large_is_compressed_quickly():
    """The usual level takes ten times as long for content like this."""
    text = bytes(random.Random(1).choices(b"acgt", k=1 << 20))
    assert uncompress(compress(text)) == text
    assert compress(text) == zlib.compress(text, foreign.FAST)
    assert compress(text[: foreign.MAX_THOROUGH]) == zlib.compress(text[: foreign.MAX_THOROUGH])
