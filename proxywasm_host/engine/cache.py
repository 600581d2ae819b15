"""Caches compiled modules in the process and on disk, so that a filter is compiled once and then loads fast.

Compiled code is native code: a user who can write to our directory could run code in our process. So a file is loaded
only if it is a plain file of this user that no other user may write to, and if its message authentication code matches
its contents and name. The key of this code is random, in the same directory, and only this user can read it. All other
modules are compiled again.
"""

from __future__ import annotations

import os
import stat
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import lru_cache
from hashlib import blake2b
from hmac import compare_digest
from pathlib import Path
from typing import Literal

from proxywasm_host.forks import renew_in_children
from proxywasm_host.own_files import TEMPORARY, NotOursError, check_own, open_own, replace_file, write_temporary

from .protocol import Engine, InvalidModule, Module

__all__ = ["Loaded", "ModuleCache", "default_directory"]

GIB = 1 << 30
_MAGIC = b"pwhcache"
_MAC_SIZE = 32
_KEY_SIZE = 32
_KEY_NAME = "key"
_SUFFIX = ".module"
_ABANDONED = 3600  # seconds after which a temporary file is no longer in use

SLOW = 1.0
"""Seconds after which compiling is logged."""


def _debug(message: str, *args: object) -> None:
    import logging  # noqa: PLC0415 - only for problems: it takes a tenth of our time to import

    logging.getLogger(__name__).debug(message, *args)


def _info(message: str) -> None:
    import logging  # noqa: PLC0415 - as above

    logging.getLogger(__name__).info(message)


@dataclass(frozen=True, slots=True)
class Loaded:
    """A module, its origin, and the seconds that it took to load."""

    module: Module
    origin: Literal["memory", "disk", "compiled"]
    seconds: float


def default_directory(environment: Mapping[str, str] = os.environ) -> Path | None:
    """The directory of compiled modules: ``$PROXYWASM_CACHE_DIR`` (empty: none), or one in the user's cache directory.

    The directory need not exist. The result is ``None`` if nothing is to be stored on disk.
    """
    if (chosen := environment.get("PROXYWASM_CACHE_DIR")) is not None:
        return Path(chosen).expanduser() if chosen else None
    try:
        caches = environment.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    except RuntimeError:  # no home directory
        return None
    return Path(caches) / "proxywasm-host"


class ModuleCache:
    """Compiled modules by engine and bytecode. Any number of threads and processes may share a directory.

    Args:
        directory: The directory for compiled code, see `default_directory`; ``None`` to cache in memory only.
        keep: How many modules to keep in memory; the least recently used is removed first.
        size_limit: Maximum size of the directory in bytes; the least recently used files are removed first.
        slow: Called with a sentence, in a separate thread, when compiling takes more than a second; by default the
            standard library's logger of this module gets it as ``INFO``.
    """

    def __init__(
        self,
        directory: Path | str | None,
        *,
        keep: int = 16,
        size_limit: int = GIB,
        slow: Callable[[str], object] | None = None,
    ) -> None:
        self._slow = slow or _info
        self._keep = keep
        self._disk = _Disk(Path(directory), size_limit) if directory is not None else None
        self._forked()
        renew_in_children(self)
        self._modules: OrderedDict[object, tuple[Engine, Module]] = OrderedDict()

    def __repr__(self) -> str:
        where = "in no directory" if self._disk is None else f"in {self._disk.directory}"
        return f"<ModuleCache {where}>"

    def _forked(self) -> None:
        """Reset the locks: in a child process, no thread compiles."""
        self._lock = threading.Lock()
        self._busy: dict[object, threading.Lock] = {}

    def load(
        self, engine: Engine, bytecode: bytes, compile: Callable[[], Module] | None = None, rules: str = ""
    ) -> Module:
        """The compiled module of `bytecode`.

        If it is not cached, `compile` makes it, by default ``engine.compile(bytecode)``. `compile` may raise any
        exception. If it depends on other options, `rules` identifies them: modules are cached separately for each.

        Raises: InvalidModule.
        """
        return self.fetch(engine, bytecode, compile, rules).module

    def fetch(
        self, engine: Engine, bytecode: bytes, compile: Callable[[], Module] | None = None, rules: str = ""
    ) -> Loaded:
        """Load a module like `load`, and return its origin too. Raises: InvalidModule."""
        began = time.perf_counter()
        # Modules that are not stored on disk are identified by their bytecode, whose hash is cached: no digest needed.
        digest = _digest(bytecode, rules) if engine.capabilities.serialise else b""
        key = (id(engine), digest or (rules, bytecode))  # the entry holds the engine, so its id remains unique
        with self._one_at_a_time(key):
            module = self._remembered(key)
            origin: Literal["memory", "disk", "compiled"] = "memory"
            if module is None:
                make = compile or (lambda: engine.compile(bytecode))
                module, origin = self._from_disk(engine, lambda then: self._timed(engine, bytecode, make, then), digest)
                self._remember(key, engine, module)
        return Loaded(module, origin, time.perf_counter() - began)

    def _from_disk(
        self, engine: Engine, compile: Callable[[str], Module], digest: bytes
    ) -> tuple[Module, Literal["disk", "compiled"]]:
        disk = self._disk if engine.capabilities.serialise else None
        name = _file_name(engine, digest)
        compiled = disk.read(name) if disk else None
        if compiled is not None:
            try:
                return engine.deserialise(compiled), "disk"
            except InvalidModule as error:
                _debug("compiled module %s is compiled again: %s", name, error)
        module = compile("next time it loads at once" if disk else "it is not cached on disk")
        if disk:
            disk.write(name, module.serialise())
        return module, "compiled"

    def _timed(self, engine: Engine, bytecode: bytes, compile: Callable[[], Module], then: str) -> Module:
        """Compile, and report it if it takes long."""
        told = f"compiling a module of {len(bytecode) / 1e6:.1f} MB on {engine.name} takes more than a second; {then}"
        timer = threading.Timer(SLOW, self._slow, [told])
        timer.daemon = True
        with suppress(RuntimeError):  # if no thread can be started, nothing is reported
            timer.start()
        try:
            return compile()
        finally:
            timer.cancel()

    def _remembered(self, key: object) -> Module | None:
        with self._lock:
            if key not in self._modules:
                return None
            self._modules.move_to_end(key)
            return self._modules[key][1]

    def _remember(self, key: object, engine: Engine, module: Module) -> None:
        with self._lock:
            self._modules[key] = engine, module
            while len(self._modules) > self._keep:
                self._modules.popitem(last=False)

    @contextmanager
    def _one_at_a_time(self, key: object) -> Iterator[None]:
        with self._lock:
            lock = self._busy.setdefault(key, threading.Lock())
        try:
            with lock:
                yield
        finally:
            with self._lock:
                self._busy.pop(key, None)


class _Disk:
    """The directory. Its methods raise nothing: an unreadable file counts as missing, and failed writes are ignored."""

    def __init__(self, directory: Path, size_limit: int) -> None:
        self.directory = directory
        self._size_limit = size_limit
        self._complained = False

    def read(self, name: str) -> bytes | None:
        """The contents of the file `name`, if they are ours and complete."""
        try:
            with open_own(self.directory / name) as file:
                head = file.read(len(_MAGIC) + _MAC_SIZE)
                contents = file.read()
            if compare_digest(head, _MAGIC + self._mac(name, contents)):
                os.utime(self.directory / name)  # for the order of removal
                return contents
            _debug("compiled module %s is incomplete or was tampered with: it is compiled again", name)
        except FileNotFoundError:
            pass
        except OSError as error:
            self._complain(error)
        return None

    def write(self, name: str, contents: bytes) -> None:
        """Write `contents` to the file `name`, all of them or nothing."""
        try:
            self._prepare()
            replace_file(self.directory / name, _MAGIC, self._mac(name, contents), contents)
            self._make_room(name)
        except OSError as error:
            self._complain(error)

    def _mac(self, name: str, contents: bytes) -> bytes:
        mac = blake2b(name.encode(), key=self._key(), digest_size=_MAC_SIZE)
        mac.update(contents)
        return mac.digest()

    def _key(self) -> bytes:
        with open_own(self.directory / _KEY_NAME, others=stat.S_IRWXG | stat.S_IRWXO) as file:
            key = file.read()
        if len(key) != _KEY_SIZE:
            raise NotOursError(f"{_KEY_NAME} does not hold {_KEY_SIZE} bytes")
        return key

    def _prepare(self) -> None:
        """Make the directory and the key if they do not exist. Replace a key that other users could have read."""
        self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        check_own(self.directory.stat(), self.directory)
        try:
            self._key()
        except FileNotFoundError:
            self._make_key()
        except NotOursError:
            (self.directory / _KEY_NAME).unlink()
            self._make_key()

    def _make_key(self) -> None:
        temporary = write_temporary(self.directory, os.urandom(_KEY_SIZE))
        try:
            with suppress(FileExistsError):  # another process was faster: use its key
                os.link(temporary, self.directory / _KEY_NAME)
        finally:
            temporary.unlink()

    def _make_room(self, newest: str) -> None:
        found = []
        for entry in os.scandir(self.directory):
            with suppress(FileNotFoundError):  # another process removes files too
                status = entry.stat(follow_symlinks=False)
                if entry.name.endswith(_SUFFIX) and entry.name != newest:
                    found.append((status.st_mtime, status.st_size, entry.path))
                elif entry.name.startswith(TEMPORARY) and status.st_mtime < time.time() - _ABANDONED:
                    Path(entry.path).unlink()
        room = self._size_limit - (self.directory / newest).stat().st_size
        for _, size, path in sorted(found, reverse=True):
            room -= size
            if room < 0:
                Path(path).unlink(missing_ok=True)

    def _complain(self, error: OSError) -> None:
        if not self._complained:
            self._complained = True
            _debug("compiled modules are not cached in %s: %s", self.directory, error)


@lru_cache(maxsize=2)  # further VMs have the same bytecode
def _digest(bytecode: bytes, rules: str) -> bytes:
    return blake2b(bytecode, digest_size=32, key=blake2b(rules.encode()).digest() if rules else b"").digest()


def _file_name(engine: Engine, digest: bytes) -> str:
    name = blake2b(digest, digest_size=20)
    for part in (engine.name.encode(), engine.fingerprint.encode()):
        name.update(len(part).to_bytes(4, "little") + part)
    return name.hexdigest() + _SUFFIX
