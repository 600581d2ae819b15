"""Fetches, checks and stores modules by reference.

Rules of this module:

* A given digest is always checked. A stored module with that digest is never fetched again.
* A reference without a digest is looked up as its policy says. `pin` returns its present digest. The filter then loads
  the module with that digest, even if the server has a newer one meanwhile.
* The digest of a reference is noted after its module was loaded (`loaded`), so that hosts can start with this module
  while the server is down. If the server refuses access or no longer has the module, that is an error.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path
from typing import Any

from proxywasm_host.engine.cache import GIB, default_directory
from proxywasm_host.errors import FetchError, Unreachable
from proxywasm_host.fetch.credentials import default_config, find_credentials
from proxywasm_host.fetch.image import Absent, module_of
from proxywasm_host.fetch.reference import (
    PullPolicy,
    Reference,
    check_sha256,
    checked,
    digest_of,
    local_path,
    reference_of,
)
from proxywasm_host.fetch.store import Store
from proxywasm_host.source import read_filter

__all__ = ["ModuleFetcher", "default_fetcher"]

FOLDER = "modules"
logger = logging.getLogger("proxywasm_host.fetch")


class ModuleFetcher:
    """Fetches modules for hosts, in any thread. Hosts may share a fetcher, and processes its directory.

    Args:
        directory: where modules are stored; by default next to compiled ones (`default_directory`), ``None`` for
            memory. ca: PEM file of authorities that are trusted in addition to the system's.
        plain_http: hosts, with their ports, that may be used without TLS. Those of this machine always may.
        docker_config: Docker's ``config.json`` with the credentials for registries; by default that of the user.
        timeout: seconds for a whole fetch.
        refresh_interval: seconds between a carrier's look-ups of references with the policy ``Always``; ``None`` for
            only one look-up.
        size_limit: maximum bytes in the directory.

    Raises: TypeError or ValueError, whose message says what to write instead.
    """

    def __init__(
        self,
        directory: Path | str | None = "",
        *,
        ca: str | os.PathLike[str] | None = None,
        plain_http: Iterable[str] = (),
        docker_config: str | os.PathLike[str] | None = None,
        timeout: float = 60.0,
        refresh_interval: float | None = 60.0,
        size_limit: int = GIB,
    ) -> None:
        if isinstance(plain_http, str):
            raise TypeError(f"plain_http are hosts: write [{plain_http!r}], a list")
        for name, seconds in (("timeout", timeout), ("refresh_interval", refresh_interval)):
            right = isinstance(seconds, (int, float)) and seconds > 0
            if not right and not (name == "refresh_interval" and seconds is None):
                raise ValueError(f"{name} is a number of seconds, more than 0, not {seconds!r}")
        default = default_directory() if directory == "" else directory
        self._store = Store(Path(default) / FOLDER if default is not None else None, size_limit)
        self._ca = None if ca is None else os.fspath(ca)
        self._plain_http = frozenset(plain_http)
        self._docker_config = default_config() if docker_config is None else Path(docker_config)
        self._timeout = timeout
        self.refresh_interval = refresh_interval
        self._down: set[str] = set()
        """References whose servers do not answer, which is logged once."""
        self._tags: dict[str, tuple[str, str]] = {}
        """ETag and digest of the last answer of HTTP servers, by URL."""

    def read(
        self, code: str | os.PathLike[str], sha256: str = "", policy: PullPolicy | None = None, most: int | None = None
    ) -> bytes:
        """The module at a path or reference. It may be incomplete if it has more than `most` bytes.

        `sha256` is the digest that the module, or the manifest of an image, must have.

        Raises: OSError, ModuleError; ValueError, for an invalid reference.
        """
        reference = reference_of(os.fspath(code))
        if reference is None:
            return checked(read_filter(local_path(code), most), sha256)
        return self._fetch(reference, sha256, policy, most)[1]

    def pin(
        self, code: str | os.PathLike[str], sha256: str = "", policy: PullPolicy | None = None, most: int | None = None
    ) -> str:
        """Fetch the present module of a reference unless it is stored. Returns its digest; empty for a path.

        Raises: ModuleError.
        """
        reference = reference_of(os.fspath(code))
        return "" if reference is None else self._fetch(reference, sha256, policy, most)[0]

    def loaded(self, code: str | os.PathLike[str], digest: str) -> None:
        """Note that the module with this digest was loaded successfully."""
        reference = reference_of(os.fspath(code))
        if reference is not None and not reference.digest:
            self._store.remember(reference.url, digest)

    def _fetch(
        self, reference: Reference, sha256: str, policy: PullPolicy | None, most: int | None
    ) -> tuple[str, bytes]:
        """The digest and the module of a reference. Raises: FetchError."""
        pinned = check_sha256(sha256)
        if pinned and reference.digest and pinned != reference.digest:
            raise FetchError(f"{reference.url} is pinned to two digests, {reference.digest} and {pinned}")
        pinned = pinned or reference.digest
        last = self._store.last(reference.url)
        known = pinned or (last if (policy or reference.policy) == "IfNotPresent" else "")
        if known:
            found = self._stored(reference, known, most)
            if found is not None:
                return known, found
        try:
            fetched = self._ask(reference, pinned, most)
        except Unreachable as error:
            found = None if pinned or not last else self._stored(reference, last, most)
            if found is None:
                raise
            if reference.url not in self._down:
                self._down.add(reference.url)
                logger.warning("%s: %s; the module that was loaded last is used, %s", reference.url, error, last)
            return last, found
        self._down.discard(reference.url)
        return fetched

    def _stored(self, reference: Reference, digest: str, most: int | None) -> bytes | None:
        """The module of a digest, or ``None`` if it is not fully stored. Raises: FetchError, for an unusable image."""
        if reference.scheme != "oci":
            return self._store.blob(digest)
        try:
            return module_of(self._store, digest, most)
        except Absent:
            return None

    def _ask(self, reference: Reference, digest: str, most: int | None) -> tuple[str, bytes]:
        from proxywasm_host.fetch.session import run  # noqa: PLC0415 - needs the extra

        return run(lambda: self._asked(reference, digest, most), self._timeout)

    async def _asked(self, reference: Reference, digest: str, most: int | None) -> tuple[str, bytes]:
        from proxywasm_host.fetch.session import Session  # noqa: PLC0415 - as above

        async with Session(self._ca, self._plain_http) as session:
            if reference.scheme != "oci":
                content = await self._download(session, reference, most)
                return digest_of(content), checked(content, digest)
            import anyio.to_thread  # noqa: PLC0415 - as above

            from proxywasm_host.fetch.oci import Registry  # noqa: PLC0415 - as above

            found = await anyio.to_thread.run_sync(
                find_credentials, self._docker_config, reference.host, reference.repository, abandon_on_cancel=True
            )
            registry = Registry(session, self._store, reference, found, most)
            digest = digest or await registry.resolve()
            return digest, await registry.module(digest)

    async def _download(self, session: Any, reference: Reference, most: int | None) -> bytes:
        """The present content of a server, which is not sent again if the server says that it is unchanged."""
        tag, digest = self._tags.get(reference.url, ("", ""))
        same = self._store.blob(digest) if digest else None
        headers = {"if-none-match": tag} if same is not None else {}
        answer = await session.send("GET", reference.url, headers, most=GIB if most is None else most)
        if answer.status == 304 and same is not None:
            return same
        if answer.status != 200:
            raise FetchError(f"{reference.host} answered {answer.status}")
        digest = self._store.put(answer.body)
        if answer.headers.get("etag"):
            self._tags[reference.url] = answer.headers["etag"], digest
        content: bytes = answer.body
        return content


@lru_cache(maxsize=1)
def default_fetcher() -> ModuleFetcher:
    """The default fetcher of hosts."""
    return ModuleFetcher()
