"""Queues with which VMs send each other messages.

Source: ``shared_queue.cc`` of Envoy's host. Queues are keyed by vm_id and name, and tokens start at 1. Registering
again returns the same token, and the newest registrar is notified.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from proxywasm_host.errors import ProxyWasmError
from proxywasm_host.forks import fork_lock
from proxywasm_host.services.quota import MIB, Quota

__all__ = ["InMemorySharedQueues", "SharedQueues", "UnknownQueue"]

QUEUE, MESSAGE = 2048, 64
"""Bytes of a queue without its name, and of a message without its content."""


class UnknownQueue(ProxyWasmError, LookupError):
    """No queue has this token."""

    code = "unknown_queue"


class SharedQueues(Protocol):
    """A store of queues, safe to use from several threads.

    A store outside of this process may raise ServiceUnavailable.
    """

    def register(self, vm_id: str, name: bytes, on_ready: Callable[[int], None]) -> int:
        """Create a queue, or take it over, and return its token. `on_ready` is called with the token after each
        message.

        `on_ready` may be called in another thread, and must only note the fact.

        Raises: QuotaExceeded, if the queue is new and the quota is used up.
        """
        ...

    def resolve(self, vm_id: str, name: bytes) -> int | None:
        """The token of a queue, or ``None``."""
        ...

    def enqueue(self, token: int, message: bytes) -> None:
        """Append a message. Raises: UnknownQueue; QuotaExceeded, if the quota is used up."""
        ...

    def dequeue(self, token: int) -> bytes | None:
        """Remove and return the oldest message, or ``None`` if the queue is empty. Raises: UnknownQueue."""
        ...


@dataclass
class _Queue:
    on_ready: Callable[[int], None]
    quota: Quota
    messages: deque[bytes] = field(default_factory=deque)


class InMemorySharedQueues:
    """Queues of this process. The queues of one vm_id hold at most `max_bytes` together; more is refused."""

    def __init__(self, max_bytes: int | None = 256 * MIB) -> None:
        self.max_bytes = max_bytes
        self._tokens: dict[tuple[str, bytes], int] = {}
        self._queues: dict[int, _Queue] = {}
        self._quotas: dict[str, Quota] = {}
        self._lock = fork_lock()

    def register(self, vm_id: str, name: bytes, on_ready: Callable[[int], None]) -> int:
        """Create a queue, or take it over, and return its token. Raises: QuotaExceeded."""
        with self._lock:
            token = self._tokens.get((vm_id, name))
            if token is not None:
                self._queues[token].on_ready = on_ready  # the last one to register is notified (shared_queue.cc)
                return token
            quota = self._quotas.get(vm_id)
            if quota is None:
                quota = self._quotas[vm_id] = self._new_quota(vm_id)
            quota.reserve(QUEUE + len(name))
            token = self._tokens[vm_id, name] = len(self._tokens) + 1
            self._queues[token] = _Queue(on_ready, quota)
            return token

    def _new_quota(self, vm_id: str) -> Quota:
        return Quota(f"the shared queues of vm_id {vm_id!r}", self.max_bytes)

    def resolve(self, vm_id: str, name: bytes) -> int | None:
        """The token of a queue, or ``None``."""
        return self._tokens.get((vm_id, name))

    def _queue(self, token: int) -> _Queue:
        try:
            return self._queues[token]
        except KeyError:
            raise UnknownQueue(f"no queue has the token {token}") from None

    def enqueue(self, token: int, message: bytes) -> None:
        """Append a message. Raises: UnknownQueue, QuotaExceeded."""
        queue = self._queue(token)
        with self._lock:
            queue.quota.reserve(MESSAGE + len(message))
            queue.messages.append(message)
        queue.on_ready(token)

    def dequeue(self, token: int) -> bytes | None:
        """Remove and return the oldest message, or ``None`` if the queue is empty. Raises: UnknownQueue."""
        queue = self._queue(token)
        with self._lock:
            if not queue.messages:
                return None
            message = queue.messages.popleft()
            queue.quota.used -= MESSAGE + len(message)
            return message

    def __repr__(self) -> str:
        queues = list(self._queues.values())
        waiting = sum(len(queue.messages) for queue in queues)
        plural = "queue" if len(queues) == 1 else "queues"
        return f"<InMemorySharedQueues with {len(queues)} {plural}, {waiting} waiting>"
