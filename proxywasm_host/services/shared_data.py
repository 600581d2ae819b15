"""Key-value data with compare-and-swap that all VMs with the same vm_id share.

Source: ``shared_data.cc`` of Envoy's host. Data is process-wide and keyed by vm_id and key; CAS numbers start at 1 and
skip 0.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from itertools import count
from typing import Protocol

from proxywasm_host.forks import fork_lock
from proxywasm_host.services.quota import MIB, Quota

__all__ = ["InMemorySharedData", "SharedData"]

ENTRY = 256
"""Bytes of an entry without its key and value."""


class SharedData(Protocol):
    """A store of shared data, safe to use from several threads.

    A store outside of this process may raise ServiceUnavailable.
    """

    def get(self, vm_id: str, key: bytes) -> tuple[bytes, int] | None:
        """The value and its CAS number, or ``None`` if the key was never set."""
        ...

    def set(self, vm_id: str, key: bytes, value: bytes, cas: int = 0) -> bool:
        """Store a value; if `cas` is not 0, only if the key is absent or still has that number.

        Returns whether it was stored. Raises: QuotaExceeded, if the quota is used up.
        """
        ...


class _Space(Quota):
    """The data of one vm_id: `entries` are (value, CAS number) by key, `until` has times of expiry."""

    __slots__ = ("entries", "until")

    def __init__(self, vm_id: str, limit: int | None) -> None:
        super().__init__(f"the shared data of vm_id {vm_id!r}", limit)
        self.entries: dict[bytes, tuple[bytes, int]] = {}
        self.until: dict[bytes, float] = {}

    def forget_old(self, now: float) -> None:
        """Remove expired entries: the first ones of `until`, because all entries have the same lifetime."""
        while self.until and self.until[key := next(iter(self.until))] <= now:
            del self.until[key]
            self.release(ENTRY + len(key) + len(self.entries.pop(key)[0]))


class InMemorySharedData:
    """Shared data of this process: at most `max_bytes` for each vm_id. More is refused, and nothing is evicted.

    An entry expires `ttl` seconds after it was set last.
    """

    def __init__(
        self,
        max_bytes: int | None = 256 * MIB,
        ttl: float | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.max_bytes = max_bytes
        self.ttl = ttl
        self._clock = clock
        self._spaces: dict[str, _Space] = {}
        self._cas = count(1)
        self._lock = fork_lock()

    def get(self, vm_id: str, key: bytes) -> tuple[bytes, int] | None:
        """The value and its CAS number, or ``None`` if the key was never set."""
        space = self._spaces.get(vm_id)
        if space is None or (self.ttl and space.until.get(key, 0.0) <= self._clock()):
            return None
        return space.entries.get(key)

    def set(self, vm_id: str, key: bytes, value: bytes, cas: int = 0) -> bool:
        """Store a value, unless `cas` is neither 0 nor the number of the key. Raises: QuotaExceeded."""
        with self._lock:
            space = self._spaces.get(vm_id)
            if space is None:
                space = self._spaces[vm_id] = _Space(vm_id, self.max_bytes)
            if self.ttl:
                now = self._clock()
                if space.until.get(key, now) <= now or not space.has(ENTRY + len(key) + len(value)):
                    space.forget_old(now)
            old = space.entries.get(key)
            if old is None:
                space.reserve(ENTRY + len(key) + len(value))
            elif cas and old[1] != cas:  # 0 means no comparison, so no value has it (shared_data.cc)
                return False
            elif len(value) != len(old[0]):
                space.reserve(len(value) - len(old[0]))
            space.entries[key] = value, next(self._cas) & 0xFFFFFFFF or next(self._cas) & 0xFFFFFFFF
            if self.ttl:
                space.until.pop(key, None)  # moves the key to the end
                space.until[key] = now + self.ttl
            return True

    def clear(self, vm_id: str) -> None:
        """Remove all data of a vm_id."""
        with self._lock:
            self._spaces.pop(vm_id, None)

    def __repr__(self) -> str:
        spaces = list(self._spaces.values())
        keys, used = sum(len(space.entries) for space in spaces), sum(space.used for space in spaces)
        return f"<InMemorySharedData with {keys} {'key' if keys == 1 else 'keys'}, {used} bytes>"
