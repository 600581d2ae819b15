"""Notifications of messages in shared queues, for the plugins that registered them.

They come from any thread, and while nobody takes effects.
"""

from __future__ import annotations

from collections.abc import Callable
from threading import Lock

__all__ = ["QueueNotifications"]

AT_ONCE = 1024
"""Effects that are under way at a time; of what is more, only the number is kept."""


class QueueNotifications:
    """One for each message, in the order of the messages as long as they are few. None is lost."""

    def __init__(self, tell: Callable[[int], None]) -> None:
        """`tell` makes the effect for a queue's token."""
        self._tell = tell
        self._under_way = 0
        self._more: dict[int, int] = {}
        """Number of messages by token."""
        self._lock = Lock()

    def add(self, token: int) -> None:
        """A message came into a queue."""
        with self._lock:
            if self._under_way == AT_ONCE:
                self._more[token] = self._more.get(token, 0) + 1
                return
            self._under_way += 1
        self._tell(token)

    def acknowledge(self) -> None:
        """The plugin has handled one: the next may come."""
        with self._lock:
            if not self._more:
                self._under_way = max(self._under_way - 1, 0)
                return
            token = next(iter(self._more))
            number = self._more.pop(token)
            if number > 1:
                self._more[token] = number - 1  # behind the others
        self._tell(token)
