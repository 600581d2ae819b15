"""The type of workloads."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass

from benchmarks.timing import InProcess
from proxywasm_host.services import GuestLog

Open = Callable[[str], AbstractContextManager[InProcess]]


@dataclass(frozen=True)
class Workload:
    """A task of hosts.

    `open` prepares it on the engine of that name, performs it once, and checks the result.
    """

    group: str
    name: str
    what: str
    open: Open


class Silent:
    """A log sink that discards everything."""

    level = 0

    def log(self, line: GuestLog) -> None:
        pass
