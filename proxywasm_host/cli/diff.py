"""A message before and after the filters, as the lines of a diff."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from difflib import SequenceMatcher
from typing import Literal

from proxywasm_host.abi.pairs import HeaderList
from proxywasm_host.describe import text
from proxywasm_host.testing import Message

__all__ = ["Line", "changes", "warnings"]

Line = tuple[Literal[" ", "+", "-"], str]
MAX_LINES = 40
MAX_WIDTH = 500
BODILESS = (204, 304)


def changes(before: Message, after: Message) -> Iterator[Line]:
    """Headers, body and trailers as a diff. Lines of equal messages begin with a space."""
    yield from _diff(_headers(before.headers), _headers(after.headers))
    if before.body or after.body:
        yield " ", ""
        yield from _diff(_body(before.body), _body(after.body))
    if before.trailers or after.trailers:
        yield from ((" ", ""), (" ", "(trailers)"))
        yield from _diff(_headers(before.trailers), _headers(after.trailers))


def _diff(before: Sequence[str], after: Sequence[str]) -> Iterator[Line]:
    for tag, i, j, k, m in SequenceMatcher(None, before, after, autojunk=False).get_opcodes():
        if tag == "equal":
            yield from ((" ", line) for line in before[i:j])
        else:
            yield from (("-", line) for line in before[i:j])
            yield from (("+", line) for line in after[k:m])


def _headers(pairs: HeaderList) -> list[str]:
    return [f"{text(name)}: {text(value)}" for name, value in pairs]


def _body(body: bytes) -> list[str]:
    """The lines of a body; for one that is not text, its size and its first bytes."""
    try:
        lines = body.decode().splitlines()
    except UnicodeDecodeError:
        return [f"({len(body)} bytes: {body[:16].hex(' ')}{' …' if len(body) > 16 else ''})"]
    shown = [line if len(line) <= MAX_WIDTH else f"{line[:MAX_WIDTH]}…" for line in lines[:MAX_LINES]]
    return shown + ([f"… ({len(lines) - MAX_LINES} more lines)"] if len(lines) > MAX_LINES else [])


def warnings(message: Message, what: str, *, bodiless: bool = False) -> Iterator[str]:
    """Warnings about errors in a message that its receiver cannot handle."""
    length = message.first(b"content-length")
    if message.complete and not bodiless and length and length != b"%d" % len(message.body):
        yield (
            f"{what} says content-length: {text(length)}, but the body has {len(message.body)} bytes. Envoy does not "
            "correct that: remove content-length in the callback on headers"
        )
    if not message.complete:
        yield f"{what} is not complete: its end never came"
