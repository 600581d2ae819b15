"""Log sinks, which receive the lines that guests log."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Protocol

from proxywasm_host.direct_init import direct_init

if TYPE_CHECKING:
    from logging import Logger

__all__ = ["GuestLog", "LogSink", "StandardLogging", "printable"]

LEVELS = (5, 10, 20, 30, 40, 50)
"""Level of the standard library's ``logging`` for each level of the ABI. ``trace`` is below ``DEBUG``."""


_CONTROLS = (*range(9), *range(10, 0x20), *range(0x7F, 0xA0))
_DIRECTIONS = (0x061C, 0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2066, 0x206A))
_LINES = (0x2028, 0x2029)
_ESCAPED = {code: repr(chr(code))[1:-1] for code in (*_CONTROLS, *_DIRECTIONS, *_LINES)}
_ESCAPED |= {code: f"\\u{code:04x}" for code in range(0xD800, 0xE000)}


def printable(text: str) -> str:
    r"""A guest's text as one line for a log or a terminal.

    Characters that begin a line, control a terminal or change the direction of writing are escaped: ``\\n`` is a line
    feed, ``\\x1b`` is ESC. Tabs stay.
    """
    return text if text.isascii() and text.isprintable() else text.translate(_ESCAPED)


@direct_init
@dataclass(frozen=True, slots=True)
class GuestLog:
    """One line that a guest logged. `level` is a `LogLevel`, and `context` the id of the context that logged it."""

    plugin: str
    level: int
    message: str
    context: int = 0


class LogSink(Protocol):
    """Receives the lines that guests log."""

    level: int
    """The lowest level that is logged, which ``proxy_get_log_level`` returns."""

    def log(self, line: GuestLog) -> None:
        """Log one line. Called while the guest runs, so it must be quick and must not raise."""
        ...


class StandardLogging:
    """Sends `printable` lines to the standard library's loggers ``proxywasm_host.guest.<plugin>``."""

    def __init__(self, level: int = 2) -> None:
        self.level = level

    def log(self, line: GuestLog) -> None:
        """Send the line to the logger of its plugin."""
        logger, level = logger_of(line.plugin), LEVELS[line.level]
        if logger.isEnabledFor(level):
            logger.log(level, "%s", printable(line.message))

    def __repr__(self) -> str:
        return f"<StandardLogging from level {self.level} on>"


@lru_cache(256)
def logger_of(plugin: str) -> Logger:
    """The logger of a plugin, cached because the standard library takes a lock for each look-up."""
    import logging  # noqa: PLC0415 - optional, and takes a tenth of our time to import

    return logging.getLogger(f"proxywasm_host.guest.{plugin}" if plugin else "proxywasm_host.guest")
