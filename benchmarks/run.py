"""A run of `benchmarks.measure`, read again, with the statistics that report and targets are made of."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.timing import Spread, ratio, spread

PLUGIN_SERVERS = ("kong-python", "kong-javascript", "kong-rust")
LUPA = ("lupa-lua", "lupa-python")


def digits(value: float) -> str:
    """A number with two or three digits that mean something."""
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"


@dataclass(frozen=True)
class Line:
    """A straight line through points. `fit` is R²: 1 where the points lie on it."""

    offset: float
    slope: float
    fit: float


class Run:
    """What was measured in one run."""

    def __init__(self, content: dict[str, Any]) -> None:
        self.machine: dict[str, Any] = content["machine"]
        self.seconds: float = content["seconds"]
        self.quick: bool = content["quick"]
        self.series: dict[str, dict[str, list[float]]] = {name: one["sides"] for name, one in content["series"].items()}

        self.beside = {name: Run(other) for name, other in content.get("beside", {}).items()}
        """Runs of the ladder in newer interpreters, by their versions."""

    @classmethod
    def read(cls, path: Path) -> Run:
        return cls(json.loads(path.read_text(encoding="utf-8")))

    @property
    def engines(self) -> list[str]:
        """Those that were measured, Wasmtime first."""
        return list(self.machine["engines"])

    def of(self, series: str, side: str) -> Spread:
        return spread(self.series[series][side])

    def ratio(self, series: str, above: str, below: str) -> Spread:
        """How many times `below` goes into `above`; both were timed in turn."""
        return ratio(self.series[series][above], self.series[series][below])

    def cheapest(self, names: Sequence[str]) -> str:
        """The way of these that costs least."""
        return min(names, key=lambda name: self.of("ladder", name).median)

    def group(self, prefix: str) -> Iterator[tuple[str, str]]:
        """Full and short name of each series of a group."""
        for name in self.series:
            if name.startswith(f"{prefix}/"):
                yield name, name.removeprefix(f"{prefix}/")

    def points(self, what: str, engine: str) -> list[tuple[int, Spread]]:
        """What was timed for each number of a scaling."""
        return [(int(number), spread(samples)) for number, samples in self.series[f"scaling/{what}/{engine}"].items()]

    def line(self, what: str, engine: str) -> Line:
        points = self.points(what, engine)
        numbers, costs = [number for number, _ in points], [cost.median for _, cost in points]
        slope, offset = statistics.linear_regression(numbers, costs)
        return Line(offset, slope, statistics.correlation(numbers, costs) ** 2)
