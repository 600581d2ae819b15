"""Stores fetched blobs by digest, and the digest that each reference had last.

Each read checks a blob against its digest; a blob that does not match counts as missing. So the store need not trust
others with its blobs. It reads the digests of references only from a directory that belongs to this user.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections import OrderedDict
from contextlib import suppress
from hashlib import sha256
from pathlib import Path

from proxywasm_host.fetch.reference import digest_of
from proxywasm_host.own_files import TEMPORARY, check_own, open_own, replace_file

__all__ = ["Store"]

IN_MEMORY = 256 << 20
"""Bytes that are kept where there is no directory."""
ABANDONED = 3600
"""Seconds after which a temporary file is nobody's any more."""
logger = logging.getLogger("proxywasm_host.fetch")


class Store:
    """Any number of threads and processes may share a directory. What cannot be written to disk is kept in memory.

    Args:
        directory: is made if it is not there; ``None`` keeps everything in memory.
        size_limit: bytes of blobs on disk; those that were read the longest ago go first.
    """

    def __init__(self, directory: Path | None, size_limit: int) -> None:
        self.directory = directory
        self._size_limit = size_limit
        self._lock = threading.Lock()
        self._memory: OrderedDict[str, bytes] = OrderedDict()
        self._last: dict[str, str] = {}

    def blob(self, digest: str) -> bytes | None:
        """The bytes of this digest, if they are there."""
        with self._lock:
            content = self._memory.get(digest)
        if content is None and self.directory is not None:
            path = self._blob(self.directory, digest)
            with suppress(OSError), open_own(path) as file:
                content = file.readall()
                if digest_of(content) != digest:
                    logger.debug("%s is torn or tampered with: it is fetched anew", path)
                    return None
                os.utime(path)  # for the order of removal
        return content

    def put(self, content: bytes) -> str:
        """Keep bytes, and return their digest."""
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
        """The digest that was remembered for a reference; empty, if there is none."""
        with self._lock:
            known = self._last.get(url, "")
        if not known and self.directory is not None:
            with suppress(OSError, UnicodeDecodeError):
                check_own(self.directory.stat(), self.directory)
                with open_own(self._reference(self.directory, url)) as file:
                    known = file.readall().decode("ascii").strip()
        return known

    def remember(self, url: str, digest: str) -> None:
        """Note what a reference stands for."""
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
        """A folder of ours. Raises: OSError, also where there is no directory."""
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
            with suppress(FileNotFoundError):  # another process makes room as well
                status = entry.stat(follow_symlinks=False)
                if not entry.name.startswith(TEMPORARY):
                    found.append((status.st_mtime_ns, status.st_size, entry.path))
                elif status.st_mtime < time.time() - ABANDONED:
                    Path(entry.path).unlink()
        room = self._size_limit
        for _, size, path in sorted(found, reverse=True)[1:]:  # the newest is what was asked for
            room -= size
            if room < 0:
                Path(path).unlink(missing_ok=True)
