"""Shared data, queues and metrics of the processes of one machine, in a `Directory`.

LMDB limits the length of keys, so a key consists of two digests: one of the vm_id, one of the guest's key.

Each message adds a note to its queue. Each process that has registered a queue has a socket in the directory, where
each message sends it a byte. The process then tries to take a note, and notifies its guest if it gets one. So only one
process is notified of each message. A process that registers a queue is notified of all waiting messages, because it
may replace one that was killed after it took a note.
"""

from __future__ import annotations

import contextlib
import os
import socket
import struct
import time
from collections.abc import Callable, Iterator
from functools import lru_cache
from hashlib import blake2b
from pathlib import Path
from typing import Any

from proxywasm_host.services.quota import MIB, Quota
from proxywasm_host.services.shared.bundle import Shared
from proxywasm_host.services.shared.directory import Directory
from proxywasm_host.services.shared.listener import EACH, Listener, ListeningQueues
from proxywasm_host.services.shared.metrics import Changes, SharedMetrics, Totals
from proxywasm_host.services.shared_data import ENTRY, SharedData
from proxywasm_host.services.shared_queue import MESSAGE, QUEUE, UnknownQueue
from proxywasm_host.services.unavailable import ServiceUnavailable

__all__ = ["ProcessMetrics", "ProcessSharedData", "ProcessSharedQueues", "opened"]

VALUE = struct.Struct("<IdI")
"""The head of a value: CAS number, time of expiry (``time.monotonic``, the same for all processes; 0 for never), length
of the key.
"""
USED = struct.Struct("<QI")
"""For a vm_id: bytes of its data, and the last CAS number."""
QUEUED = struct.Struct("<QQ16s")
"""For a queue: number of notes left, number of its last message, digest of the vm_id."""
LOOKED_AT = 2_000
"""Maximum number of entries that are checked, in some milliseconds, to make room for a new one."""
TOKEN = struct.Struct(">I")
NUMBER = struct.Struct(">IQ")
"""Key of a message: token, number."""


def opened(directory: Directory, data: SharedData, queues: ProcessSharedQueues) -> Shared:
    """The services in a directory."""
    metrics = SharedMetrics(ProcessMetrics(directory))

    def close() -> None:
        queues.close()
        metrics.close()
        directory.close()

    return Shared(data, queues, metrics, close)


@lru_cache(maxsize=256)
def _digest(vm_id: str) -> bytes:
    return blake2b(vm_id.encode("utf-8", "surrogateescape"), digest_size=16).digest()


def _key(vm_id: str, key: bytes) -> bytes:
    return _digest(vm_id) + blake2b(key, digest_size=32).digest()


class ProcessSharedData:
    """Shared data in a directory: at most `max_bytes` for each vm_id, each value for `ttl` seconds.

    Errors of all methods: ServiceUnavailable.
    """

    def __init__(self, directory: Directory, max_bytes: int | None = 256 * MIB, ttl: float | None = None) -> None:
        self.max_bytes = max_bytes
        self.ttl = ttl
        self._directory = directory
        self._looked_at: dict[bytes, bytes] = {}
        """The place of the next check for expired entries, by vm_id."""

    def get(self, vm_id: str, key: bytes) -> tuple[bytes, int] | None:
        """The value and its CAS number, or ``None`` if the key was never set or has expired."""
        at = _key(vm_id, key)
        stored = self._directory.read(lambda transaction, db: transaction.get(at, db=db[b"data"]))
        if stored is None:
            return None
        cas, until, _ = VALUE.unpack_from(stored)
        return None if _over(until) else (stored[VALUE.size :], cas)

    def set(self, vm_id: str, key: bytes, value: bytes, cas: int = 0) -> bool:
        """Store a value, unless `cas` is neither 0 nor the number of the key. Raises: QuotaExceeded."""
        return self._directory.write(lambda transaction, db: self._set(transaction, db, vm_id, key, value, cas))

    def _set(self, transaction: Any, db: Any, vm_id: str, key: bytes, value: bytes, cas: int) -> bool:
        at = _key(vm_id, key)
        owner = at[:16]
        stored = transaction.get(at, db=db[b"data"])
        size = -_size(stored) if stored else 0
        if stored and cas:
            before, until, _ = VALUE.unpack_from(stored)
            if before != cas and not _over(until):
                return False
        used, last = USED.unpack(transaction.get(owner, db=db[b"used"]) or bytes(USED.size))
        size += ENTRY + len(key) + len(value)
        quota = Quota(f"the shared data of vm_id {vm_id!r}", self.max_bytes)
        quota.used = used
        if self.ttl and not quota.has(size):
            quota.release(self._forget_old(transaction, db, owner, but=at))
        quota.reserve(size)
        number = last % 0xFFFFFFFF + 1  # 0 means no comparison, so no value has it (shared_data.cc)
        until = time.monotonic() + self.ttl if self.ttl else 0.0
        transaction.put(at, VALUE.pack(number, until, len(key)) + value, db=db[b"data"])
        transaction.put(owner, USED.pack(quota.used, number), db=db[b"used"])
        return True

    def _forget_old(self, transaction: Any, db: Any, owner: bytes, but: bytes) -> int:
        """Remove expired entries, at most some, as no other process can write meanwhile. Returns the freed bytes."""
        freed, left = 0, LOOKED_AT
        with transaction.cursor(db=db[b"data"]) as cursor:
            found = cursor.set_range(self._looked_at.pop(owner, owner))
            while found and cursor.key()[:16] == owner:
                if not left:
                    self._looked_at[owner] = bytes(cursor.key())
                    break
                left -= 1
                stored = cursor.value()
                if cursor.key() != but and _over(VALUE.unpack_from(stored)[1]):
                    freed += _size(stored)
                    found = cursor.delete() and bool(cursor.key())
                else:
                    found = cursor.next()
        return freed

    def clear(self, vm_id: str) -> None:
        """Remove all data of a vm_id."""

        def clear(transaction: Any, db: Any) -> None:
            owner = _digest(vm_id)
            _, last = USED.unpack(transaction.get(owner, db=db[b"used"]) or bytes(USED.size))
            _forget(transaction, db, owner)
            transaction.put(owner, USED.pack(0, last), db=db[b"used"])

        self._directory.write(clear)

    def __repr__(self) -> str:
        return f"<ProcessSharedData in {str(self._directory.path)!r}>"


def _over(until: float) -> bool:
    return bool(until) and time.monotonic() >= until


def _size(stored: bytes) -> int:
    """Bytes of an entry."""
    length: int = VALUE.unpack_from(stored)[2]
    return ENTRY + length + len(stored) - VALUE.size


def _forget(transaction: Any, db: Any, owner: bytes) -> None:
    """Remove all entries of a vm_id."""
    with transaction.cursor(db=db[b"data"]) as cursor:
        found = cursor.set_range(owner)
        while found and cursor.key()[:16] == owner:
            found = cursor.delete() and bool(cursor.key())


class ProcessSharedQueues(ListeningQueues):
    """Queues in a directory. The queues of one vm_id hold at most `max_bytes` together.

    Errors of all methods: ServiceUnavailable.
    """

    def __init__(self, directory: Directory, max_bytes: int | None = 256 * MIB) -> None:
        self.max_bytes = max_bytes
        self._directory = directory
        super().__init__()

    def _new_listener(self) -> Listener:
        return _Listener(self._directory)

    def register(self, vm_id: str, name: bytes, on_ready: Callable[[int], None]) -> int:
        """Create a queue, or take it over for this process, and return its token. Raises: QuotaExceeded."""
        token = self._directory.write(lambda transaction, db: self._register(transaction, db, vm_id, name))
        self._listen(token, on_ready)
        return token

    def _register(self, transaction: Any, db: Any, vm_id: str, name: bytes) -> int:
        at = b"n" + _key(vm_id, name)
        known = transaction.get(at, db=db[b"queues"])
        if known is not None:
            token: int = TOKEN.unpack(known)[0]
            _, last, owner = QUEUED.unpack(transaction.get(known, db=db[b"queues"]))
            transaction.put(known, QUEUED.pack(_waiting(transaction, db, token), last, owner), db=db[b"queues"])
            return token
        owner = _digest(vm_id)
        self._reserve(transaction, db, owner, QUEUE + len(name), vm_id)
        last_token: int = TOKEN.unpack(transaction.get(b"last", db=db[b"queues"]) or bytes(TOKEN.size))[0]
        key = TOKEN.pack(last_token + 1)
        transaction.put(b"last", key, db=db[b"queues"])
        transaction.put(at, key, db=db[b"queues"])
        transaction.put(key, QUEUED.pack(0, 0, owner), db=db[b"queues"])
        return last_token + 1

    def _reserve(self, transaction: Any, db: Any, owner: bytes, size: int, vm_id: str = "") -> None:
        at = b"queues" + owner
        whose = f"the shared queues of vm_id {vm_id!r}" if vm_id else "the shared queues of this queue's vm_id"
        quota = Quota(whose, self._limit(owner))
        quota.used = int.from_bytes(transaction.get(at, db=db[b"used"]) or b"", "little")
        quota.reserve(size)
        transaction.put(at, quota.used.to_bytes(8, "little"), db=db[b"used"])

    def _limit(self, owner: bytes) -> int | None:
        """Maximum bytes of the queues of a vm_id, given by its digest."""
        return self.max_bytes

    def resolve(self, vm_id: str, name: bytes) -> int | None:
        """The token of a queue, or ``None``."""
        at = b"n" + _key(vm_id, name)
        found = self._directory.read(lambda transaction, db: transaction.get(at, db=db[b"queues"]))
        return None if found is None else int(TOKEN.unpack(found)[0])

    def enqueue(self, token: int, message: bytes) -> None:
        """Append a message. Raises: UnknownQueue, QuotaExceeded."""

        def enqueue(transaction: Any, db: Any) -> None:
            key, notes, last, owner = _queue(transaction, db, token)
            self._reserve(transaction, db, owner, MESSAGE + len(message))
            transaction.put(NUMBER.pack(token, last + 1), message, db=db[b"messages"])
            transaction.put(key, QUEUED.pack(notes + 1, last + 1, owner), db=db[b"queues"])

        self._directory.write(enqueue)
        _wake(self._directory.path)

    def dequeue(self, token: int) -> bytes | None:
        """Remove and return the oldest message, or ``None`` if the queue is empty. Raises: UnknownQueue."""

        def dequeue(transaction: Any, db: Any) -> bytes | None:
            owner = _queue(transaction, db, token)[3]
            with transaction.cursor(db=db[b"messages"]) as cursor:
                if not (cursor.set_range(NUMBER.pack(token, 0)) and cursor.key()[: TOKEN.size] == TOKEN.pack(token)):
                    return None
                message: bytes = cursor.value()
                cursor.delete()
            self._reserve(transaction, db, owner, -MESSAGE - len(message))
            return message

        return self._directory.write(dequeue)

    def __repr__(self) -> str:
        return f"<ProcessSharedQueues in {str(self._directory.path)!r}>"


def _queue(transaction: Any, db: Any, token: int) -> tuple[bytes, int, int, bytes]:
    """Key, notes, last number and owner of a queue. Raises: UnknownQueue."""
    key = TOKEN.pack(token & 0xFFFFFFFF)
    found = transaction.get(key, db=db[b"queues"])
    if found is None:
        raise UnknownQueue(f"no queue has the token {token}")
    return (key, *QUEUED.unpack(found))


def _waiting(transaction: Any, db: Any, token: int) -> int:
    """Number of messages in a queue."""
    count, mine = 0, TOKEN.pack(token)
    with transaction.cursor(db=db[b"messages"]) as cursor:
        found = cursor.set_range(NUMBER.pack(token, 0))
        while found and cursor.key()[: TOKEN.size] == mine:
            count += 1
            found = cursor.next()
    return count


def _wake(path: Path) -> None:
    """Wake all processes that listen to queues."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
        sender.setblocking(False)
        for file in path.glob("*.wake"):
            try:
                sender.sendto(b"!", str(file))
            except ConnectionRefusedError:  # noqa: PERF203 - it was killed
                file.unlink(missing_ok=True)
            except OSError:
                pass  # its socket is full, or it has just left


class _Listener(Listener):
    """A listener that a byte on its socket wakes."""

    def __init__(self, directory: Directory) -> None:
        self._directory = directory
        self._path = directory.path / f"{os.getpid()}-{os.urandom(4).hex()}.wake"
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        try:
            self._socket.bind(str(self._path))
        except OSError as error:
            self._socket.close()
            raise ServiceUnavailable(f"cannot listen in {directory.path}: {error}") from None
        self._socket.settimeout(EACH)
        super().__init__()

    def _take(self) -> Iterator[int]:
        with contextlib.suppress(TimeoutError):
            self._socket.recv(1)
        for token in list(self._told):
            try:
                while self._take_note(token):
                    yield token
            except UnknownQueue:  # noqa: PERF203 - the state was lost
                self._told.pop(token, None)

    def _take_note(self, token: int) -> bool:
        if self._over.is_set():
            return False
        return self._directory.write(lambda transaction, db: _take_note(transaction, db, token))

    def _wake(self) -> None:
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            sender.setblocking(False)
            sender.sendto(b"!", str(self._path))

    def _free(self) -> None:
        self._socket.close()
        self._path.unlink(missing_ok=True)


def _take_note(transaction: Any, db: Any, token: int) -> bool:
    key, notes, last, owner = _queue(transaction, db, token)
    if notes:
        transaction.put(key, QUEUED.pack(notes - 1, last, owner), db=db[b"queues"])
    return notes > 0


class ProcessMetrics:
    """A `MetricStore` for the processes of one machine."""

    EACH = 0.25

    def __init__(self, directory: Directory) -> None:
        self._directory = directory

    def merge(self, number: int, changes: Changes) -> Totals:
        """Make the changes, and return the totals of all processes. Raises: ServiceUnavailable, QuotaExceeded."""
        if not changes:
            return self._directory.read(_totals)
        return self._directory.write(lambda transaction, db: _exchanged(transaction, db, changes))


def _exchanged(transaction: Any, db: Any, changes: Changes) -> Totals:
    for field, (kept, amount) in changes.items():
        name = field.encode("utf-8", "surrogateescape")
        at = blake2b(name, digest_size=32).digest()
        before = transaction.get(at, db=db[b"metrics"]) if kept else None
        total = (int(before.partition(b" ")[0]) if before else 0) + amount
        transaction.put(at, b"%d %b" % (total, name), db=db[b"metrics"])
    return _totals(transaction, db)


def _totals(transaction: Any, db: Any) -> Totals:
    totals: Totals = {}
    with transaction.cursor(db=db[b"metrics"]) as cursor:
        for stored in cursor.iternext(keys=False):
            total, _, name = stored.partition(b" ")
            totals[name.decode("utf-8", "surrogateescape")] = int(total)
    return totals
