"""The ways to extend a gateway, side by side: the same work, from the floor up.

    python -m benchmarks.ladder [ROUNDS]

prints the headline: what one request costs each way in this interpreter, and how many times the floor that is.
"""

from __future__ import annotations

import platform
import sys
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from importlib.metadata import entry_points
from typing import Any

from benchmarks.timing import InProcess, Timed, interleaved, ratio, spread
from benchmarks.ways import floor, lua, naive, native, proxywasm

ENGINES = sorted({entry.name for entry in entry_points(group="proxywasm_host.engines")})


@contextmanager
def prototype() -> Any:
    from benchmarks.ways import prototype  # noqa: PLC0415 - opens an engine of its own

    yield InProcess(prototype.one_request)


@dataclass(frozen=True)
class Way:
    """One way. `open` makes it ready to be repeated."""

    name: str
    what: str
    open: Callable[[], AbstractContextManager[Timed]]


WAYS: tuple[Way, ...] = (
    Way("rust", "a Rust embedding of Wasmtime, without Python, checks or limits: the floor", floor.floor),
    *(Way(name, f"a filter in this host, on {name}", partial(proxywasm.proxywasm, name)) for name in ENGINES),
    Way("prototype", "Wasmtime over ctypes with the barest handlers in Python", prototype),
    Way("naive", "Wasmtime through the objects of wasmtime-py", naive.naive),
    Way("python", "a Python function, without a sandbox", native.native),
    Way("luajit", "LuaJIT alone, without Python", lua.alone),
    Way("lupa-lua", "LuaJIT through lupa, `kong` in Lua", lua.lua_headers),
    Way("lupa-python", "LuaJIT through lupa, `kong` in Python", lua.python_headers),
)


def measure(ways: Iterable[Way], rounds: int, seconds: float) -> dict[str, list[float]]:
    """Seconds for one request each way, round by round."""
    with ExitStack() as stack:
        sides = {way.name: stack.enter_context(way.open()) for way in ways}
        return interleaved(sides, rounds, seconds)


def main() -> None:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 21
    samples = measure(WAYS, rounds, 0.02)
    print(f"{platform.python_implementation()} {platform.python_version()}, {sys.executable}")
    print(f"{'':12} {'µs':>9} {'iqr':>7} {'× rust':>8} {'× wasmtime':>10}")
    for way in WAYS:
        own = samples[way.name]
        middle, rust, ours = spread(own), ratio(own, samples["rust"]), ratio(own, samples["wasmtime"])
        print(
            f"{way.name:12} {middle.median * 1e6:9.2f} {middle.iqr * 1e6:7.2f} {rust.median:8.1f} {ours.median:10.2f}"
        )


if __name__ == "__main__":
    main()
