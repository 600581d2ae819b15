"""What a workload is."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass

from benchmarks.timing import InProcess
from proxywasm_host.services import GuestLog

Open = Callable[[str], AbstractContextManager[InProcess]]


@dataclass(frozen=True)
class Workload:
    """One thing that hosts do.

    `open` makes it ready on the engine of that name, does it once and checks what came of it.
    """

    group: str
    name: str
    what: str
    open: Open


class Silent:
    """A log sink that takes everything and keeps nothing."""

    level = 0

    def log(self, line: GuestLog) -> None:
        pass
