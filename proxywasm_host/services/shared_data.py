"""Key-value data that all VMs with one vm_id share, with compare-and-swap.

Source: ``shared_data.cc`` of Envoy's host: process-wide, keyed by vm_id and key; the counter starts at 1 and skips 0.
"""

from __future__ import annotations

from itertools import count
from threading import Lock
from typing import Protocol

from proxywasm_host.services.quota import MIB, Quota

__all__ = ["InMemorySharedData", "SharedData"]

ENTRY = 256
"""Bytes that an entry costs beside its key and its value."""


class SharedData(Protocol):
    """Where shared data is kept. An implementation must be safe to use from several threads."""

    def get(self, vm_id: str, key: bytes) -> tuple[bytes, int] | None:
        """The value and its CAS number, or ``None`` if the key was never set."""
        ...

    def set(self, vm_id: str, key: bytes, value: bytes, cas: int = 0) -> bool:
        """Store a value; with a `cas` other than 0 only if the key is absent or still has that number.

        Returns whether it was stored. Raises: NoRoom, if it was not since too much is kept.
        """
        ...


class InMemorySharedData:
    """Shared data of this process: at most `max_bytes` for each vm_id; more is refused, and what is there stays."""

    def __init__(self, max_bytes: int | None = 256 * MIB) -> None:
        self.max_bytes = max_bytes
        self._data: dict[tuple[str, bytes], tuple[bytes, int]] = {}
        self._quotas: dict[str, Quota] = {}
        self._cas = count(1)
        self._lock = Lock()

    def get(self, vm_id: str, key: bytes) -> tuple[bytes, int] | None:
        return self._data.get((vm_id, key))

    def set(self, vm_id: str, key: bytes, value: bytes, cas: int = 0) -> bool:
        with self._lock:
            old = self._data.get((vm_id, key))
            if cas and old and old[1] != cas:
                return False
            quota = self._quotas.get(vm_id)
            if quota is None:
                quota = self._quotas[vm_id] = Quota(f"the shared data of vm_id {vm_id!r}", self.max_bytes)
            quota.take(len(value) - len(old[0]) if old else ENTRY + len(key) + len(value))
            self._data[vm_id, key] = value, next(self._cas) & 0xFFFFFFFF or next(self._cas) & 0xFFFFFFFF
            return True

    def clear(self, vm_id: str) -> None:
        """Forget all data of a vm_id."""
        with self._lock:
            for key in [key for key in self._data if key[0] == vm_id]:
                del self._data[key]
            self._quotas.pop(vm_id, None)
