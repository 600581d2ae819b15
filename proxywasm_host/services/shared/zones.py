"""Zones of shared memory that the processes of one machine share, in a `Directory`; the rules of `services.zones` hold.

The time of a value's last use is accurate to a second, so reading it again within a second needs no lock.
"""

from __future__ import annotations

import struct
import time
from hashlib import blake2b
from typing import Any

from proxywasm_host.services.shared.directory import Directory
from proxywasm_host.services.shared.processes import ProcessSharedQueues, _digest
from proxywasm_host.services.zones import PAGE, NamedQueues, ZoneFull, Zones, class_of, cost, zone_of

__all__ = ["ProcessZones", "ZonedProcessQueues"]

HEAD = struct.Struct("<IQBI")
"""The head of a value: CAS number, time of its last use, class, bytes of the entry."""
USED = struct.Struct("<QQ")
"""For a zone: used bytes, and time of the last use."""
PLACE = struct.Struct(">BQ")
"""After a zone's digest, the place of a value in the order of last use: class, time."""
SECOND = 1_000_000_000
CLASSES = 33


class ProcessZones:
    """Shared data in zones. Raises: ValueError. Errors of all methods: ServiceUnavailable, UnknownZone."""

    def __init__(self, directory: Directory, zones: Zones, grain: int = SECOND) -> None:
        """`grain` is the accuracy of a last use, in nanoseconds."""
        zones.in_memory()  # checks the zones
        self._directory = directory
        self._zones = zones.data
        self._grain = grain

    def get(self, vm_id: str, key: bytes) -> tuple[bytes, int] | None:
        """The value and its CAS number, or ``None``."""
        _, at = _place(zone_of(key, self._zones), key)
        stored = self._directory.read(lambda transaction, db: transaction.get(at, db=db[b"zones"]))
        if stored is None:
            return None
        cas, used, _, _ = HEAD.unpack_from(stored)
        if time.monotonic_ns() - used > self._grain:
            self._directory.write(lambda transaction, db: _note(transaction, db, at))
        return stored[HEAD.size :], cas

    def set(self, vm_id: str, key: bytes, value: bytes, cas: int = 0) -> bool:
        """As `SharedData.set`. Raises: ZoneFull."""
        return self._directory.write(lambda transaction, db: self._set(transaction, db, key, value, cas))

    def _set(self, transaction: Any, db: Any, key: bytes, value: bytes, cas: int) -> bool:
        name = zone_of(key, self._zones)
        owner, at = _place(name, key)
        room, eviction = self._zones[name]
        room -= PAGE
        size = cost(key, value)
        if size > room:
            raise ZoneFull(f"zone {name!r} of {room} bytes cannot hold an entry of {size}")
        bytes_used, _ = USED.unpack(transaction.get(b"zone" + owner, db=db[b"used"]) or bytes(USED.size))
        stored = transaction.get(at, db=db[b"zones"])
        number = 1
        if stored is not None:
            before, used, kind, old_size = HEAD.unpack_from(stored)
            if cas and before != cas:
                return False
            number = (before + 1) & 0xFFFFFFFF or 1
            bytes_used -= old_size
            transaction.delete(owner + PLACE.pack(kind, used), db=db[b"order"])
        kind = class_of(eviction, size)
        while bytes_used + size > room:
            freed = 0 if eviction == "none" else _evict(transaction, db, owner, kind)
            if not freed:
                raise ZoneFull(f"zone {name!r} is full")
            bytes_used -= freed
        now = _now(transaction, db, owner, bytes_used + size)
        transaction.put(at, HEAD.pack(number, now, kind, size) + value, db=db[b"zones"])
        transaction.put(owner + PLACE.pack(kind, now), at, db=db[b"order"])
        return True

    def __repr__(self) -> str:
        return f"<ProcessZones {', '.join(self._zones)} in {str(self._directory.path)!r}>"


def _place(zone: str, key: bytes) -> tuple[bytes, bytes]:
    """The zone's digest, and the key of a value in it, a digest too because LMDB limits the length of keys."""
    owner = _digest(zone)
    return owner, owner + blake2b(key, digest_size=32).digest()


def _now(transaction: Any, db: Any, owner: bytes, bytes_used: int | None = None) -> int:
    """A time different from all other uses of the zone, which is stored with the zone's used bytes."""
    before, last = USED.unpack(transaction.get(b"zone" + owner, db=db[b"used"]) or bytes(USED.size))
    now = max(time.monotonic_ns(), last + 1)
    used = before if bytes_used is None else bytes_used
    transaction.put(b"zone" + owner, USED.pack(used, now), db=db[b"used"])
    return int(now)


def _note(transaction: Any, db: Any, at: bytes) -> None:
    """Note the use of a value."""
    stored = transaction.get(at, db=db[b"zones"])
    if stored is not None:  # not removed meanwhile
        owner = at[:16]
        cas, used, kind, size = HEAD.unpack_from(stored)
        now = _now(transaction, db, owner)
        transaction.delete(owner + PLACE.pack(kind, used), db=db[b"order"])
        transaction.put(owner + PLACE.pack(kind, now), at, db=db[b"order"])
        transaction.put(at, HEAD.pack(cas, now, kind, size) + stored[HEAD.size :], db=db[b"zones"])


def _evict(transaction: Any, db: Any, owner: bytes, kind: int) -> int:
    """Remove a value of the same or the nearest class, and return its bytes; 0 if the zone is empty."""
    with transaction.cursor(db=db[b"order"]) as cursor:
        for each in sorted(range(CLASSES), key=lambda each: abs(each - kind)):
            begin = owner + PLACE.pack(each, 0)
            if cursor.set_range(begin) and cursor.key()[:17] == begin[:17]:
                at = cursor.value()
                cost: int = HEAD.unpack_from(transaction.get(at, db=db[b"zones"]))[3]
                transaction.delete(at, db=db[b"zones"])
                cursor.delete()
                return cost
    return 0


class ZonedProcessQueues(NamedQueues, ProcessSharedQueues):
    """The named queues, each with its size in bytes. Raises: ValueError."""

    def __init__(self, directory: Directory, zones: Zones) -> None:
        self._limits = {_digest(name): size - PAGE for name, size in zones.queues.items()}
        super().__init__(zones.queues, directory)

    def _limit(self, owner: bytes) -> int | None:
        return self._limits.get(owner, self.max_bytes)
