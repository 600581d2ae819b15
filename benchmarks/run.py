"""The results of a run of `benchmarks.measure`, with statistics for the report and the targets."""

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
    """A number as text, with two or three significant digits."""
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"


@dataclass(frozen=True)
class Line:
    """A straight line through points. `fit` is R²: 1 if the points are on the line."""

    offset: float
    slope: float
    fit: float


class Run:
    """The results of one run."""

    def __init__(self, content: dict[str, Any]) -> None:
        self.machine: dict[str, Any] = content["machine"]
        self.seconds: float = content["seconds"]
        self.quick: bool = content["quick"]
        self.series: dict[str, dict[str, list[float]]] = {name: one["sides"] for name, one in content["series"].items()}

        self.beside = {name: Run(other) for name, other in content.get("beside", {}).items()}
        """Runs of the ladder in newer interpreters, by version."""

    @classmethod
    def read(cls, path: Path) -> Run:
        return cls(json.loads(path.read_text(encoding="utf-8")))

    @property
    def engines(self) -> list[str]:
        """The engines that were measured, Wasmtime first."""
        return list(self.machine["engines"])

    def of(self, series: str, side: str) -> Spread:
        return spread(self.series[series][side])

    def ratio(self, series: str, above: str, below: str) -> Spread:
        """The ratio of `above` to `below`, which were timed in turn."""
        return ratio(self.series[series][above], self.series[series][below])

    def cheapest(self, names: Sequence[str]) -> str:
        """The name of the way that costs least."""
        return min(names, key=lambda name: self.of("ladder", name).median)

    def group(self, prefix: str) -> Iterator[tuple[str, str]]:
        """The full and the short name of each series in a group."""
        for name in self.series:
            if name.startswith(f"{prefix}/"):
                yield name, name.removeprefix(f"{prefix}/")

    def points(self, what: str, engine: str) -> list[tuple[int, Spread]]:
        """The cost for each number of a scaling."""
        return [(int(number), spread(samples)) for number, samples in self.series[f"scaling/{what}/{engine}"].items()]

    def line(self, what: str, engine: str) -> Line:
        points = self.points(what, engine)
        numbers, costs = [number for number, _ in points], [cost.median for _, cost in points]
        slope, offset = statistics.linear_regression(numbers, costs)
        return Line(offset, slope, statistics.correlation(numbers, costs) ** 2)
