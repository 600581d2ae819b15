"""One test of a suite, whichever form it was written in."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from proxywasm_host.engine.cache import ModuleCache
from proxywasm_host.testing.coverage import Coverage

__all__ = ["Case", "Environment"]


@dataclass(frozen=True)
class Environment:
    """Where cases run: an engine by name (``None``: the preferred one), and a cache of compiled code.

    The callbacks and hostcalls that filters use are added to `coverage`, if it is given.
    """

    engine: str | None = None
    cache: ModuleCache | None = None
    coverage: Coverage | None = None


@dataclass(frozen=True)
class Case:
    """A test: its name, its place in the file, and the function that runs it.

    `run` returns a sentence for each unmet expectation. It raises the errors of loading a filter.
    """

    name: str
    suite: Path
    line: int
    filter: Path
    run: Callable[[Environment], list[str]]
