"""Limits the background work of guests to half of the time, so that requests are not held up.

Background work belongs to no request: ticks, messages in queues, replies to callouts, the callouts that these make, and
starts of guests that replace failed ones. A guest may keep itself busy for ever with it: by messages in its own queue,
callouts that fail at once, or a tick each millisecond. Plugins take turns.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from time import monotonic

from proxywasm_host.runtime.effects import Effect
from proxywasm_host.runtime.plugin import Plugin

__all__ = ["AT_ONCE", "CALLOUT", "BackgroundWork"]

AT_ONCE = 0.005
"""Seconds of work that may run at once after a pause."""
CALLOUT = 0.001
"""Seconds that a callout counts in addition, for the work of its client."""
Work = Callable[[], Iterable[Effect]]


class BackgroundWork:
    """Work that waits for its turn, and the time when it may run."""

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        self._clock = clock
        self._paid = 0.0
        """The time from which work may run again. Each second of work delays it by two seconds."""
        self._waiting: dict[Plugin, deque[tuple[Work, float]]] = {}

    def add(self, plugin: Plugin, work: Work, cost: float = 0.0) -> None:
        """Queue work until the plugin's turn. `cost` are seconds that count in addition to its duration."""
        self._waiting.setdefault(plugin, deque()).append((work, cost))

    def wait(self) -> float | None:
        """Seconds until work may run; 0 for now, ``None`` without work."""
        return max(0.0, self._paid - self._clock()) if self._waiting else None

    def next(self) -> Iterable[Effect]:
        """Run the next work, and note how long it takes."""
        plugin = next(iter(self._waiting))
        waiting = self._waiting.pop(plugin)
        work, cost = waiting.popleft()
        if waiting:
            self._waiting[plugin] = waiting  # to the end of the order
        before = self._clock()
        try:
            return work()
        finally:
            now = self._clock()
            self._paid = max(self._paid, before - 2 * AT_ONCE) + 2 * (now - before + cost)

    def clear(self) -> None:
        """Drop all waiting work."""
        self._waiting.clear()
