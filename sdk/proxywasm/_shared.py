"""Data, queues and metrics that VMs share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from proxywasm._host import HostError, host

if TYPE_CHECKING:
    from collections.abc import Callable

    from proxywasm._types import Data

__all__ = ["Queue", "counter", "gauge", "histogram", "shared"]


CAS_MISMATCH = 8


class Shared:
    """Data that all VMs with the same VM ID share: bytes by keys."""

    def get(self, key: str, default: Any = None) -> Any:
        """The bytes at a key, or `default`."""
        found = host.get_shared(key)
        return found[0] if found else default

    def set(self, key: str, value: Data) -> None:
        """Set the value of a key unconditionally."""
        host.set_shared(key, value, 0)

    def get_with_cas(self, key: str) -> tuple[bytes | None, int]:
        """The bytes at a key with their token for `compare_and_swap`; (None, 0) if the key has no value."""
        found: tuple[bytes, int] | None = host.get_shared(key)
        return found or (None, 0)

    def compare_and_swap(self, key: str, value: Data, cas: int) -> bool:
        """Set a value if the token `cas` is still current, and return whether it was. 0 sets unconditionally."""
        try:
            host.set_shared(key, value, cas)
        except HostError as error:
            if error.status != CAS_MISMATCH:
                raise
            return False
        return True

    def update(self, key: str, change: Callable[[bytes | None], Data]) -> bytes:
        """Set and return the result of ``change(bytes or None)``, called again if another VM set a value meanwhile."""
        while True:
            old, cas = self.get_with_cas(key)
            value = change(old)
            if self.compare_and_swap(key, value, cas):
                return value.encode() if isinstance(value, str) else value

    def increment(self, key: str, by: int = 1) -> int:
        """Add to a decimal number, which begins at 0, and return the sum."""
        return int(self.update(key, lambda old: str(int(old or b"0") + by)))


shared = Shared()


class Queue:
    """A queue of messages that VMs share, created if it does not exist.

    With `vm_id`, it is an existing queue of that VM ID. Raises: HostError, if there is no such queue.
    """

    def __init__(self, name: str, vm_id: str | None = None) -> None:
        self.id = host.register_queue(name) if vm_id is None else host.resolve_queue(vm_id, name)

    def push(self, message: Data) -> None:
        """Append a message."""
        host.enqueue(self.id, message)

    def pop(self) -> bytes | None:
        """Remove and return the oldest message; None if the queue is empty."""
        message: bytes | None = host.dequeue(self.id)
        return message


class Metric:
    """A metric of the host, defined when it is first used."""

    def __init__(self, kind: int, name: str) -> None:
        self._kind = kind
        self.name = name
        self._id: int | None = None

    def _metric(self) -> int:
        if self._id is None:
            self._id = host.define_metric(self._kind, self.name)
        return self._id

    def increment(self, by: int = 1) -> None:
        """Add to a counter or gauge."""
        host.increment_metric(self._metric(), by)

    def record(self, value: int) -> None:
        """Set a gauge; count a value in a histogram."""
        host.record_metric(self._metric(), value)

    @property
    def value(self) -> int:
        """The value of a counter or gauge."""
        value: int = host.get_metric(self._metric())
        return value


def counter(name: str) -> Metric:
    """A metric that only increases."""
    return Metric(0, name)


def gauge(name: str) -> Metric:
    """A metric that increases and decreases."""
    return Metric(1, name)


def histogram(name: str) -> Metric:
    """A metric of a distribution of values."""
    return Metric(2, name)
