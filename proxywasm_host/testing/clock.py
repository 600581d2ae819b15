"""The clock of a test. Time passes only when the test advances it, and events happen at their times."""

from __future__ import annotations

from collections.abc import Callable
from heapq import heappop, heappush
from itertools import count

from proxywasm_host.services import ManualClock

__all__ = ["VirtualClock"]

MOST = 100_000
"""Maximum number of events within one `advance`. With more, an event repeats without time passing."""


class VirtualClock(ManualClock):
    """A clock with a list of events. By default it starts on 14 November 2023, 22:13:20 UTC."""

    def __init__(self, time_ns: int = 1_700_000_000_000_000_000) -> None:
        super().__init__(time_ns)
        self._due: list[tuple[int, int, Callable[[], None]]] = []
        self._order = count()
        self.frozen_at: int | None = None
        """The time for guests, if the profile stops their clock during a stream."""

    def time_ns(self) -> int:
        """Nanoseconds since 1970, for guests."""
        return self._now if self.frozen_at is None else self.frozen_at

    @property
    def now_ns(self) -> int:
        """The time of the test, even if the clock of guests stands still."""
        return self._now

    def set_time(self, time_ns: int) -> None:
        """Set the time, before any event is scheduled. Raises: ValueError, if one is."""
        if self._due:
            raise ValueError("events are scheduled already: use advance()")
        self._start += time_ns - self._now
        self._now = time_ns

    def at(self, time_ns: int, action: Callable[[], None]) -> None:
        """Schedule an action at a time. Actions for the same time run in the order of their scheduling."""
        heappush(self._due, (time_ns, next(self._order), action))

    def after(self, seconds: float, action: Callable[[], None]) -> None:
        """Schedule an action after `seconds`."""
        self.at(self._now + int(seconds * 1e9), action)

    @property
    def next_due(self) -> int | None:
        """The time of the next event, or ``None``."""
        return self._due[0][0] if self._due else None

    def advance(self, seconds: float) -> None:
        """Let `seconds` pass. Ticks, late answers and time-outs of callouts happen in order.

        Raises: ValueError, for a negative number; exceptions of answers that are functions.
        """
        if seconds < 0:
            raise ValueError(f"time cannot go back: {seconds}")
        self.advance_to(self._now + int(seconds * 1e9))

    def advance_to(self, time_ns: int) -> None:
        """Let time pass until `time_ns`."""
        for _ in range(MOST):
            if not self._due or self._due[0][0] > time_ns:
                break
            due, _, action = heappop(self._due)
            self._now = max(self._now, due)
            action()
        else:
            raise AssertionError(f"more than {MOST} events within one advance(): something repeats without end")
        self._now = max(self._now, time_ns)

    def __repr__(self) -> str:
        return f"<VirtualClock at {self.monotonic_ns() / 1e9 - 1:g} s, {len(self._due)} due>"
