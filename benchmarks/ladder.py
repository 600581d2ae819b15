"""The ways to extend a gateway, side by side: the same work, from the floor up.

    python -m benchmarks.ladder [ROUNDS]

prints the headline: what one request costs each way in this interpreter, and how many times the floor that is.
"""

from __future__ import annotations

import platform
import sys
from collections.abc import Callable, Container, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from importlib.metadata import entry_points

from benchmarks.timing import Effort, InProcess, Timed, interleaved, ratio, spread
from benchmarks.ways import envoy, floor, lua, naive, native, plugin_server, proxywasm
from benchmarks.ways.extensionless import extensionless

INSTALLED = {entry.name for entry in entry_points(group="proxywasm_host.engines")}
ENGINES = tuple(name for name in ("wasmtime", "wasmer", "v8") if name in INSTALLED)


@contextmanager
def prototype() -> Iterator[InProcess]:
    from benchmarks.ways import prototype  # noqa: PLC0415 - opens an engine of its own

    yield InProcess(prototype.one_request)


@dataclass(frozen=True)
class Way:
    """One way. `open` makes it ready to be repeated."""

    name: str
    what: str
    open: Callable[[], AbstractContextManager[Timed]]


WAYS: tuple[Way, ...] = (
    Way("rust", "Rust embedding of Wasmtime, without Python, checks or limits: the floor", floor.floor),
    *(Way(name, f"this host on {name.title()}", partial(proxywasm.proxywasm, name)) for name in ENGINES),
    Way("python-only", "this host on Wasmtime, without its C extension", partial(extensionless, "wasmtime")),
    Way("prototype", "Wasmtime over ctypes, barest handlers in Python, no checks", prototype),
    Way("naive", "wasmtime-py's objects, as its documentation shows them", naive.naive),
    Way("python", "Python function, no sandbox", native.native),
    Way("luajit", "LuaJIT alone, without Python", lua.alone),
    Way("lupa-lua", "LuaJIT through lupa, `kong` in Lua", lua.lua_headers),
    Way("lupa-python", "LuaJIT through lupa, `kong` in Python", lua.python_headers),
    Way("kong-python", "Kong's plugin server in Python", plugin_server.python),
    Way("kong-javascript", "Kong's plugin server in JavaScript", plugin_server.javascript),
    Way("kong-rust", "stand-in for Kong's plugin server in Go", plugin_server.stand_in),
)

# Envoy's sides are differences between listeners (see `envoy`): what is added by (one listener, to another, how often).
ENVOY: dict[str, tuple[str, tuple[str, str, int]]] = {
    "envoy": ("Envoy (V8), the first filter: processor time", ("wasm", "none", 1)),
    "envoy-further": ("Envoy (V8), a further filter: processor time", ("chain", "wasm", envoy.FURTHER)),
    "envoy-lua": ("Envoy's Lua filter: processor time", ("lua", "none", 1)),
    "envoy-native": ("Envoy's header mutation: processor time", ("native", "none", 1)),
}

WHAT = {**{way.name: way.what for way in WAYS}, **{name: what for name, (what, _) in ENVOY.items()}}


def measure(effort: Effort, names: Container[str] | None = None) -> dict[str, list[float]]:
    """Seconds for one request each way, round by round; `names` are those of some ways, without Envoy."""
    if names is not None:
        with ExitStack() as stack:
            return interleaved({way.name: stack.enter_context(way.open()) for way in WAYS if way.name in names}, effort)
    with ExitStack() as stack:
        listeners = stack.enter_context(envoy.envoy())
        sides: dict[str, Timed] = {way.name: stack.enter_context(way.open()) for way in WAYS}
        # The listeners stand beside each other, so that their differences are those of one moment.
        samples = interleaved({**sides, **{f"envoy {name}": one for name, one in listeners.items()}}, effort)
    raw = {name: samples.pop(f"envoy {name}") for name in listeners}
    for name, (_, (more, less, times)) in ENVOY.items():
        samples[name] = [(a - b) / times for a, b in zip(raw[more], raw[less], strict=True)]
    return samples


def main() -> None:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 15
    samples = measure(Effort(rounds, 0.02, warm_up=0.1))
    print(f"{platform.python_implementation()} {platform.python_version()}, {sys.executable}")
    print(f"{'':16} {'µs':>8} {'iqr':>7} {'× rust':>8} {'× wasmtime':>10}")
    for name, what in WHAT.items():
        own = samples[name]
        middle, rust, ours = spread(own), ratio(own, samples["rust"]), ratio(own, samples["wasmtime"])
        numbers = f"{middle.median * 1e6:8.2f} {middle.iqr * 1e6:7.2f} {rust.median:8.1f} {ours.median:10.2f}"
        print(f"{name:16} {numbers}   {what}")


if __name__ == "__main__":
    main()
