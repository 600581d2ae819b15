"""The plots of the report, as SVG."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib import pyplot as plt

from benchmarks.ladder import WHAT
from benchmarks.run import Run, digits
from benchmarks.scaling import CONTROL

COLOURS = {"wasmtime": "#0072b2", "wasmer": "#e69f00", "v8": "#009e73"}
OTHER, FLOOR = "#999999", "#444444"
STAGES = {"interpreter": "#bbbbbb", "import": "#56b4e9", "engine": "#0072b2", "plugin": "#e69f00", "request": "#d55e00"}

STYLE = {
    "svg.fonttype": "none",
    "svg.hashsalt": "benchmarks",
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e0e0e0",
    "legend.frameon": False,
    "figure.constrained_layout.use": True,
}


def draw(run: Run, folder: Path) -> None:
    """Draw all plots into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    with mpl.rc_context(STYLE):
        for name, plot in {
            "ladder": ladder(run),
            "hostcalls": engines(run, ("crossing", "hostcall"), 1e6, "µs for one"),
            "requests": engines(run, ("request", "body"), 1e6, "µs for one request", logarithmic=True),
            "load": engines(run, ("load",), 1e3, "ms", logarithmic=True),
            "scaling": scaling(run),
            "parallel": parallel(run),
            "start": start(run),
            "memory": memory(run),
            **({"interpreters": interpreters(run)} if run.beside else {}),
        }.items():
            plot.savefig(folder / f"{name}.svg", metadata={"Date": None, "Creator": None})
            plt.close(plot)


def ladder(run: Run) -> Any:
    names = sorted(WHAT, key=lambda name: run.of("ladder", name).median, reverse=True)
    figure, axes = plt.subplots(figsize=(9, 0.34 * len(names) + 0.9))
    spreads = [run.of("ladder", name) for name in names]
    values = [one.median * 1e6 for one in spreads]
    colours = [COLOURS.get(name, FLOOR if name == "rust" else OTHER) for name in names]
    errors = _errors([(one.low * 1e6, one.median * 1e6, one.high * 1e6) for one in spreads])
    axes.barh([WHAT[name] for name in names], values, color=colours, xerr=errors, ecolor="#222222")
    for place, (name, value) in enumerate(zip(names, values, strict=True)):
        text = f"{digits(value)} µs, {digits(run.ratio('ladder', name, 'wasmtime').median)} ×"
        end = max(value, spreads[place].high * 1e6), place
        axes.annotate(text, end, (4, 0), textcoords="offset points", va="center")
    axes.set_xscale("log")
    axes.set_xlim(right=max(values) * 6)
    axes.set_xlabel("µs for one request (logarithmic), and relative to this host on Wasmtime")
    axes.grid(axis="y", visible=False)
    return figure


def engines(run: Run, groups: Sequence[str], factor: float, label: str, *, logarithmic: bool = False) -> Any:
    """Draw groups of bars, one group for each workload."""
    names = [pair for group in groups for pair in run.group(group)]
    figure, axes = plt.subplots(figsize=(9, 0.52 * len(names) + 0.9))
    height = 0.8 / len(run.engines)
    for number, engine in enumerate(run.engines):
        spreads = [run.of(series, engine) for series, _ in names]
        places = [len(names) - place - number * height for place in range(len(names))]
        values = [one.median * factor for one in spreads]
        errors = _errors([(one.low * factor, one.median * factor, one.high * factor) for one in spreads])
        axes.barh(places, values, height, color=COLOURS[engine], label=engine.title(), xerr=errors, ecolor="#222222")
    axes.set_yticks([len(names) - place - height for place in range(len(names))], [short for _, short in names])
    axes.grid(axis="y", visible=False)
    axes.margins(y=0.01)
    axes.set_xlabel(label + (" (logarithmic)" if logarithmic else ""))
    if logarithmic:
        axes.set_xscale("log")
    axes.legend()
    return figure


def scaling(run: Run) -> Any:
    """Draw points with their linear fits."""
    panels = {"filters": ("filters in the chain", 1), "headers": ("headers read and set", 1),
              "body bytes": ("KiB of body read and replaced", 1024)}  # fmt: skip
    figure, axes = plt.subplots(1, len(panels), figsize=(11, 3.4))
    for panel, (what, (label, scale)) in zip(axes, panels.items(), strict=True):
        for engine in run.engines:
            points, line = run.points(what, engine), run.line(what, engine)
            numbers = [number / scale for number, _ in points]
            values = [cost.median * 1e6 for _, cost in points]
            errors = _errors([(cost.low * 1e6, cost.median * 1e6, cost.high * 1e6) for _, cost in points])
            ends = [0, points[-1][0]]
            panel.errorbar(numbers, values, yerr=errors, fmt="o", markersize=4, color=COLOURS[engine])
            panel.plot([end / scale for end in ends], [(line.offset + line.slope * end) * 1e6 for end in ends],
                       color=COLOURS[engine], label=f"{engine.title()}, R² {line.fit:.4f}")  # fmt: skip
        panel.set_xlabel(label)
        panel.set_ylabel("µs for one request")
        panel.set_ylim(bottom=0)
        panel.legend()
    return figure


def parallel(run: Run) -> Any:
    """Draw requests per second by number of threads and of processes, relative to one."""
    figure, axes = plt.subplots(1, 2, figsize=(9, 3.2), sharey=True)
    for panel, what in zip(axes, ("threads", "processes"), strict=True):
        for side in (*run.engines, CONTROL):
            numbers = [number for number, _ in run.points(what, side)]
            rates = [run.ratio(f"scaling/{what}/{side}", "1", str(number)) for number in numbers]
            errors = _errors([(rate.low, rate.median, rate.high) for rate in rates])
            label = "Python function" if side == CONTROL else side.title()
            colour = COLOURS.get(side, OTHER)
            middle = [rate.median for rate in rates]
            panel.errorbar(numbers, middle, yerr=errors, fmt="o-", markersize=4, color=colour, label=label)
        panel.axvline(run.machine["processors"], color="#cccccc", linestyle="--", linewidth=1)
        panel.set_xticks(numbers)
        panel.set_xlabel(f"{what}, a host in each (dashed: processors of the machine)")
        panel.legend()
    axes[0].set_ylabel("requests per second, relative to one")
    axes[0].set_ylim(bottom=0)
    return figure


def start(run: Run) -> Any:
    figure, axes = plt.subplots(figsize=(9, 2.2))
    names = [engine.title() for engine in reversed(run.engines)]
    left = [0.0] * len(names)
    for stage, colour in STAGES.items():
        ends = [run.of(f"start/{engine}", stage).median * 1e3 for engine in reversed(run.engines)]
        widths = [end - begin for end, begin in zip(ends, left, strict=True)]
        axes.barh(names, widths, left=left, color=colour, label=stage)
        left = ends
    axes.set_xlabel("ms from the start of the process to the first answer, compiled code being in the cache")
    axes.grid(axis="y", visible=False)
    axes.legend(ncols=len(STAGES), loc="lower center", bbox_to_anchor=(0.5, 1))
    return figure


def memory(run: Run) -> Any:
    names = list(run.group("memory"))
    figure, axes = plt.subplots(figsize=(9, 2.6))
    width = 0.8 / len(run.engines)
    for number, engine in enumerate(run.engines):
        values = [run.of(series, engine).median / 1024 for series, _ in names]
        bars = axes.bar([place + number * width for place in range(len(names))], values, width,
                        color=COLOURS[engine], label=engine.title())  # fmt: skip
        axes.bar_label(bars, [f"{value:.0f}" for value in values])
    axes.set_xticks([place + width for place in range(len(names))], [short for _, short in names])
    axes.set_yscale("log")
    axes.set_ylabel("KiB for each further VM")
    axes.grid(axis="x", visible=False)
    axes.legend()
    return figure


def interpreters(run: Run) -> Any:
    runs = [run, *run.beside.values()]
    figure, axes = plt.subplots(figsize=(9, 2.8))
    width = 0.8 / len(run.engines)
    for number, engine in enumerate(run.engines):
        spreads = [one.of("ladder", engine) for one in runs]
        errors = _errors([(s.low * 1e6, s.median * 1e6, s.high * 1e6) for s in spreads])
        axes.bar([place + number * width for place in range(len(runs))], [s.median * 1e6 for s in spreads], width,
                 color=COLOURS[engine], label=engine.title(), yerr=errors, ecolor="#222222")  # fmt: skip
    labels = [one.machine["interpreter"].replace(", ", ",\n", 2) for one in runs]
    axes.set_xticks([place + width for place in range(len(runs))], labels, fontsize=7)
    axes.set_ylabel("µs for the header filter")
    axes.grid(axis="x", visible=False)
    axes.legend()
    return figure


def _errors(spreads: Sequence[tuple[float, float, float]]) -> list[list[float]]:
    """The interquartile range as matplotlib's error bars: below, above."""
    return [[middle - low for low, middle, _ in spreads], [high - middle for _, middle, high in spreads]]
