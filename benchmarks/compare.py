"""Compares two runs: the costs that changed by more than the noise of both."""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks.run import Run, digits
from benchmarks.timing import Spread

UNITS = ((1.0, "s"), (1e-3, "ms"), (1e-6, "µs"), (0.0, "ns"))


def compare(old: Run, new: Run) -> Iterator[str]:
    """Lines for each side of each series in both runs. A change counts if the interquartile ranges do not overlap.

    Times of two runs are comparable only if the machine was in the same state; else compare the ratios within each run.
    """
    yield from _machines(old, new)
    for name, sides in new.series.items():
        for side in sides:
            if side in old.series.get(name, {}):
                before, after = old.of(name, side), new.of(name, side)
                verdict, times = _verdict(before, after), after.median / before.median
                yield f"{verdict:8} {times:6.2f} ×  {name}, {side}: {_change(name, before, after)}"


def _machines(old: Run, new: Run) -> Iterator[str]:
    for key in ("processor", "processors", "kernel", "interpreter", "extension", "engines", "load"):
        if old.machine[key] != new.machine[key]:
            yield f"{key}: {old.machine[key]} → {new.machine[key]}"


def _verdict(before: Spread, after: Spread) -> str:
    if after.high < before.low:
        return "cheaper"
    return "dearer" if after.low > before.high else "same"


def _change(name: str, before: Spread, after: Spread) -> str:
    if name.startswith("memory/"):
        return f"{before.median / 1024:,.0f} → {after.median / 1024:,.0f} KiB"
    least, unit = next((least, unit) for least, unit in UNITS if before.median >= least)
    scale = least or 1e-9
    return (
        f"{digits(before.median / scale)} ± {digits(before.iqr / 2 / scale)} → "
        f"{digits(after.median / scale)} ± {digits(after.iqr / 2 / scale)} {unit}"
    )
