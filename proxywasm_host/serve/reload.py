"""Loads a configuration again, on request or when its files have changed.

The few files are checked several times a second. That costs next to nothing, and also works for files that are
replaced, linked, or on a network, where the kernel's notifications do not work. A file that is being written is read
once it has stopped changing.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from hashlib import sha256
from pathlib import Path
from typing import Any, TypeVar

from proxywasm_host.errors import ProxyWasmError
from proxywasm_host.serve import files
from proxywasm_host.serve.config import HostSettings
from proxywasm_host.serve.metrics import FilterCounts
from proxywasm_host.serve.source import Source

__all__ = ["Watch", "reload"]

EACH = 0.05
"""Seconds between two checks, and how long a file must be unchanged."""
AnySettings = TypeVar("AnySettings", bound=HostSettings)
logger = logging.getLogger("proxywasm_host.serve")


async def reload(
    source: Source[AnySettings],
    use: Callable[[AnySettings], Awaitable[None]],
    counts: FilterCounts,
    fixed: tuple[str, ...],
    first: AnySettings,
) -> str:
    """Read the configuration again and `use` it. Returns the reason if that fails.

    `use` loads all of it, or raises. `fixed` are settings that keep the values of `first` while the server runs.
    """
    try:
        settings = await asyncio.to_thread(source.load)
        await use(settings)
    except Exception as error:
        counts.reloads["refused",] += 1
        if isinstance(error, ProxyWasmError):
            return str(error)
        logger.exception("the changed configuration cannot be loaded, for a reason that is not a configuration error")
        return f"{type(error).__name__}: {error}"
    changed = [name for name in fixed if getattr(settings, name) != getattr(first, name)]
    if changed:
        logger.warning("changes of %s take effect after a restart", ", ".join(changed))
    counts.reloads["loaded",] += 1
    return ""


def files_of(settings: HostSettings, source: Source[Any]) -> list[Path]:
    """All files of a configuration."""
    found: list[Path | None] = [source.file, *settings.more_files]
    for filter in settings.all_filters:
        found += [filter.file if isinstance(filter.file, Path) else None]
        found += [filter.configuration_file, filter.vm_configuration_file]
        found += [rule.configuration_file for rule in filter.rules]
    for server in settings.server_tls:
        found += [server.certificate, server.key, server.client_ca]
    upstreams = [upstream.tls for upstream in settings.all_upstreams.values()]
    for tls in (*upstreams, *(cluster.tls for cluster in settings.clusters.values())):
        found += [tls.ca, tls.certificate, tls.key]
    return [file for file in found if file is not None]


def _look(file: Path) -> tuple[int, int, int]:
    try:
        stat = file.stat()
    except OSError:
        return 0, 0, 0
    return stat.st_mtime_ns, stat.st_size, stat.st_ino


def _content(files: list[Path]) -> bytes:
    return b"".join(map(_digest, files))


def _digest(file: Path) -> bytes:
    try:
        return sha256(files.read(file)).digest()
    except OSError:
        return b"-"


class Watch:
    """The watched files of a configuration. Create it before they are loaded, because it notes their state.

    Raises: ConfigError, if the configuration cannot be read.
    """

    def __init__(self, source: Source[Any]) -> None:
        self._source = source
        self._note(files_of(source.load(), source))

    def _note(self, files: list[Path]) -> None:
        self._files, self._looks, self._content = files, list(map(_look, files)), _content(files)

    async def run(self, reload: Callable[[], Awaitable[str]]) -> None:
        """Reload when the content of a file has changed, and log the result, until cancelled.

        `reload` returns the reason of a failure, or ``""``. Its exceptions are logged, and watching continues.
        """
        while True:
            await asyncio.sleep(EACH)
            looks = list(map(_look, self._files))
            if looks == self._looks:
                continue
            await asyncio.sleep(EACH)
            if list(map(_look, self._files)) != looks:
                continue  # the file is being written
            self._looks = looks
            try:
                await self._see(reload)
            except Exception:
                logger.exception("not loaded, nothing has changed")

    async def _see(self, reload: Callable[[], Awaitable[str]]) -> None:
        content = await asyncio.to_thread(_content, self._files)
        if content != self._content:
            self._content = content
            await self._reload(reload)

    async def _reload(self, reload: Callable[[], Awaitable[str]]) -> None:
        try:
            files = files_of(await asyncio.to_thread(self._source.load), self._source)
        except ProxyWasmError:
            files = self._files
        if files != self._files:
            await asyncio.to_thread(self._note, files)
        refused = await reload()
        if refused:
            logger.error("not loaded, nothing has changed: %s", refused)
        else:
            logger.info("loaded the changes; current requests end with the old configuration")
