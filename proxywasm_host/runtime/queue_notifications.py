"""Notifications of messages in shared queues, for the plugins that registered them.

They may come from any thread, even while the embedder takes no effects.
"""

from __future__ import annotations

from collections.abc import Callable

from proxywasm_host.forks import fork_lock

__all__ = ["QueueNotifications"]

_lock = fork_lock()
"""Guards the counts of all plugins."""
AT_ONCE = 1024
"""Most effects under way at a time; further messages are only counted."""


class QueueNotifications:
    """One notification for each message, in the order of the messages up to `AT_ONCE`. No notification is lost."""

    def __init__(self, tell: Callable[[int], None]) -> None:
        """`tell` emits the effect for a queue's token."""
        self._tell = tell
        self._under_way = 0
        self._more: dict[int, int] = {}
        """Number of waiting messages by token."""

    def add(self, token: int) -> None:
        """Notify the plugin of a message in a queue."""
        with _lock:
            if self._under_way == AT_ONCE:
                self._more[token] = self._more.get(token, 0) + 1
                return
            self._under_way += 1
        self._tell(token)

    def acknowledge(self) -> None:
        """Note that the plugin has handled a notification, and emit the next one."""
        with _lock:
            if not self._more:
                self._under_way = max(self._under_way - 1, 0)
                return
            token = next(iter(self._more))
            number = self._more.pop(token)
            if number > 1:
                self._more[token] = number - 1  # after those of other queues
        self._tell(token)
