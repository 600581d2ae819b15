"""A directory with a database that processes of one machine share: LMDB, which maps it into their memory.

Rules of this module:

* State lasts while at least one process shares it: the first process empties the directory, the last removes it. Each
  process holds a lock on the file ``alive``; the system releases the locks of processes that are killed.
* A process that writes holds the lock on ``writer``. Other processes wait for it, but at most `WAIT` seconds while
  nothing is written. So a process that was stopped amid writing does not delay them for longer, as LMDB's own lock
  would. A process that was killed leaves no partial write.
* LMDB cannot be used after a fork: the child closes its copy, and opens the directory again when it needs it. Closing
  waits for all threads that use LMDB, but a child has only the thread that forked. So each thread holds a lock while it
  uses LMDB, and a fork waits for the locks of all threads.
* Locks are taken in this order: that of the writing thread, that of the own use, that of opening.
"""

from __future__ import annotations

import atexit
import contextlib
import fcntl
import os
import shutil
import stat
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from proxywasm_host import remedy

try:
    import lmdb
except ModuleNotFoundError as error:
    raise remedy.missing("processes", error) from None

from proxywasm_host.errors import ConfigError
from proxywasm_host.forks import ThreadLocks, renew_in_children
from proxywasm_host.services.quota import QuotaExceeded
from proxywasm_host.services.unavailable import Breaker

__all__ = ["Directory", "directory", "path_of"]

WAIT = 1.0
"""Seconds that a hostcall waits while the process with the lock does not write."""
LONGEST = 10.0
"""Seconds that a hostcall waits while other processes write. It polls, and so gets the lock only by chance if many
processes write without a pause on a busy machine. One second was not enough for 8 processes on 2 processors that 20
others also used.
"""
SIZE = 1 << 30
"""Maximum bytes of the database. It uses only as much of the file system as it contains."""
READERS = 4096
"""Maximum number of reading threads in all processes."""
NAMES = (b"data", b"used", b"queues", b"messages", b"metrics", b"zones", b"order")
NAPS = 20e-6, 5e-4
_uses = ThreadLocks()
"""Held during each use of LMDB, but not while waiting for other processes that write."""
T = TypeVar("T")


def base() -> Path:
    """The parent of new directories: in memory, if the system has a file system there."""
    memory = Path("/dev/shm")  # noqa: S108 - what is in it is checked
    return memory if os.access(memory, os.W_OK | os.X_OK) else Path(tempfile.gettempdir())


def path_of(name: str) -> Path:
    """The directory for a name; an absolute path is itself, and an empty name is for this process group."""
    if name.startswith("/"):
        return Path(name)
    return base() / f"proxywasm-{os.getuid()}-{name or f'group-{os.getpgrp()}'}"


class _Opened:
    """What one process has open of a directory."""

    def __init__(self, alive: int, writer: int, env: Any, databases: dict[bytes, Any]) -> None:
        self.alive = alive
        self.writer = writer
        self.env = env
        self.databases = databases


class Directory:
    """The database in a directory, opened on first use. Safe to use from several threads."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._breaker = Breaker(f"the state in {path}")
        self._begin()
        renew_in_children(self)

    def _begin(self) -> None:
        self._opened: _Opened | None = None
        self._writing = threading.Lock()
        """Held by the thread of this process that writes, or waits for other processes."""
        self._opening = threading.Lock()

    def read(self, look: Callable[[Any, dict[bytes, Any]], T]) -> T:
        """Call `look` with a transaction and the databases by name. Raises: ServiceUnavailable."""
        self._breaker.check()
        try:
            with _uses.own:
                opened = self._opened or self._open()
                with opened.env.begin() as transaction:
                    return look(transaction, opened.databases)
        except (lmdb.Error, OSError) as error:
            raise self._breaker.failed(error) from None

    def write(self, change: Callable[[Any, dict[bytes, Any]], T]) -> T:
        """Call `change` with the only write transaction and the databases by name; an exception rolls it back.

        Raises: ServiceUnavailable; QuotaExceeded, if the database or the disk is full.
        """
        self._breaker.check()
        if not self._writing.acquire(timeout=LONGEST):
            raise self._breaker.failed("other threads write all the time")
        try:
            self._breaker.check()  # the thread that wrote before may have failed
            opened = self._opened or self._open()
            _lock(opened.writer, last_write=self._last_write)
            try:
                with _uses.own, opened.env.begin(write=True) as transaction:
                    return change(transaction, opened.databases)
            finally:
                fcntl.flock(opened.writer, fcntl.LOCK_UN)
        except (lmdb.MapFullError, lmdb.DiskError) as error:
            raise QuotaExceeded(f"there is no room in {self.path}: {error}") from None
        except (lmdb.Error, OSError) as error:
            raise self._breaker.failed(error) from None
        finally:
            self._writing.release()

    def _last_write(self) -> int:
        """The number of the last write of any process."""
        with _uses.own:
            return int(self._opened.env.info()["last_txnid"]) if self._opened else 0

    def enter(self) -> None:
        """Share the directory from now on. Raises: ServiceUnavailable, ConfigError."""
        self.read(lambda *_: None)

    def _open(self) -> _Opened:
        with _uses.own, self._opening:
            if self._opened is None:
                alive = _entered(self.path)
                try:
                    self._opened = self._open_in(alive)
                except BaseException:
                    os.close(alive)
                    raise
            return self._opened

    def _open_in(self, alive: int) -> _Opened:
        writer = os.open(self.path / "writer", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            _lock(writer)
            try:
                env = lmdb.open(
                    str(self.path), map_size=SIZE, max_dbs=len(NAMES), max_readers=READERS, mode=0o600,
                    sync=False, metasync=False,
                )  # fmt: skip
                databases = {name: env.open_db(name) for name in NAMES}
                env.reader_check()  # drops readers that were killed
            finally:
                fcntl.flock(writer, fcntl.LOCK_UN)
        except BaseException:
            os.close(writer)
            raise
        return _Opened(alive, writer, env, databases)

    def close(self) -> None:
        """Stop sharing; the last process removes the directory. Further use opens it again."""
        with self._writing, _uses.own, self._opening:
            opened, self._opened = self._opened, None
            if opened is not None:
                opened.env.close()
                os.close(opened.writer)
                _left(self.path, opened.alive)

    def _forked(self) -> None:
        """Close the child's copies of what the parent has open."""
        if self._opened is not None:
            self._opened.env.close()
            os.close(self._opened.alive)
            os.close(self._opened.writer)
        self._begin()

    def __repr__(self) -> str:
        return f"<Directory {str(self.path)!r}>"


_known: dict[str, Directory] = {}
"""A process may open an LMDB database only once."""


def directory(path: Path) -> Directory:
    """The only `Directory` of this path in the process."""
    return _known.setdefault(str(path), Directory(path))


@atexit.register
def _close_all() -> None:
    for known in list(_known.values()):
        known.close()


# -- Locks on files ----------------------------------------------------------------------------------------------------


def _lock(file: int, kind: int = fcntl.LOCK_EX, last_write: Callable[[], int] = lambda: 0) -> None:
    """Lock a file, and wait as `WAIT` and `LONGEST` say. Raises: OSError, also if it stays locked."""
    nap, longest = NAPS
    until = latest = 0.0
    last = -1
    while True:
        try:
            fcntl.flock(file, kind | fcntl.LOCK_NB)
        except BlockingIOError:  # noqa: PERF203 - expected while waiting
            now = time.monotonic()
            latest = latest or now + LONGEST
            if now > until:
                write = last_write()
                if (until and write == last) or now > latest:
                    raise TimeoutError("another process writes all the time") from None
                until, last = now + WAIT, write
            time.sleep(nap)
            nap = min(nap * 1.5, longest)
        else:
            return


# -- Entering and leaving ----------------------------------------------------------------------------------------------


def _entered(path: Path) -> int:
    """Enter a directory, created or emptied if no process uses it. Returns the open file ``alive``, locked.

    Raises: OSError; ConfigError, if others may write to it, or it holds other files.
    """
    _sweep(path)
    while True:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        _check(path)
        try:
            alive = os.open(path / "alive", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except FileNotFoundError:  # the last process has removed the directory
            continue
        try:
            with contextlib.suppress(BlockingIOError):
                fcntl.flock(alive, fcntl.LOCK_EX | fcntl.LOCK_NB)
                _clear(path)
            _lock(alive, fcntl.LOCK_SH)
            with contextlib.suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(alive), (path / "alive").stat()):
                    return alive
        except BaseException:
            os.close(alive)
            raise
        os.close(alive)


def _check(path: Path) -> None:
    """Check a directory. Raises: ConfigError, if other users could write to it, or it holds other files."""
    found = path.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o022:
        raise ConfigError(f"{path} is not a directory that only this user can write to: name another one")
    strange = [file.name for file in path.iterdir() if not _is_ours(file.name)]
    if strange:
        raise ConfigError(f"{path} contains {strange[0]}, and its content would be removed: name another directory")


def _sweep(but: Path) -> None:
    """Remove directories of process groups and servers whose processes were all killed."""
    for name in ("group-*", "serve-*"):
        for path in base().glob(path_of(name).name):
            if path != but:
                with contextlib.suppress(OSError):
                    _left(path, os.open(path / "alive", os.O_RDWR | os.O_CLOEXEC))


def _is_ours(name: str) -> bool:
    return name in ("alive", "writer", "data.mdb", "lock.mdb") or name.endswith(".wake")


def _clear(path: Path) -> None:
    for file in path.iterdir():
        if file.name != "alive":
            file.unlink()


def _left(path: Path, alive: int) -> None:
    try:
        fcntl.flock(alive, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        pass
    else:
        shutil.rmtree(path, ignore_errors=True)
    finally:
        os.close(alive)
