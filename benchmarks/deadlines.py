"""How long guests run past their deadline: ``python -m benchmarks.deadlines [--engine NAME[:ROUTE]] [FAMILY …]``.

Each family is a filter that never returns: the endless ones of `tests/hostile`, those that V8 would not interrupt by
itself, and functions that V8 optimises while they run, each about as expensive as the limits allow. Each round loads
the filter again, because V8 keeps optimised code.

It prints two figures for each: the time from the deadline until the call returned, and the processor time of the
process in it, which depends less on other processes. On a busy machine, put ``chrt --rr 10`` (as root) in front of the
command.
"""

from __future__ import annotations

import argparse
import os
import re
import statistics
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress

from proxywasm_host import Host, Limits, ModuleError, ModuleLimits, Services, open_engine
from proxywasm_host.abi.module_limits import check_code
from proxywasm_host.engine.protocol import Engine
from proxywasm_host.wasm import Binary
from tests.engines.v8.test_bulk import ENDLESS as RANGES
from tests.hostile.conftest import HEAD
from tests.hostile.test_traps import ENDLESS, PATH
from tests.support import REQUEST, Lines, wat

__all__ = ["FAMILIES", "late", "main"]

WAYS = ("wasmtime", "v8:in-thread", "v8:mini-racer", "wasmer")
DEADLINE = 0.25
PROMISED = 0.05
BIG = 62 << 20
PAUSE = 0.15
"""Seconds before each guest: Linux takes 0.05 of each second from a real-time process that does not sleep."""
NO_LIMITS = dict.fromkeys(("body", "calls", "loops", "merges", "all_merges", "optimising", "all_optimising"))
AT_ONCE = 12
"""The number of functions that become hot in sequence, so that the deadline passes while one of them is optimised."""
LOCALS = 40


SHAPES = {
    "arithmetic": "(local.set {a} (i32.add (local.get {b}) (i32.load (local.get 0))))",
    "stores": "(i32.store offset={n} (local.get 0) (local.get {a}))",
    "divisions": "(local.set {a} (i32.div_s (local.get {b}) (i32.load (local.get 0))))",
    "calls": "(local.set {a} (call $one (local.get {c})))",
    "indirect calls": "(local.set {a} (call_indirect (param i32) (result i32) (local.get {c}) (i32.const 0)))",
    "branches": "(block (br_if 0 (i32.load (local.get {a}))) (local.set {c} (i32.const {a})))",
    "choices": "(if (local.get {a}) (then (local.set {c} (local.get {b}))))",
    "loops": "(loop (local.set {a} (i32.add (local.get {b}) (i32.const 1))) (br_if 0 (local.get {c})))",
    "switches": """(block (block (block (br_table 0 1 2 (local.get {a}))) (local.set {c} (i32.const 1)))
      (local.set {b} (i32.const 2)))""",
}
"""The parts that functions for V8's optimiser consist of, formatted with the part's number and three of its locals."""
FUNCTION = """(func $f{number} (param i32) (result i32) (local {locals})
  (if (i32.eqz (local.get 0)) (then (return (i32.const 7)))) {body} (local.get 1))"""
HOT = """(local.set $n (i32.const 300000)) (loop $h (drop (call $f{number} (i32.const 0)))
  (br_if $h (local.tee $n (i32.sub (local.get $n) (i32.const 1)))))"""


def _part(shape: str, number: int) -> str:
    a, b, c = (1 + number * factor % LOCALS for factor in (1, 3, 7))
    return SHAPES[shape].format(n=4 * number, a=a, b=b, c=c)


def _guest(body: str, more: str = "", imports: str = "", memory: str = '(memory (export "memory") 2)') -> bytes:
    return wat(HEAD.format(imports=imports, memory=memory, allocate="(i32.const 1024)", more=more, body=body))


def _hostcall(name: str) -> bytes:
    body, imports, memory = ENDLESS[name]
    more = PATH if "env" in imports else ""
    return _guest(f"(loop $l {body} (br $l))", more, imports, memory or '(memory (export "memory") 2)')


def _range(name: str) -> bytes:
    text = RANGES[name].format(BIG=BIG).replace("900000", "90000")
    data = "a" * 4_000_000 if "$d" in text else ""
    elements = "$one " * 90_000 if "$e" in text else ""
    more = f"""(table $t 90001 funcref) (table $x 90000 externref) (data $d "{data}") (elem $e func {elements})
      (func $one) (export "one" (func $one))"""
    return _guest(f"(loop $l {text.replace('$f', '$one')} (br $l))", more, memory='(memory (export "memory") 993)')


def _with_functions(shape: str, units: int, count: int) -> bytes:
    body = " ".join(_part(shape, number) for number in range(units))
    functions = " ".join(FUNCTION.format(number=number, locals="i32 " * LOCALS, body=body) for number in range(count))
    more = f"(table 1 funcref) (elem (i32.const 0) $one) (func $one (param i32) (result i32) (local.get 0)) {functions}"
    calls = " ".join(HOT.format(number=number) for number in range(count))
    return _guest(f"(loop $l {calls} (br $l))", more, memory='(memory (export "memory") 20)')


def _optimising(shape: str) -> bytes:
    """A filter with functions of a shape, each as large as possible without being optimised in advance."""
    most, units = 1 << 16, 0
    while most:  # the largest number of units whose estimate is small enough, bit by bit
        code = check_code(Binary(_with_functions(shape, units + most, 1)), ModuleLimits(**NO_LIMITS))
        if code is not None and not code.slow:
            units += most
        most >>= 1
    return _with_functions(shape, units, AT_ONCE)


FAMILIES: dict[str, Callable[[], bytes]] = {
    **{f"loop: {name}": lambda name=name: _hostcall(name) for name in ENDLESS},
    **{f"range: {name}": lambda name=name: _range(name) for name in RANGES},
    **{f"optimised: {name}": lambda name=name: _optimising(name) for name in SHAPES},
}


class _Watch:
    """Records the processor time of the process at a deadline."""

    def __init__(self, seconds: float) -> None:
        self._until = time.perf_counter() + seconds
        self._used = time.process_time()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        # Recorded last just before the deadline, since this thread may have to wait for the processor after it.
        while (left := self._until - time.perf_counter()) > 0:
            self._used = time.process_time()
            time.sleep(0.02 if left > 0.05 else 0.001)

    def after(self) -> tuple[float, float]:
        """Seconds since the deadline, and of processor time."""
        passed, used = max(time.perf_counter() - self._until, 0.0), time.process_time()
        self._thread.join()
        return passed, min(passed, used - self._used)


def late(engine: Engine, module: bytes) -> tuple[float, float]:
    """Seconds that the filter runs past its deadline, and seconds of processor time in them. Raises: ModuleError."""
    name = os.urandom(8).hex().encode()
    fresh = module + bytes([0, len(name) + 1, len(name)]) + name  # not in any cache
    services = Services(log=Lines(), clusters={"up"})
    time.sleep(PAUSE)
    with Host(engine, services=services, limits=Limits(memory=128 << 20, deadline=DEADLINE)) as host:
        plugin = host.load_plugin(fresh, name="late")
        with host.http_stream([plugin]) as stream:
            watch = _Watch(DEADLINE)
            stream.request_headers(REQUEST)
            found = watch.after()
        assert plugin.failure is not None
        assert "deadline" in plugin.failure.message, plugin.failure.message
    return found


def _opened(way: str) -> Engine:
    name, _, route = way.partition(":")
    if route:
        os.environ[f"PROXYWASM_{name.upper()}_ROUTE"] = route
    return open_engine(name)


def _lines(way: str, names: Sequence[str], rounds: int) -> Iterator[str]:
    engine = _opened(way)
    for name in names:
        module = FAMILIES[name]()
        try:
            found = [late(engine, module) for _ in range(rounds)]
        except ModuleError as error:
            yield f"| {way} | {name} | refused: {str(error)[:80]} | | | |"
            continue
        figures = [f(part) for part in zip(*found, strict=True) for f in (statistics.median, max)]
        mark = " **more**" if figures[3] > PROMISED else ""
        yield f"| {way} | {name} | {' | '.join(f'{1e3 * figure:.1f}' for figure in figures)}{mark} |"


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, and print a Markdown table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.deadlines", description=__doc__.split("\n", 1)[0])
    engines = f"one of {', '.join(WAYS)} (default: all)"
    parser.add_argument("--engine", action="append", metavar="NAME[:ROUTE]", help=engines)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("families", nargs="*", metavar="FAMILY", help="regular expressions for names (default: all)")
    given = parser.parse_args(arguments)
    wanted = given.families or [""]
    names = [name for name in FAMILIES if any(re.search(pattern, name) for pattern in wanted)]
    print(f"Milliseconds past a deadline of {DEADLINE} s; the promised limit is {PROMISED * 1e3:.0f}.\n")
    print("| engine | family | median | worst | median, processor | worst, processor |\n|---|---|--:|--:|--:|--:|")
    for way in given.engine or WAYS:
        for line in _lines(way, names, given.rounds):
            print(line, flush=True)


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        main()
