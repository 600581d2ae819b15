"""Times all comparisons.

The sides of a comparison are timed in turn, round by round (A B C A B C …), so that a slow moment of the machine
affects all of them. A ratio is the median of the ratios within each round.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import repeat
from typing import Any, Protocol

__all__ = ["Effort", "InProcess", "Spread", "Timed", "interleaved", "ratio", "spread"]

Samples = Sequence[float]


class Timed(Protocol):
    """Something that can be repeated."""

    def seconds(self, times: int) -> float:
        """Repeat it `times` times, and return the seconds."""
        ...

    def result(self) -> Any:
        """Repeat it once, and return the result for a check."""
        ...


class InProcess:
    """A Python callable.

    `per_call` is the number of repetitions in one call. Time is processor time of this thread, which depends little on
    other load; it is wall-clock time if `others`, when other threads or processes share the work.
    """

    def __init__(self, call: Callable[[], object], per_call: int = 1, *, others: bool = False) -> None:
        self.call = call
        self.per_call = per_call
        self.clock = time.perf_counter if others else time.thread_time

    def seconds(self, times: int) -> float:
        call, clock, calls = self.call, self.clock, max(1, times // self.per_call)
        start = clock()
        for _ in repeat(None, calls):
            call()
        return (clock() - start) * times / (calls * self.per_call)

    def result(self) -> Any:
        return self.call()


@dataclass(frozen=True)
class Effort:
    """How much to time: the number of rounds, and about how many seconds each side takes in a round.

    If one repetition takes longer than that, there are fewer rounds, but at least `least`. Before the first round, each
    side runs for `warm_up` seconds, because V8 optimises only code that has run some hundred times.
    """

    rounds: int
    seconds: float
    least: int = 3
    warm_up: float = 0.0


def interleaved(sides: Mapping[str, Timed], effort: Effort) -> dict[str, list[float]]:
    """Seconds for one repetition of each side, in each round."""
    times, slowest = {}, effort.seconds
    for name, side in sides.items():
        _warmed_up(side, effort.warm_up)
        times[name], took = _calibrated(side, effort.seconds)
        slowest = max(slowest, took)
    rounds = max(min(effort.least, effort.rounds), int(effort.rounds * effort.seconds / slowest))
    samples: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(rounds):
        for name, side in sides.items():
            samples[name].append(side.seconds(times[name]) / times[name])
    return samples


def _warmed_up(side: Timed, seconds: float) -> None:
    until, times = time.perf_counter() + seconds, 1
    while time.perf_counter() < until:
        side.seconds(times)
        times = min(times * 2, 100)


def _calibrated(side: Timed, seconds: float) -> tuple[int, float]:
    """How many repetitions fit into so many seconds (at least 1), and the seconds of one."""
    times = 1
    while (took := side.seconds(times)) < seconds / 4:
        times = max(times * 2, int(times * seconds / 2 / took) if took > 1e-4 else 0)
    return max(1, int(times * seconds / took)), took / times


@dataclass(frozen=True)
class Spread:
    """The median and the quartiles of samples."""

    median: float
    low: float
    high: float

    @property
    def iqr(self) -> float:
        return self.high - self.low


def spread(samples: Samples) -> Spread:
    if len(samples) < 2:
        return Spread(samples[0], samples[0], samples[0])
    low, median, high = statistics.quantiles(samples, n=4, method="inclusive")
    return Spread(median, low, high)


def ratio(above: Samples, below: Samples) -> Spread:
    """The ratio of `above` to `below`, over the rounds."""
    return spread([a / b for a, b in zip(above, below, strict=True)])
