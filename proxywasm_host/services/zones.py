"""Zones of shared memory as in ngx_wasm_module: ``shm_kv`` and ``shm_queue``.

Rules, as in that module:

* The part of a key before its first slash names the zone. A key without a slash, or with an unknown name, belongs to
  the zone ``*``; without that zone, it is refused. All filters share all zones, whatever their vm_id.
* The CAS number of a key counts its changes, from 1.
* A full zone evicts the least recently used entry: ``lru`` of all entries, ``slru`` first of those with a similar size.
  With ``none`` it refuses new data.
* Only the named queues exist, each with its size.

These zones are those of one process; `services.shared.zones` has those that processes share.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from proxywasm_host.errors import ProxyWasmError, not_among
from proxywasm_host.forks import fork_lock
from proxywasm_host.services.quota import Quota, QuotaExceeded
from proxywasm_host.services.shared_queue import InMemorySharedQueues

__all__ = ["SMALLEST", "Eviction", "UnknownZone", "Zone", "ZoneFull", "ZonedSharedData", "ZonedSharedQueues", "Zones"]

Eviction = Literal["slru", "lru", "none"]

PAGE = 4096
SMALLEST = 3 * PAGE
"""Minimum bytes of a zone."""
ENTRY = 128
"""Bytes of an entry without its key and value."""
MESSAGE = 4
"""Bytes of a message without its content."""


class UnknownZone(ProxyWasmError, LookupError):
    """No zone accepts the key, or no queue has the name."""

    code = "unknown_zone"


class ZoneFull(QuotaExceeded):
    """A zone is full. With the profile ``wasmx`` the guest fails, as in ngx_wasm_module."""

    code = "zone_full"


@dataclass(frozen=True)
class Zones:
    """The zones for data and for queues. Without zones of a kind, that kind of shared memory works as in Envoy."""

    data: Mapping[str, tuple[int, Eviction]] = field(default_factory=dict)
    """Bytes and eviction of each zone for data, by name."""
    queues: Mapping[str, int] = field(default_factory=dict)
    """Bytes of each queue, by name."""

    def __bool__(self) -> bool:
        return bool(self.data or self.queues)

    def in_memory(self) -> ZonedSharedData:
        """Zones for the data of one process. Raises: ValueError."""
        return ZonedSharedData(Zone(name, *said) for name, said in self.data.items())


def zone_of(key: bytes, zones: Collection[str]) -> str:
    """The name of the zone, of those given, to which a key belongs. Raises: UnknownZone."""
    name, slash, _ = key.partition(b"/")
    named = name.decode("utf-8", "replace") if slash else "*"
    for each in (named, "*"):
        if each in zones:
            return each
    text = key.decode("utf-8", "replace")
    raise UnknownZone(f"no zone of shared memory accepts the key {text!r}: the zones are {', '.join(zones)}")


def check_size(name: str, size: int) -> None:
    """Check the size of a zone. Raises: ValueError, if it is too small."""
    if size < SMALLEST:
        raise ValueError(f"zone {name!r} has {size} bytes: it needs {SMALLEST} at least")


class Zone:
    """One zone of keys and values, of `size` bytes. Raises: ValueError."""

    def __init__(self, name: str, size: int, eviction: Eviction = "slru") -> None:
        check_size(name, size)
        if eviction not in ("slru", "lru", "none"):
            raise ValueError(f"eviction of zone {name!r} is 'slru', 'lru' or 'none', not {eviction!r}")
        self.name, self.eviction = name, eviction
        self._quota = Quota(f"zone {name!r}", size - PAGE)
        self._entries: dict[bytes, tuple[bytes, int]] = {}
        self._used: dict[int, OrderedDict[bytes, None]] = {}
        """Keys by class of size, the most recently used ones at the end."""
        self._lock = fork_lock()

    def get(self, key: bytes) -> tuple[bytes, int] | None:
        """The value and its CAS number."""
        with self._lock:
            found = self._entries.get(key)
            if found is not None:
                self._used[self._class(key, found[0])].move_to_end(key)
            return found

    def set(self, key: bytes, value: bytes, cas: int) -> bool:
        """As `SharedData.set`. Raises: ZoneFull."""
        with self._lock:
            old = self._entries.get(key)
            if old is not None and cas and old[1] != cas:
                return False
            size = cost(key, value)
            if self._quota.limit is not None and size > self._quota.limit:
                raise ZoneFull(f"zone {self.name!r} of {self._quota.limit} bytes cannot hold an entry of {size}")
            before = 0 if old is None else cost(key, old[0])
            if old is not None:
                self._used[self._class(key, old[0])].pop(key)
            kind = self._class(key, value)
            while not self._quota.has(size - before):
                if self.eviction == "none" or not self._evict(kind):
                    if old is not None:
                        self._use(self._class(key, old[0]), key)
                    raise ZoneFull(f"zone {self.name!r} is full")
            self._quota.reserve(size - before)
            self._entries[key] = value, 1 if old is None else (old[1] + 1) & 0xFFFFFFFF or 1
            self._use(kind, key)
            return True

    def _class(self, key: bytes, value: bytes) -> int:
        return class_of(self.eviction, cost(key, value))

    def _use(self, kind: int, key: bytes) -> None:
        self._used.setdefault(kind, OrderedDict())[key] = None

    def _evict(self, kind: int) -> bool:
        """Remove a value of the same or the nearest class; false if the zone is empty."""
        classes = [each for each, keys in self._used.items() if keys]
        if not classes:
            return False
        key, _ = self._used[min(classes, key=lambda each: abs(each - kind))].popitem(last=False)
        self._quota.release(cost(key, self._entries.pop(key)[0]))
        return True

    def __repr__(self) -> str:
        return f"<Zone {self.name!r} with {len(self._entries)} keys, {self._quota.used} bytes>"


def class_of(eviction: Eviction, size: int) -> int:
    """The class of entries that are evicted for each other, by powers of two as in nginx's slabs."""
    return size.bit_length() if eviction == "slru" else 0


def cost(key: bytes, value: bytes) -> int:
    """Bytes of a zone that an entry uses."""
    return ENTRY + len(key) + len(value)


class ZonedSharedData:
    """`SharedData` in zones."""

    def __init__(self, zones: Iterable[Zone]) -> None:
        self.zones = {zone.name: zone for zone in zones}

    def _zone(self, key: bytes) -> Zone:
        return self.zones[zone_of(key, self.zones)]

    def get(self, vm_id: str, key: bytes) -> tuple[bytes, int] | None:
        """The value and its CAS number, or ``None``. Raises: UnknownZone."""
        return self._zone(key).get(key)

    def set(self, vm_id: str, key: bytes, value: bytes, cas: int = 0) -> bool:
        """As `SharedData.set`. Raises: UnknownZone, ZoneFull."""
        return self._zone(key).set(key, value, cas)

    def __repr__(self) -> str:
        return f"<ZonedSharedData {list(self.zones.values())}>"


class NamedQueues:
    """The rules of zones, for a class of queues that follows it among the bases. Raises: ValueError.

    Args:
        sizes: bytes of each queue, by its name.
        arguments: of that class.
    """

    def __init__(self, sizes: Mapping[str, int], *arguments: Any) -> None:
        for name, size in sizes.items():
            check_size(name, size)
        self._sizes = dict(sizes)
        super().__init__(*arguments)

    def register(self, vm_id: str, name: bytes, on_ready: Callable[[int], None]) -> int:
        """The token of a queue. Raises: UnknownZone."""
        text = name.decode("utf-8", "replace")
        if text not in self._sizes:
            raise UnknownZone(not_among("shared queue", text, self._sizes))
        token: int = super().register(text, name, on_ready)  # type: ignore[misc]
        return token

    def resolve(self, vm_id: str, name: bytes) -> int | None:
        """The token of a queue, or ``None``."""
        token: int | None = super().resolve(name.decode("utf-8", "replace"), name)  # type: ignore[misc]
        return token

    def enqueue(self, token: int, message: bytes) -> None:
        """Append a message. Raises: UnknownQueue, ZoneFull."""
        try:
            super().enqueue(token, message)  # type: ignore[misc]
        except QuotaExceeded as error:
            raise ZoneFull(str(error)) from None


class ZonedSharedQueues(NamedQueues, InMemorySharedQueues):
    """`SharedQueues` with these names, each with its size in bytes. Raises: ValueError."""

    def __init__(self, sizes: Mapping[str, int]) -> None:
        super().__init__(sizes)

    def _new_quota(self, vm_id: str) -> Quota:
        return Quota(f"queue {vm_id!r}", self._sizes[vm_id] - PAGE)
