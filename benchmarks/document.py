"""The report as Markdown, with ratios first, then times and a description of the machine."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from benchmarks.ladder import WHAT
from benchmarks.run import Run, digits
from benchmarks.scaling import CONTROL, PARALLEL
from benchmarks.targets import TARGETS, Target
from benchmarks.timing import Spread
from benchmarks.workloads.table import WORKLOADS

FACTORS = {
    "crossing": (1e6, "µs"),
    "hostcall": (1e6, "µs"),
    "request": (1e6, "µs"),
    "body": (1e6, "µs"),
    "load": (1e3, "ms"),
}
TITLES = {
    "crossing": "Crossings",
    "hostcall": "Hostcalls",
    "request": "Requests",
    "body": "Bodies",
    "load": "Compiling and loading",
}
ABOUT = {
    "crossing": "A call between host and guest through the engine's own interface, without the ABI.",
    "hostcall": "One hostcall, marshalled and performed: one of two hundred of its kind in a callback.",
    "request": "A whole stream through one filter.",
    "body": "A stream with a request body in one chunk.",
    "load": "From bytes to a plugin. V8 compiles a function when it is first called, and stores nothing on disk.",
}


LADDER = """
All do the same work: read two headers of the request, add one, remove an absent one; read one header of the response,
add one, replace one.
""".strip()

HOW_OTHERS = """
Envoy's figures are the processor time of many requests through the filter, less that of as many without it. "A further
filter" is the cost of each of four more filters in a chain. The stand-in for Kong's plugin server in Go is a Rust
program that implements its protocol, ProtoBuf:1, and nothing else, so a real one costs more. Plugin servers are driven
from Python; their figures are the time until the answer arrives.
""".strip()

METHOD = """
* The sides of a comparison are timed in turn, round by round, in one run, each for about thirty milliseconds. A ratio
  is the median of the ratios within the rounds. Ranges are interquartile ranges.
* Times are processor time of the thread that does the work (for Envoy, of the whole process), which depends little on
  other load on the machine. Where several threads or processes share the work (plugin servers, compiling and loading,
  threads and processes, starts), they are wall-clock times.
* This host is used through its public API, with its whole runtime: limits, checks, failure reports. The filters are in
  `benchmarks/header_filter.wat`, `benchmarks/workloads/` and `tests/filters/`.
* Each side warms up for a third of a second, because V8 optimises only code that has run some hundred times; before
  that, a filter in Go costs many times as much on it.
* Each result is checked before it is timed. `make test` runs each benchmark once, with the same checks.
* `benchmarks/report --compare OLD.json NEW.json` compares two runs, whose files `--json FILE` writes.
""".strip()

UNTIL = {
    "interpreter": "the interpreter runs",
    "import": "the host is imported",
    "engine": "the engine is open",
    "plugin": "the plugin has started (`rust/headers`)",
    "request": "its first request is answered",
}


def document(run: Run, plots: str) -> str:
    """The report. `plots` is the path of the folder with the plots, relative to the report."""
    return "\n".join(_lines(run, plots)) + "\n"


def _lines(run: Run, plots: str) -> Iterator[str]:
    yield "# Benchmarks"
    yield ""
    yield (
        "This page compares the cost of a filter here with other ways to extend a gateway, and between the engines. "
        "It also shows how cost grows, how long starting takes, and how much memory is used. `make bench` measures "
        "and draws all of this on your machine."
    )
    if run.quick:
        yield ""
        yield "**This was a quick run, as a check that everything works: its figures mean little.**"
    yield ""
    yield from _targets(run)
    yield from _ladder(run, plots)
    yield from _interpreters(run, plots)
    yield from _workloads(run, plots)
    yield from _scaling(run, plots)
    yield from _processes(run, plots)
    yield from _machine(run)
    yield from _method()


def _targets(run: Run) -> Iterator[str]:
    yield "## Targets"
    yield ""
    yield from table(
        ("target", "bound", "measured", "quartiles", "", "limited by"), (_target(row, run) for row in TARGETS)
    )


def _target(target: Target, run: Run) -> Sequence[str]:
    value, met = target.measured(run), target.met(run)
    sign, unit = "≥" if target.at_least else "≤", f" {target.unit}".rstrip()
    missed = target.bound / value.median if target.at_least else value.median / target.bound
    quartiles = f"{digits(value.low)} – {digits(value.high)}" if value.iqr else ""
    verdict = "met" if met else f"**missed** by {digits(missed)} ×"
    return (
        target.name,
        f"{sign} {target.bound:g}{unit}",
        f"{_exact(value)}{unit}",
        quartiles,
        verdict,
        "" if met else target.why(run),
    )


def _exact(value: Spread) -> str:
    exact = value.median < 0.1 or (value.median < 1 and not value.iqr)
    return f"{value.median:.4f}" if exact else digits(value.median)


def _ladder(run: Run, plots: str) -> Iterator[str]:
    yield "## The ways to extend a gateway"
    yield ""
    yield LADDER
    yield ""
    yield f"![The cost of one request in each way]({plots}/ladder.svg)"
    yield ""
    names = sorted(WHAT, key=lambda name: run.of("ladder", name).median)
    columns = [name for name in ("rust", "wasmtime", "envoy-further") if name in WHAT]
    heads = (
        "way",
        "relative to the Rust baseline",
        "to this host on Wasmtime",
        "to a further filter in Envoy",
        "µs",
        "interquartile range",
    )
    yield from table(
        heads,
        (
            (
                WHAT[name],
                *(f"{digits(run.ratio('ladder', name, column).median)} ×" for column in columns),
                digits(run.of("ladder", name).median * 1e6),
                digits(run.of("ladder", name).iqr * 1e6),
            )
            for name in names
        ),
    )
    yield HOW_OTHERS
    yield ""


def _interpreters(run: Run, plots: str) -> Iterator[str]:
    if not run.beside:
        return
    yield "## Interpreters"
    yield ""
    yield "Everything else on this page was measured in the first interpreter, the fastest on the machine."
    yield ""
    yield f"![The header filter in each interpreter]({plots}/interpreters.svg)"
    yield ""
    heads = (
        "interpreter",
        "extension",
        *(f"{engine.title()}, relative to the Rust baseline" for engine in run.engines),
        *(f"{engine.title()}, µs" for engine in run.engines),
    )
    yield from table(
        heads,
        (
            (
                one.machine["interpreter"],
                one.machine["extension"],
                *(f"{digits(one.ratio('ladder', engine, 'rust').median)} ×" for engine in run.engines),
                *(digits(one.of("ladder", engine).median * 1e6) for engine in run.engines),
            )
            for one in (run, *run.beside.values())
        ),
    )


def _workloads(run: Run, plots: str) -> Iterator[str]:
    what = {f"{workload.group}/{workload.name}": workload.what for workload in WORKLOADS}
    others = [engine for engine in run.engines if engine != "wasmtime"]
    drawn = {"hostcall": "hostcalls", "request": "requests", "load": "load"}
    for group, title in TITLES.items():
        factor, unit = FACTORS[group]
        yield f"## {title}"
        yield ""
        yield ABOUT[group]
        yield ""
        if group in drawn:
            yield f"![{title} on each engine]({plots}/{drawn[group]}.svg)"
            yield ""
        heads = (
            "",
            "",
            *(f"{engine.title()}, relative to Wasmtime" for engine in others),
            *(f"{engine.title()}, {unit}" for engine in run.engines),
        )
        yield from table(
            heads,
            (
                (
                    short,
                    what[series],
                    *(f"{digits(run.ratio(series, engine, 'wasmtime').median)} ×" for engine in others),
                    *(_with_range(run.of(series, engine), factor) for engine in run.engines),
                )
                for series, short in run.group(group)
            ),
        )
        if group == "body":
            yield from _memcpy(run)


def _memcpy(run: Run) -> Iterator[str]:
    bodies = [(series, short) for series, short in run.group("body") if "two memcpy" in run.series[series]]
    heads = ("relative to two memcpy of the body", *(engine.title() for engine in run.engines), "two memcpy, µs")
    yield from table(
        heads,
        (
            (
                short,
                *(f"{digits(run.ratio(series, engine, 'two memcpy').median)} ×" for engine in run.engines),
                digits(run.of(series, "two memcpy").median * 1e6),
            )
            for series, short in bodies
        ),
    )


def _scaling(run: Run, plots: str) -> Iterator[str]:
    yield "## How cost grows"
    yield ""
    yield f"![Cost by filters, headers and bytes, with linear fits]({plots}/scaling.svg)"
    yield ""
    units = {
        "filters": (1e6, "µs for each filter"),
        "headers": (1e9, "ns for each header"),
        "body bytes": (1e6 * 1024, "µs for each KiB"),
    }
    heads = (
        "by",
        "",
        *(engine.title() for engine in run.engines),
        *(f"{engine.title()}: R²" for engine in run.engines),
    )
    yield from table(
        heads,
        (
            (
                what,
                unit,
                *(digits(run.line(what, engine).slope * factor) for engine in run.engines),
                *(f"{run.line(what, engine).fit:.4f}" for engine in run.engines),
            )
            for what, (factor, unit) in units.items()
        ),
    )
    yield f"![Requests per second by threads and processes]({plots}/parallel.svg)"
    yield ""
    rows = []
    sides = (*run.engines, CONTROL)
    for what in PARALLEL:
        for number, _ in run.points(what, CONTROL)[1:]:
            rates = (run.ratio(f"scaling/{what}/{side}", "1", str(number)).median for side in sides)
            rows.append((f"{number} {what}", *(f"{digits(rate)} ×" for rate in rates)))
    heads = ("requests per second, relative to one", *(engine.title() for engine in run.engines), "a Python function")
    yield from table(heads, rows)
    yield "Threads take turns with the interpreter's lock, which this work holds nearly all the time."
    yield ""


def _processes(run: Run, plots: str) -> Iterator[str]:
    yield "## Start and memory"
    yield ""
    yield f"![From the start of the process to the first answer]({plots}/start.svg)"
    yield ""
    stages = list(run.series[f"start/{run.engines[0]}"])
    heads = ("ms from the start of the process until", *(engine.title() for engine in run.engines))
    yield from table(
        heads,
        (
            (UNTIL[stage], *(_with_range(run.of(f"start/{engine}", stage), 1e3) for engine in run.engines))
            for stage in stages
        ),
    )
    heads = ("ms for ten typical tests of `rust/auth` in pytest", *(engine.title() for engine in run.engines))
    yield from table(
        heads,
        (
            (what, *(_with_range(run.of(f"testing/{engine}", side), 1e3) for engine in run.engines))
            for what, side in (("pytest's whole process", "in all"), ("the tests with their fixtures", "alone"))
        ),
    )
    yield f"![Memory for each further VM]({plots}/memory.svg)"
    yield ""
    heads = ("KiB of private memory for each further VM", *(engine.title() for engine in run.engines))
    yield from table(
        heads,
        (
            (f"`{short}`", *(digits(run.of(series, engine).median / 1024) for engine in run.engines))
            for series, short in run.group("memory")
        ),
    )


def _machine(run: Run) -> Iterator[str]:
    machine = run.machine
    yield "## The machine"
    yield ""
    rows = [
        ("processor", f"{machine['processor']}, {machine['processors']} of them usable"),
        ("memory", f"{machine['memory'] / 2**30:.0f} GiB"),
        ("system", machine["kernel"]),
        ("load before the run (1, 5, 15 minutes)", ", ".join(map(str, machine["load"]))),
        ("interpreter", machine["interpreter"]),
        ("C extension", machine["extension"]),
        *((engine.title(), machine["engines"][engine]) for engine in run.engines),
        ("Rust baseline", machine["rust_baseline"]),
        ("packages", ", ".join(f"{name} {version}" for name, version in machine["packages"].items())),
        ("programs", ", ".join(f"{name}: {said}" for name, said in machine["programs"].items())),
        ("the run took", f"{run.seconds / 60:.0f} minutes"),
    ]
    yield from table(("", ""), rows)


def _method() -> Iterator[str]:
    yield "## How it was measured"
    yield ""
    yield METHOD


def _with_range(value: Spread, factor: float) -> str:
    middle = digits(value.median * factor)
    return f"{middle} ± {digits(value.iqr * factor / 2)}" if value.iqr else middle


def table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    """A table whose columns of numbers are aligned to the right."""
    rows = [list(row) for row in rows]
    right = [all(row[place][:1] in "0123456789≤≥" for row in rows) for place in range(len(heads))]
    yield f"| {' | '.join(heads)} |"
    yield f"|{'|'.join('---:' if one else '---' for one in right)}|"
    for row in rows:
        yield f"| {' | '.join(row)} |"
    yield ""
