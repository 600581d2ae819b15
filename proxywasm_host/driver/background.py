"""Background work of guests gets at most half of the time, so that requests go on.

Background work belongs to no request: ticks, messages in queues, replies to callouts, the callouts that these make, and
the starts of guests that take the place of those that failed.
A guest may keep itself busy with it for ever (a message in its own queue, a callout that fails at once, a tick each
millisecond). Plugins take turns.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from time import monotonic

from proxywasm_host.runtime.effects import Effect
from proxywasm_host.runtime.plugin import Plugin

__all__ = ["AT_ONCE", "CALLOUT", "BackgroundWork"]

AT_ONCE = 0.005
"""Seconds that may be used at once, after a rest."""
CALLOUT = 0.001
"""Seconds that a callout counts, for the time of its client."""
Work = Callable[[], Iterable[Effect]]


class BackgroundWork:
    """Work that waits for its turn, and the time at which it may run."""

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        self._clock = clock
        self._paid = 0.0
        """The time at which all that was used is twice as long ago as it took."""
        self._waiting: dict[Plugin, deque[tuple[Work, float]]] = {}

    def add(self, plugin: Plugin, work: Work, cost: float = 0.0) -> None:
        """Run work when it is the plugin's turn; `cost` are seconds that count beside those that it takes."""
        self._waiting.setdefault(plugin, deque()).append((work, cost))

    def wait(self) -> float | None:
        """Seconds until work may run: 0 for now; ``None`` if nothing waits."""
        return max(0.0, self._paid - self._clock()) if self._waiting else None

    def next(self) -> Iterable[Effect]:
        """Run the next work, and note how long it takes."""
        plugin = next(iter(self._waiting))
        waiting = self._waiting.pop(plugin)
        work, cost = waiting.popleft()
        if waiting:
            self._waiting[plugin] = waiting  # after the others
        before = self._clock()
        try:
            return work()
        finally:
            now = self._clock()
            self._paid = max(self._paid, before - 2 * AT_ONCE) + 2 * (now - before + cost)

    def clear(self) -> None:
        """Forget what waits."""
        self._waiting.clear()
