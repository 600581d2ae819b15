"""The targets of a run, and whether they were met: each target is a row."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from benchmarks.ladder import ENGINES
from benchmarks.run import LUPA, PLUGIN_SERVERS, Run
from benchmarks.scaling import CONTROL
from benchmarks.timing import Spread

LARGE = "Go, 6.5 MB"
LINEAR = 0.98
"""The least R² at which a cost counts as linear."""


@dataclass(frozen=True)
class Target:
    """`measured` of a run must be at most `bound` (or at least, if `at_least`)."""

    name: str
    bound: float
    measured: Callable[[Run], Spread]
    at_least: bool = False
    unit: str = "×"
    limited_by: Callable[[Run], str] | None = None

    def why(self, run: Run) -> str:
        """The factor that limits the result, if known."""
        return self.limited_by(run) if self.limited_by else ""

    def met(self, run: Run) -> bool:
        value = self.measured(run).median
        return value >= self.bound if self.at_least else value <= self.bound


def ours(other: Callable[[Run], str] | str) -> Callable[[Run], Spread]:
    """Wasmtime's cost of the header filter relative to another way's."""
    return lambda run: run.ratio("ladder", "wasmtime", other if isinstance(other, str) else other(run))


def theirs(other: Callable[[Run], str] | str) -> Callable[[Run], Spread]:
    """Another way's cost relative to Wasmtime's."""
    return lambda run: run.ratio("ladder", other if isinstance(other, str) else other(run), "wasmtime")


def single(value: float) -> Spread:
    return Spread(value, value, value)


def from_cache(run: Run) -> Spread:
    cached = run.of(f"load/load from the cache: {LARGE}", "wasmtime")
    return Spread(cached.median * 1e3, cached.low * 1e3, cached.high * 1e3)


def from_cache_of_compiling(run: Run) -> Spread:
    compiled = run.of(f"load/compile: {LARGE}", "wasmtime").median
    cached = run.of(f"load/load from the cache: {LARGE}", "wasmtime")
    return Spread(cached.median / compiled, cached.low / compiled, cached.high / compiled)


def fit(what: str) -> Callable[[Run], Spread]:
    return lambda run: single(run.line(what, "wasmtime").fit)


def furthest(what: str) -> Callable[[Run], str]:
    """A description of the point furthest from the line, with the spread of its samples."""

    def why(run: Run) -> str:
        line = run.line(what, "wasmtime")
        costs = dict(run.points(what, "wasmtime"))
        off = {number: cost.median / (line.offset + line.slope * number) - 1 for number, cost in costs.items()}
        number = max(off, key=lambda number: abs(off[number]))
        cost = costs[number]
        return (
            f"the point of {number} {what} is {off[number]:+.0%} off the line; "
            f"half of its samples are within {(cost.high - cost.low) / cost.median:.0%}"
        )

    return why


def linear(what: str) -> Target:
    name = f"cost grows linearly with {what}: R² of the fit"
    return Target(name, LINEAR, fit(what), at_least=True, unit="", limited_by=furthest(what))


def microseconds(run: Run, way: str) -> str:
    return f"{run.of('ladder', way).median * 1e6:.1f} µs"


def crossings(run: Run, engine: str) -> str:
    """The cost of the engine's own calls, next to Wasmtime's."""
    ways = ("host → guest", "guest → host")
    costs = [
        f"{way} {run.of(f'crossing/{way}', engine).median * 1e6:.2f} µs, "
        f"on Wasmtime {run.of(f'crossing/{way}', 'wasmtime').median * 1e6:.2f} µs"
        for way in ways
    ]
    return f"its calls: {'; '.join(costs)}"


TARGETS = (
    Target(
        "header filter on Wasmtime, relative to the Rust baseline",
        3,
        ours("rust"),
        limited_by=lambda run: (
            f"the Rust baseline, {microseconds(run, 'rust')}, has no streams, checks nothing and makes no Python "
            "objects; here a stream without filters takes "
            f"{run.of('request/no filter', 'wasmtime').median * 1e6:.1f} µs, "
            f"and a further filter {microseconds(run, 'further')}"
        ),
    ),
    Target(
        "header filter on Wasmtime, relative to a further filter in Envoy",
        0.5,
        ours("envoy-further"),
        limited_by=lambda run: (
            "the first filter includes the cost of the stream; a further one costs "
            f"{microseconds(run, 'further')} here, {microseconds(run, 'envoy-further')} in Envoy"
        ),
    ),
    Target(
        "header filter on Wasmtime, relative to LuaJIT through lupa",
        1,
        ours(lambda run: run.cheapest(LUPA)),
        limited_by=lambda run: (
            "Lua shares the host's memory, and needs no stream, no limits and no guest allocations: "
            f"{microseconds(run, run.cheapest(LUPA))} a request"
        ),
    ),
    Target(
        "naive wasmtime-py, relative to ours",
        100,
        theirs("naive"),
        at_least=True,
        limited_by=lambda run: f"it takes {microseconds(run, 'naive')}, ours {microseconds(run, 'wasmtime')}",
    ),
    Target(
        "the fastest plugin server, relative to ours",
        50,
        theirs(lambda run: run.cheapest(PLUGIN_SERVERS)),
        at_least=True,
        limited_by=lambda run: (
            f"the fastest is {run.cheapest(PLUGIN_SERVERS)}; the fastest of a real PDK is "
            f"{run.ratio('ladder', run.cheapest(PLUGIN_SERVERS[:2]), 'wasmtime').median:.0f} × ours"
        ),
    ),
    *(
        Target(
            f"{name.title()}, relative to Wasmtime",
            bound,
            lambda run, name=name: run.ratio("ladder", name, "wasmtime"),
            limited_by=lambda run, name=name: crossings(run, name),
        )
        for name, bound in (("wasmer", 1.3), ("v8", 2))
        if name in ENGINES
    ),
    Target(
        "1 MiB body read and replaced, relative to two memcpy",
        3,
        lambda run: run.ratio("body/body of 1 MiB", "wasmtime", "two memcpy"),
        limited_by=lambda run: (
            f"of {run.of('body/body of 1 MiB', 'wasmtime').median * 1e6:.0f} µs, "
            f"{run.of('body/body of 1 KiB', 'wasmtime').median * 1e6:.0f} µs are also needed for a body of 1 KiB"
        ),
    ),
    Target(
        "a Go filter of 6.5 MB loaded from the cache",
        60,
        from_cache,
        unit="ms",
        limited_by=lambda run: (
            "the bytecode is hashed, and the compiled code, twice as large, is read, authenticated and mapped; this is "
            f"wall-clock time, at a load of {run.machine['load'][0]} on {run.machine['processors']} processors"
        ),
    ),
    Target("the same, relative to compiling it", 1 / 20, from_cache_of_compiling),
    Target(
        "ten typical tests of a filter on Wasmtime, with the start of pytest",
        1,
        lambda run: run.of("testing/wasmtime", "in all"),
        unit="s",
        limited_by=lambda run: (
            f"the tests take {run.of('testing/wasmtime', 'alone').median:.2f} s of it; this is wall-clock time"
        ),
    ),
    linear("filters"),
    linear("headers"),
    linear("body bytes"),
    Target(
        "two processes serve, relative to one",
        1.8,
        lambda run: run.ratio("scaling/processes/wasmtime", "1", "2"),
        at_least=True,
        limited_by=lambda run: (
            f"two processes that do the work as a Python function serve "
            f"{run.ratio(f'scaling/processes/{CONTROL}', '1', '2').median:.2f} × one, for lack of free processor time"
        ),
    ),
)
