"""The part of RESP, the protocol of Redis, that is needed to forward a command and its answer. No I/O."""

from __future__ import annotations

from collections.abc import Generator

__all__ = ["LINE", "command", "reply"]

LINE = -1
"""Yielded by `reply` to get a line instead of a number of bytes."""
MAX_WORDS = 1 << 16
END = b"\r\n"
TOO_LARGE = "the answer has more than {} bytes"


def command(query: bytes) -> list[bytes]:
    """The words of one complete command, which is an array of bulk strings or a line.

    Raises: ValueError, for anything else, because answers on a shared connection would be mixed up.
    """
    if query[:1] != b"*":
        line = query.removesuffix(END)
        if not line.split() or b"\n" in line or b"\r" in line:
            raise ValueError("not one command")
        return line.split()
    count, at = _number(query, 1)
    if not 0 < count <= MAX_WORDS:
        raise ValueError(f"a command of {count} words")
    words = []
    for _ in range(count):
        if query[at : at + 1] != b"$":
            raise ValueError("a command consists of bulk strings")
        size, at = _number(query, at + 1)
        words.append(query[at : at + size])
        if size < 0 or query[at + size : at + size + 2] != END:
            raise ValueError("a bulk string does not have the length that it declares")
        at += size + 2
    if at != len(query):
        raise ValueError("more than one command")
    return words


def _number(data: bytes, at: int) -> tuple[int, int]:
    """A number and the position after it."""
    end = data.find(END, at)
    digits = data[at:end]
    if end < 0 or not digits.isdigit() or len(digits) > 18:
        raise ValueError("a number is expected")
    return int(digits), end + 2


def reply(most: int) -> Generator[int, bytes, bytes]:
    """Read one answer of at most `most` bytes, and return it unchanged.

    Raises: ValueError, for bytes that are not an answer, or are too large.
    """
    read = bytearray()
    wanted = 1
    while wanted:
        line = yield LINE
        wanted -= 1
        read += line + END
        kind, rest = line[:1], line[1:]
        if kind in b"*~>%|":
            wanted += max(0, int(rest)) * (2 if kind in b"%|" else 1) + (kind == b"|")
        elif kind in b"$=!":
            size = int(rest)
            if len(read) + size > most:
                raise ValueError(TOO_LARGE.format(most))
            if size >= 0:
                read += (yield size) + END
        elif kind not in b"+-:_#,(":
            raise ValueError(f"no answer of Redis begins with {kind!r}")
        if len(read) + wanted > most:
            raise ValueError(TOO_LARGE.format(most))
    return bytes(read)
