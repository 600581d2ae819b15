"""Clocks for guests."""

from __future__ import annotations

import time
from typing import Protocol

__all__ = ["Clock", "ManualClock", "SystemClock"]


class Clock(Protocol):
    """A source of time."""

    def time_ns(self) -> int:
        """Nanoseconds since 1970, UTC."""
        ...

    def monotonic_ns(self) -> int:
        """Nanoseconds since a fixed point; the value never decreases."""
        ...


class SystemClock:
    """The machine's clock."""

    time_ns = staticmethod(time.time_ns)
    monotonic_ns = staticmethod(time.monotonic_ns)

    def __repr__(self) -> str:
        return "<SystemClock>"


class ManualClock:
    """A clock that only `advance` moves, for tests and replays.

    Its monotonic time starts at one second, because Go's runtime aborts on a monotonic time of 0.
    """

    def __init__(self, time_ns: int = 1_700_000_000_000_000_000) -> None:
        self._now = time_ns
        self._start = time_ns - 1_000_000_000

    def time_ns(self) -> int:
        """The current time in nanoseconds since 1970."""
        return self._now

    def monotonic_ns(self) -> int:
        """Nanoseconds since the clock was made, plus one second."""
        return self._now - self._start

    def advance(self, seconds: float) -> None:
        """Advance the clock by `seconds`."""
        self._now += int(seconds * 1e9)

    def __repr__(self) -> str:
        return f"<ManualClock at {self._now / 1e9:.3f} s>"
