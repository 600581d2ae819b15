"""Queues by which VMs send each other messages.

Source: ``shared_queue.cc`` of Envoy's host: keyed by vm_id and name, tokens from 1, registering again gives the same
token and the newest registrar is the one that is told.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from threading import Lock
from typing import Protocol

__all__ = ["InMemorySharedQueues", "SharedQueues", "UnknownQueue"]


class UnknownQueue(LookupError):
    """No queue has that token."""


class SharedQueues(Protocol):
    """Where queues are kept. An implementation must be safe to use from several threads."""

    def register(self, vm_id: str, name: bytes, on_ready: Callable[[int], None]) -> int:
        """Make a queue, or take it over; `on_ready` is called with its token after each message.

        `on_ready` may be called in another thread, and must only note the fact. Returns the token.
        """
        ...

    def resolve(self, vm_id: str, name: bytes) -> int | None:
        """The token of a queue, or ``None``."""
        ...

    def enqueue(self, token: int, message: bytes) -> None:
        """Append a message. Raises: UnknownQueue."""
        ...

    def dequeue(self, token: int) -> bytes | None:
        """Take the oldest message, or ``None`` if the queue is empty. Raises: UnknownQueue."""
        ...


@dataclass
class _Queue:
    on_ready: Callable[[int], None]
    messages: deque[bytes] = field(default_factory=deque)


class InMemorySharedQueues:
    """Queues of this process; they have no bound."""

    def __init__(self) -> None:
        self._tokens: dict[tuple[str, bytes], int] = {}
        self._queues: dict[int, _Queue] = {}
        self._lock = Lock()

    def register(self, vm_id: str, name: bytes, on_ready: Callable[[int], None]) -> int:
        with self._lock:
            token = self._tokens.setdefault((vm_id, name), len(self._tokens) + 1)
            if token in self._queues:
                self._queues[token].on_ready = on_ready
            else:
                self._queues[token] = _Queue(on_ready)
            return token

    def resolve(self, vm_id: str, name: bytes) -> int | None:
        return self._tokens.get((vm_id, name))

    def _queue(self, token: int) -> _Queue:
        try:
            return self._queues[token]
        except KeyError:
            raise UnknownQueue(f"no queue has the token {token}") from None

    def enqueue(self, token: int, message: bytes) -> None:
        queue = self._queue(token)
        queue.messages.append(message)
        queue.on_ready(token)

    def dequeue(self, token: int) -> bytes | None:
        messages = self._queue(token).messages
        with self._lock:
            return messages.popleft() if messages else None
