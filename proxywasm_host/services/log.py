"""Where the lines that guests log go."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

__all__ = ["GuestLog", "LogSink", "StandardLogging"]

LEVELS = (5, 10, 20, 30, 40, 50)
"""Level of the standard library's ``logging`` for each level of the ABI; ``trace`` is below ``DEBUG``."""


@dataclass(frozen=True, slots=True)
class GuestLog:
    """One line that a guest logged. `level` is a `LogLevel`, `context` the id of the context that logged it."""

    plugin: str
    level: int
    message: str
    context: int = 0


class LogSink(Protocol):
    """Takes the lines that guests log."""

    level: int
    """The lowest level that is wanted: what ``proxy_get_log_level`` tells the guest."""

    def log(self, line: GuestLog) -> None:
        """Take one line. Called while the guest runs: it must be quick and must not raise."""
        ...


class StandardLogging:
    """Sends lines to the standard library's loggers ``proxywasm_host.guest.<plugin>``."""

    def __init__(self, level: int = 2) -> None:
        self.level = level

    def log(self, line: GuestLog) -> None:
        import logging  # noqa: PLC0415 - not everybody wants it, and it takes a tenth of our time to import

        logger = logging.getLogger(f"proxywasm_host.guest.{line.plugin}" if line.plugin else "proxywasm_host.guest")
        logger.log(LEVELS[line.level], "%s", line.message)
