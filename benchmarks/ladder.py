"""The ways to extend a gateway, side by side, with the same work.

    python -m benchmarks.ladder [ROUNDS]

prints the headline: the cost of one request in each way in this interpreter, and its ratio to the Rust baseline.
"""

from __future__ import annotations

import platform
import sys
from collections.abc import Callable, Container, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from importlib.metadata import entry_points

from benchmarks.contenders import envoy, lua, naive, native, plugin_server, proxywasm, rust_baseline
from benchmarks.contenders.envoy import FURTHER
from benchmarks.contenders.extensionless import extensionless
from benchmarks.timing import Effort, InProcess, Timed, interleaved, ratio, spread

INSTALLED = {entry.name for entry in entry_points(group="proxywasm_host.engines")}
ENGINES = tuple(name for name in ("wasmtime", "wasmer", "v8") if name in INSTALLED)


@contextmanager
def prototype() -> Iterator[InProcess]:
    from benchmarks.contenders import prototype  # noqa: PLC0415 - opens an engine of its own

    yield InProcess(prototype.one_request)


@dataclass(frozen=True)
class Contender:
    """One way to do the work. `open` prepares it for repetitions."""

    name: str
    what: str
    open: Callable[[], AbstractContextManager[Timed]]


CONTENDERS: tuple[Contender, ...] = (
    Contender(
        "rust",
        "Rust embedding of Wasmtime, without Python, checks or limits: the baseline",
        rust_baseline.rust_baseline,
    ),
    *(Contender(name, f"this host on {name.title()}", partial(proxywasm.proxywasm, name)) for name in ENGINES),
    Contender("python-only", "this host on Wasmtime, without its C extension", partial(extensionless, "wasmtime")),
    Contender("prototype", "Wasmtime through ctypes, barest handlers in Python, no checks", prototype),
    Contender("naive", "wasmtime-py's objects, as in its documentation", naive.naive),
    Contender("python", "Python function, no sandbox", native.native),
    Contender("luajit", "LuaJIT alone, without Python", lua.standalone),
    Contender("lupa-lua", "LuaJIT through lupa, `kong` in Lua", lua.lua_headers),
    Contender("lupa-python", "LuaJIT through lupa, `kong` in Python", lua.python_headers),
    Contender("kong-python", "Kong's plugin server in Python", plugin_server.python),
    Contender("kong-javascript", "Kong's plugin server in JavaScript", plugin_server.javascript),
    Contender("kong-rust", "stand-in for Kong's plugin server in Go", plugin_server.rust),
)


@dataclass(frozen=True)
class Difference:
    """A way whose cost is the difference between two sides, divided by the number of filters."""

    name: str
    what: str
    more: str
    less: str
    filters: int = 1


DIFFERENCES = (
    Difference("further", "this host on Wasmtime, a further filter", "chain", "wasmtime", FURTHER),
    Difference("envoy", "Envoy (V8), the first filter", "envoy wasm", "envoy none"),
    Difference("envoy-further", "Envoy (V8), a further filter", "envoy chain", "envoy wasm", FURTHER),
    Difference("envoy-in-python", "Envoy (V8), a filter in Python", "envoy python", "envoy none"),
    Difference("envoy-lua", "Envoy's Lua filter", "envoy lua", "envoy none"),
    Difference("envoy-native", "Envoy's header mutation", "envoy native", "envoy none"),
)

WHAT = {way.name: way.what for way in (*CONTENDERS, *DIFFERENCES)}


def measure(effort: Effort, names: Container[str] | None = None) -> dict[str, list[float]]:
    """Seconds for one request in each way, round by round. `names` limits it to some ways, without differences."""
    with ExitStack() as stack:
        sides: dict[str, Timed] = {}
        for way in CONTENDERS:
            if names is None or way.name in names:
                sides[way.name] = stack.enter_context(way.open())
        if names is not None:
            return interleaved(sides, effort)
        listeners = stack.enter_context(envoy.envoy())
        sides["chain"] = stack.enter_context(proxywasm.proxywasm("wasmtime", 1 + FURTHER))
        samples = interleaved({**sides, **{f"envoy {name}": one for name, one in listeners.items()}}, effort)
    for one in DIFFERENCES:
        pairs = zip(samples[one.more], samples[one.less], strict=True)
        samples[one.name] = [(more - less) / one.filters for more, less in pairs]
    return {name: samples[name] for name in WHAT}


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
