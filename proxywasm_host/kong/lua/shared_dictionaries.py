"""``ngx.shared``: dictionaries that all threads of a process share.

Entries may expire; a full dictionary drops the least recently used ones.
"""

from __future__ import annotations

import time
from collections import OrderedDict, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Union

from proxywasm_host.forks import fork_lock

__all__ = ["DEFAULT_SIZES", "SharedDictionaries", "SharedDictionary"]

Value = Union[str, int, float, bool, "deque[Any]"]

DEFAULT_SIZES: Mapping[str, int] = {
    "kong": 5 << 20,
    "kong_locks": 8 << 20,
    "kong_db_cache": 128 << 20,
    "kong_db_cache_miss": 12 << 20,
    "kong_cluster_events": 5 << 20,
    "kong_healthchecks": 5 << 20,
    "kong_rate_limiting_counters": 12 << 20,
    "kong_secrets": 5 << 20,
    "prometheus_metrics": 5 << 20,
}
"""Kong's dictionaries and their sizes in bytes, as in its template for nginx."""

OVERHEAD = 64
"""Bytes of an entry in addition to its key and value; about as many as in nginx."""


@dataclass(slots=True)
class _Entry:
    value: Value
    flags: int
    expires: float | None
    size: int


class SharedDictionary:
    """One dictionary, with the methods and results of ``ngx.shared.DICT``."""

    def __init__(self, capacity: int, clock: Callable[[], float] = time.monotonic) -> None:
        """`capacity` is in bytes."""
        self.capacity_ = capacity
        self._clock = clock
        self._entries: OrderedDict[str, _Entry] = OrderedDict()
        self._used = 0
        self._lock = fork_lock()

    def get(self, key: str) -> tuple[Any, ...]:
        with self._lock:
            entry = self._live(key)
            if entry is None:
                return (None,)
            if isinstance(entry.value, deque):
                return None, "value is a list"
            self._entries.move_to_end(key)
            return (entry.value, entry.flags) if entry.flags else (entry.value,)

    def get_stale(self, key: str) -> tuple[Any, ...]:
        with self._lock:
            entry = self._entries.get(key)
            if entry is None:
                return (None,)
            return entry.value, entry.flags or None, self._expired(entry)

    def set(self, key: str, value: Any, ttl: float = 0, flags: int = 0) -> tuple[Any, ...]:
        with self._lock:
            return self._store(key, value, ttl, flags, evict=True)

    def safe_set(self, key: str, value: Any, ttl: float = 0, flags: int = 0) -> tuple[Any, ...]:
        with self._lock:
            return self._store(key, value, ttl, flags, evict=False)

    def add(self, key: str, value: Any, ttl: float = 0, flags: int = 0) -> tuple[Any, ...]:
        with self._lock:
            if self._live(key) is not None:
                return False, "exists", False
            return self._store(key, value, ttl, flags, evict=True)

    def safe_add(self, key: str, value: Any, ttl: float = 0, flags: int = 0) -> tuple[Any, ...]:
        with self._lock:
            if self._live(key) is not None:
                return False, "exists"
            return self._store(key, value, ttl, flags, evict=False)

    def replace(self, key: str, value: Any, ttl: float = 0, flags: int = 0) -> tuple[Any, ...]:
        with self._lock:
            if self._live(key) is None:
                return False, "not found", False
            return self._store(key, value, ttl, flags, evict=True)

    def incr(self, key: str, by: float, start: float | None = None, ttl: float = 0) -> tuple[Any, ...]:
        with self._lock:
            entry = self._live(key)
            if entry is None:
                if start is None:
                    return None, "not found"
                stored, why, forced = self._store(key, start + by, ttl, 0, evict=True)
                return (start + by, None, forced) if stored else (None, why, forced)
            if isinstance(entry.value, bool) or not isinstance(entry.value, (int, float)):
                return None, "not a number"
            entry.value += by
            self._entries.move_to_end(key)
            return entry.value, None

    def delete(self, key: str) -> tuple[Any, ...]:
        with self._lock:
            self._remove(key)
            return (True,)

    def ttl(self, key: str) -> tuple[Any, ...]:
        with self._lock:
            entry = self._live(key)
            if entry is None:
                return None, "not found"
            return (0 if entry.expires is None else entry.expires - self._clock(),)

    def expire(self, key: str, ttl: float) -> tuple[Any, ...]:
        with self._lock:
            entry = self._live(key)
            if entry is None:
                return None, "not found"
            entry.expires = self._clock() + ttl if ttl else None
            return (True,)

    def flush_all(self) -> tuple[Any, ...]:
        with self._lock:
            for entry in self._entries.values():
                entry.expires = self._clock()
            return (None,)

    def flush_expired(self, most: int = 0) -> tuple[Any, ...]:
        with self._lock:
            expired = [key for key, entry in self._entries.items() if self._expired(entry)]
            for key in expired[: most or None]:
                self._remove(key)
            return (len(expired[: most or None]),)

    def keys(self, most: int = 1024) -> list[str]:
        with self._lock:
            live = [key for key, entry in self._entries.items() if not self._expired(entry)]
            return live[: most or None]

    def capacity(self) -> tuple[Any, ...]:
        return (self.capacity_,)

    def free_space(self) -> tuple[Any, ...]:
        return (self.capacity_ - self._used,)

    # Lists

    def lpush(self, key: str, value: Any) -> tuple[Any, ...]:
        return self._push(key, value, left=True)

    def rpush(self, key: str, value: Any) -> tuple[Any, ...]:
        return self._push(key, value, left=False)

    def lpop(self, key: str) -> tuple[Any, ...]:
        return self._pop(key, left=True)

    def rpop(self, key: str) -> tuple[Any, ...]:
        return self._pop(key, left=False)

    def llen(self, key: str) -> tuple[Any, ...]:
        with self._lock:
            entry = self._live(key)
            if entry is None:
                return (0,)
            if not isinstance(entry.value, deque):
                return None, "value not a list"
            return (len(entry.value),)

    def _push(self, key: str, value: Any, *, left: bool) -> tuple[Any, ...]:
        if isinstance(value, bool) or not isinstance(value, (str, int, float)):
            return None, "bad value type"
        with self._lock:
            entry = self._live(key)
            if entry is None:
                self._store(key, deque(), 0, 0, evict=True)
                entry = self._entries[key]
            if not isinstance(entry.value, deque):
                return None, "value not a list"
            if not self._room(_size(value), key):
                return None, "no memory"
            (entry.value.appendleft if left else entry.value.append)(value)
            entry.size += _size(value)
            self._used += _size(value)
            return (len(entry.value),)

    def _pop(self, key: str, *, left: bool) -> tuple[Any, ...]:
        with self._lock:
            entry = self._live(key)
            if entry is None:
                return (None,)
            if not isinstance(entry.value, deque):
                return None, "value not a list"
            value = entry.value.popleft() if left else entry.value.pop()
            entry.size -= _size(value)
            self._used -= _size(value)
            if not entry.value:
                self._remove(key)
            return (value,)

    # Entries

    def _expired(self, entry: _Entry) -> bool:
        return entry.expires is not None and entry.expires <= self._clock()

    def _live(self, key: str) -> _Entry | None:
        entry = self._entries.get(key)
        return None if entry is None or self._expired(entry) else entry

    def _store(self, key: str, value: Any, ttl: float, flags: int, *, evict: bool) -> tuple[Any, ...]:
        if value is None:
            self._remove(key)
            return True, None, False
        if not isinstance(value, (str, int, float, bool, deque)):
            return False, "bad value type", False
        self._remove(key)
        size = OVERHEAD + len(key) + _size(value)
        before = len(self._entries)
        if not self._room(size, key, evict=evict):
            return False, "no memory", False
        self._entries[key] = _Entry(value, flags or 0, self._clock() + ttl if ttl else None, size)
        self._used += size
        return True, None, len(self._entries) <= before

    def _room(self, size: int, keep: str, *, evict: bool = True) -> bool:
        if self._used + size > self.capacity_:
            self.flush_expired()
        if size > self.capacity_ or (self._used + size > self.capacity_ and not evict):
            return False
        while self._used + size > self.capacity_:
            oldest = next((key for key in self._entries if key != keep), None)
            if oldest is None:
                return False
            self._remove(oldest)
        return True

    def _remove(self, key: str) -> None:
        entry = self._entries.pop(key, None)
        if entry is not None:
            self._used -= entry.size


class SharedDictionaries:
    """All dictionaries of a process, by name. Several threads may use it."""

    def __init__(self, sizes: Mapping[str, int] = DEFAULT_SIZES) -> None:
        """`sizes` are bytes, by name of the dictionary."""
        self._dictionaries = {name: SharedDictionary(size) for name, size in sizes.items()}

    def __getitem__(self, name: str) -> SharedDictionary:
        return self._dictionaries[name]

    def __contains__(self, name: object) -> bool:
        return name in self._dictionaries


def _size(value: Any) -> int:
    return len(value) if isinstance(value, str) else 8
