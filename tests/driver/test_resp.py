"""RESP without I/O: what is one command, and where an answer ends."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxywasm_host.driver import resp

COMMANDS = {
    b"*1\r\n$4\r\nPING\r\n": [b"PING"],
    b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$4\r\n\r\n\0\xff\r\n": [b"SET", b"k", b"\r\n\0\xff"],
    b"*2\r\n$3\r\nGET\r\n$0\r\n\r\n": [b"GET", b""],
    b"PING": [b"PING"],
    b"SET  k v\r\n": [b"SET", b"k", b"v"],
}


@pytest.mark.parametrize("query", COMMANDS)
def test_one_command(query):
    assert resp.command(query) == COMMANDS[query]


@pytest.mark.parametrize(
    "query",
    [
        b"",
        b"\r\n",
        b"*",
        b"*0\r\n",
        b"*-1\r\n",
        b"*1\r\n:1\r\n",
        b"*1\r\n$4\r\nPING",
        b"*1\r\n$5\r\nPING\r\n",
        b"*1\r\n$-1\r\n",
        b"*1\r\n$4\r\nPING\r\n*1\r\n$4\r\nPING\r\n",
        b"*1\r\n$4\r\nPING\r\nx",
        b"PING\r\nPING\r\n",
        b"*99999999999999999999\r\n",
        b"*1\r\n$99999999999\r\nPING\r\n",
    ],
)
def test_what_is_not_one_command(query):
    with pytest.raises(ValueError, match=r"."):
        resp.command(query)


def read(data: bytes, most: int = 1000) -> tuple[bytes, bytes]:
    """The answer that data begins with, and what is left."""
    reading = resp.reply(most)
    wanted, at = next(reading), 0
    while True:
        if wanted == resp.LINE:
            end = data.index(b"\r\n", at)
            part, at = data[at:end], end + 2
        else:
            part, at = data[at : at + wanted], at + wanted + 2
        try:
            wanted = reading.send(part)
        except StopIteration as stop:
            return stop.value, data[at:]


ANSWERS = [
    b"+OK\r\n",
    b"-WRONGTYPE no\r\n",
    b":-12\r\n",
    b"$-1\r\n",
    b"$0\r\n\r\n",
    b"$6\r\n+a\r\n\0\xff\r\n",
    b"*-1\r\n",
    b"*0\r\n",
    b"*3\r\n:1\r\n*2\r\n$1\r\na\r\n-ERR\r\n$-1\r\n",
    b"%1\r\n+a\r\n*1\r\n:1\r\n",
    b"|1\r\n+a\r\n:1\r\n_\r\n",
    b"~2\r\n#t\r\n,1.5\r\n",
    b"=7\r\ntxt:abc\r\n",
]


@pytest.mark.parametrize("answer", ANSWERS)
def test_an_answer_is_read_to_its_end(answer):
    assert read(answer + b"+next\r\n") == (answer, b"+next\r\n")


@given(st.recursive(st.sampled_from(ANSWERS), lambda each: st.lists(each, max_size=4).map(
    lambda items: b"*%d\r\n%b" % (len(items), b"".join(items))), max_leaves=12))  # fmt: skip
def test_any_answer(answer):
    assert read(answer + b":1\r\n", most=100_000) == (answer, b":1\r\n")


@pytest.mark.parametrize(
    "answer", [b"$1001\r\n", b"*1001\r\n", b"*100000000\r\n", b"+" + b"x" * 1000 + b"\r\n", b"nonsense\r\n", b"*x\r\n"]
)
def test_an_answer_that_is_not_read_on(answer):
    with pytest.raises(ValueError, match=r"more than 1000 bytes|no answer of Redis|invalid literal"):
        read(answer)
