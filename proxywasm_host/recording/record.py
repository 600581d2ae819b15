"""Chooses which streams of a carrier are recorded, and writes the files."""

from __future__ import annotations

import logging
import os
import re
import time
from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from proxywasm_host.errors import ConfigError
from proxywasm_host.recording.file_format import Recording
from proxywasm_host.recording.redaction import Redaction
from proxywasm_host.recording.tap import Tap
from proxywasm_host.runtime.host import Host
from proxywasm_host.runtime.http import HttpStream

__all__ = ["Record", "StreamRecorder"]

NAME = "{time}-{pid}-{number}-{status}.json"
OURS = re.compile(r"\d{8}T\d{6}\.\d{3}-\d+-\d+-\w+\.json")
LOADED_BY = 60.0
"""Seconds after which ticks and messages no longer count as part of a filter's start."""
logger = logging.getLogger("proxywasm_host.recording")


@dataclass(frozen=True)
class Record:
    """Which streams a carrier records, and how: ``ProxyWasmMiddleware(app, filters, record=Record("recordings"))``.

    Each recording is a JSON file in `directory`, for ``proxywasm replay``. A stream that is not recorded has no extra
    cost. While a stream is recorded, each hostcall of its host is reported to Python.

    Raises: TypeError, ValueError.
    """

    directory: str | os.PathLike[str]
    """The directory of the files; it is created if it is missing."""
    sample: int = 1
    """One in `sample` streams is recorded."""
    failures_only: bool = False
    """Write only recordings with a failed guest, a status of 500 or more, or a reset by a filter."""
    max_bytes: int = 1 << 20
    """Approximate maximum bytes of a recording. Later events are left out, and the file is marked as cut."""
    max_files: int = 100
    """Maximum number of recordings in the directory; the oldest are deleted."""
    redact: Collection[str] = ()
    """Names of headers, and of keys in a configuration, whose values are masked."""
    redact_credentials: bool = True
    """Mask text that looks like a credential: ``authorization``, ``cookie``, ``Bearer …``, ``"secret": …``."""
    redact_bodies: bool = False
    """Write bodies as strings of ``x`` with the same length."""

    def __post_init__(self) -> None:
        directory: Any = self.directory
        if not isinstance(directory, (str, os.PathLike)):
            raise TypeError(f"directory is a path: Record('recordings'), not {directory!r}")
        redact: Any = self.redact
        if isinstance(redact, (str, bytes)) or not all(isinstance(name, str) for name in redact):
            raise TypeError(f"redact is a list of names: write ['x-token'], not {redact!r}")
        for name in ("sample", "max_bytes", "max_files"):
            value: Any = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool):
                raise TypeError(f"{name} is a whole number, not {value!r}")
            if value < 1:
                raise ValueError(f"{name} is 1 or more, not {value}")

    def redaction(self) -> Redaction:
        """The redaction of one recording."""
        return Redaction(self.redact, credentials=self.redact_credentials, bodies=self.redact_bodies)


class StreamRecorder:
    """Records streams of one host. The driver makes it before filters are loaded.

    Raises: ConfigError, if the directory cannot be created.
    """

    def __init__(self, host: Host, record: Record) -> None:
        self._record = record
        self._directory = Path(record.directory)
        try:
            self._directory.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError(f"cannot record in {self._directory}: {error.strerror}") from None
        self._tap = Tap(host, self._keep, record.max_bytes, record.redaction())
        self._since = record.sample - 1
        """Number of streams since the last recorded one."""
        self._number = 0
        self._until = time.monotonic() + LOADED_BY

    def begin(self, stream: HttpStream) -> None:
        """Record a new stream if it is one of the sample."""
        self._since += 1
        if self._since >= self._record.sample:
            self._since = 0
            self._tap.begin(stream)
        elif self._until and self._tap.settle(by_force=time.monotonic() > self._until):
            self._until = 0.0

    def _keep(self, recording: Recording, redaction: Redaction) -> None:
        outcome = recording.outcome
        failed = bool(outcome.get("failure")) or outcome.get("status", 0) >= 500
        if self._record.failures_only and not (failed or outcome.get("reset")):
            return
        self._number += 1
        now = time.time()
        name = NAME.format(
            time=f"{time.strftime('%Y%m%dT%H%M%S', time.gmtime(now))}.{int(now * 1000) % 1000:03}",
            pid=os.getpid(),
            number=self._number,
            status="failed" if outcome.get("failure") else outcome.get("status", "reset"),
        )
        try:
            partly = self._directory / f".{name}.part"
            # A surrogate, which UTF-8 cannot encode, becomes an escape like \udcff, which JSON reads back unchanged.
            partly.write_text(redaction.recording(recording).dump(), encoding="utf-8", errors="backslashreplace")
            partly.replace(self._directory / name)
            self._forget_old()
        except OSError as error:
            logger.warning("cannot write the recording %s: %s", self._directory / name, error.strerror)
        except Exception:
            logger.exception("cannot write the recording %s; its request continues", self._directory / name)

    def _forget_old(self) -> None:
        names = sorted(name for file in self._directory.iterdir() if OURS.fullmatch(name := file.name))
        for name in names[: -self._record.max_files]:
            with suppress(OSError):  # another process has deleted it
                (self._directory / name).unlink()
