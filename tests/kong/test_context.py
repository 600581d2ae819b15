"""Headers as plugins see them."""

from __future__ import annotations

import pytest

from proxywasm_host.kong.context import Headers


@pytest.fixture
def headers():
    return Headers([(b"host", b"a"), (b"x-tag", b"1"), (b"accept", b"*/*"), (b"x-tag", b"2")])


def test_a_header_is_found_by_its_name_in_any_case(headers):
    assert (headers.get("X-Tag"), headers.all("X-TAG"), headers.get("none"), headers.all("none")) == (
        "1",
        ["1", "2"],
        None,
        [],
    )
    assert headers.by_name() == {"host": ["a"], "x-tag": ["1", "2"], "accept": ["*/*"]}


def test_what_replaces_a_header_stands_where_that_was(headers):
    headers.set("X-Tag", ["3", "4"])
    headers.set("X-New", "5")
    assert list(headers) == [("host", "a"), ("x-tag", "3"), ("x-tag", "4"), ("accept", "*/*"), ("x-new", "5")]


def test_headers_are_added_and_removed(headers):
    headers.add("Accept", "text/plain")
    headers.remove("x-TAG")
    assert headers.pairs == [(b"host", b"a"), (b"accept", b"*/*"), (b"accept", b"text/plain")]


def test_bytes_are_characters(headers):
    headers.set("x-tag", "\xff")
    assert headers.pairs[1] == (b"x-tag", b"\xff")
    assert headers.get("x-tag") == "\xff"


@pytest.mark.parametrize("value", ["a\r\nx: y", "a\n", "\0"])
def test_a_value_cannot_begin_another_header(headers, value):
    with pytest.raises(ValueError, match="one line"):
        headers.set("x-tag", value)
    with pytest.raises(ValueError, match="one line"):
        headers.add("x-tag", value)
