"""Joins the pieces that a guest writes to standard output and standard error into whole lines, for the log.

A language's runtime writes a line in many pieces (a Go panic has about twenty). Lines of one write are logged together;
a piece without a line break waits for the rest, at most until the callback ends.
"""

from __future__ import annotations

from collections.abc import Callable

from proxywasm_host.abi.context import Context

__all__ = ["StandardStreams"]

MAX_LINE = 16 * 1024
"""Most bytes of a line that waits for its end."""


class StandardStreams:
    """The standard streams of one VM, by the level at which each is logged.

    `tell` gets the level, the text without its last line break, and the context that wrote it.
    """

    def __init__(self, tell: Callable[[int, bytes, Context], None]) -> None:
        self._tell = tell
        self._begun: dict[int, tuple[Context, bytearray]] = {}

    def write(self, context: Context, level: int, data: bytes) -> bool:
        """Add a piece. Returns whether a line waits for its end now, and none did before."""
        if not self._begun and data.endswith(b"\n"):  # the usual case
            self._tell(level, data[:-1], context)
            return False
        waited = bool(self._begun)
        lines, ends, rest = data.rpartition(b"\n")
        if ends:
            _, begun = self._begun.pop(level, (context, b""))
            self._tell(level, bytes(begun) + lines, context)
        if rest:
            _, line = self._begun.setdefault(level, (context, bytearray()))
            line += rest
            if len(line) > MAX_LINE:
                self._tell(level, bytes(self._begun.pop(level)[1]), context)
        return not waited and bool(self._begun)

    def flush(self) -> None:
        """Log the lines that wait for their end."""
        while self._begun:
            level, (context, line) = self._begun.popitem()
            self._tell(level, bytes(line), context)
