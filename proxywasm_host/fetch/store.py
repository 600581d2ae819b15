"""Stores fetched blobs by digest, and the last digest of each reference.

Each read checks a blob against its digest, and a blob that does not match counts as missing. So others may have access
to the blobs. The digests of references are read only from a directory that belongs to this user.
"""

from __future__ import annotations

import logging
import os
import time
from collections import OrderedDict
from contextlib import suppress
from hashlib import sha256
from pathlib import Path

from proxywasm_host.fetch.reference import digest_of
from proxywasm_host.forks import fork_lock
from proxywasm_host.own_files import TEMPORARY, check_own, open_own, replace_file

__all__ = ["Store"]

IN_MEMORY = 256 << 20
"""Maximum bytes in memory, without a directory."""
ABANDONED = 3600
"""Seconds after which a temporary file is considered abandoned."""
logger = logging.getLogger("proxywasm_host.fetch")


class Store:
    """Stores blobs. Threads and processes may share a directory. A blob that cannot be written to disk stays in memory.

    Args:
        directory: created if it is missing. ``None``: everything stays in memory.
        size_limit: maximum bytes of blobs on disk; those least recently read are removed first.
    """

    def __init__(self, directory: Path | None, size_limit: int) -> None:
        self.directory = directory
        self._size_limit = size_limit
        self._lock = fork_lock()
        self._memory: OrderedDict[str, bytes] = OrderedDict()
        self._last: dict[str, str] = {}

    def blob(self, digest: str) -> bytes | None:
        """The blob with this digest, or ``None``."""
        with self._lock:
            content = self._memory.get(digest)
        if content is None and self.directory is not None:
            path = self._blob(self.directory, digest)
            with suppress(OSError), open_own(path) as file:
                content = file.readall()
                if digest_of(content) != digest:
                    logger.debug("%s is damaged or was tampered with, and is fetched again", path)
                    return None
                os.utime(path)  # for the order of removal
        return content

    def put(self, content: bytes) -> str:
        """Store a blob, and return its digest."""
        digest = digest_of(content)
        try:
            directory = self._prepared("blobs")
            replace_file(self._blob(directory.parent, digest), content)
            self._make_room(directory)
        except OSError as error:
            logger.debug("%s is kept in memory: %s", digest, error)
            with self._lock:
                self._memory[digest] = content
                while len(self._memory) > 1 and sum(map(len, self._memory.values())) > IN_MEMORY:
                    self._memory.popitem(last=False)
        return digest

    def last(self, url: str) -> str:
        """The digest that was noted for a reference; empty without one."""
        with self._lock:
            known = self._last.get(url, "")
        if not known and self.directory is not None:
            with suppress(OSError, UnicodeDecodeError):
                check_own(self.directory.stat(), self.directory)
                with open_own(self._reference(self.directory, url)) as file:
                    known = file.readall().decode("ascii").strip()
        return known

    def remember(self, url: str, digest: str) -> None:
        """Note the digest of a reference."""
        if self.last(url) == digest:
            return
        with self._lock:
            self._last[url] = digest
        with suppress(OSError):
            directory = self._prepared("references")
            replace_file(self._reference(directory.parent, url), digest.encode())

    @staticmethod
    def _blob(directory: Path, digest: str) -> Path:
        return directory / "blobs" / digest.replace(":", "-")

    @staticmethod
    def _reference(directory: Path, url: str) -> Path:
        return directory / "references" / sha256(url.encode()).hexdigest()

    def _prepared(self, folder: str) -> Path:
        """A folder of our directory, created if it is missing. Raises: OSError, also without a directory."""
        if self.directory is None:
            raise FileNotFoundError("there is no directory")
        path = self.directory / folder
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        check_own(self.directory.stat(), self.directory)
        check_own(path.stat(), path)
        return path

    def _make_room(self, directory: Path) -> None:
        found = []
        for entry in os.scandir(directory):
            with suppress(FileNotFoundError):  # another process also makes room
                status = entry.stat(follow_symlinks=False)
                if not entry.name.startswith(TEMPORARY):
                    found.append((status.st_mtime_ns, status.st_size, entry.path))
                elif status.st_mtime < time.time() - ABANDONED:
                    Path(entry.path).unlink()
        room = self._size_limit
        for _, size, path in sorted(found, reverse=True)[1:]:  # the newest is the one just stored
            room -= size
            if room < 0:
                Path(path).unlink(missing_ok=True)
