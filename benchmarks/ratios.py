"""The claims of speed, as ratios within one run: prints each beside its bound.

    python benchmarks/ratios.py [ROUNDS]

Both sides of a ratio are timed in turn, round by round, so that a slow moment of the machine meets both.
"""

from __future__ import annotations

import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from benchmarks.exchange import chain, one_request
from proxywasm_host import Host

REQUESTS = 1000


def microseconds(call: Callable[[], object], times: int = REQUESTS) -> float:
    """Mean time of a call."""
    start = time.perf_counter()
    for _ in range(times):
        call()
    return (time.perf_counter() - start) / times * 1e6


def prototype_ratio(rounds: int) -> None:
    from benchmarks import prototype  # noqa: PLC0415 - opens an engine of its own

    with Host() as host:
        plugins = chain(host, 1)
        pairs = [
            (microseconds(lambda: prototype.one_request(2)), microseconds(lambda: one_request(host, plugins)))
            for _ in range(rounds)
        ]
    ratios = [ours / theirs for theirs, ours in pairs]
    theirs, ours = (statistics.median(side) for side in zip(*pairs, strict=True))
    print(f"header filter: {ours:.1f} µs, the prototype {theirs:.1f} µs, ratio {statistics.median(ratios):.2f} (≤ 1.6)")


def chain_costs(rounds: int) -> None:
    sizes = (1, 2, 4, 8, 16)
    with Host() as host:
        plugins = chain(host, max(sizes))
        rows = [
            [microseconds(lambda n=n: one_request(host, plugins[:n]), REQUESTS // n) for n in sizes]  # type: ignore[misc]
            for _ in range(rounds)
        ]
    costs = [statistics.median(column) for column in zip(*rows, strict=True)]
    slope, offset = statistics.linear_regression(sizes, costs)
    correlation = statistics.correlation(sizes, costs)
    print(f"chains of {sizes}: {', '.join(f'{cost:.0f}' for cost in costs)} µs")
    print(f"  {offset:.1f} µs + {slope:.1f} µs for each filter, correlation {correlation:.4f} (linear: ≥ 0.99)")


def import_time(rounds: int) -> None:
    for statement, bound in ("import proxywasm_host", " (< 50)"), ("from proxywasm_host import Host", ""):
        script = f"import time; t = time.perf_counter(); {statement}; print((time.perf_counter() - t) * 1e3)"
        times = [
            float(subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True).stdout)
            for _ in range(rounds)
        ]
        print(f"{statement}: {statistics.median(times):.0f} ms{bound}")


def main() -> None:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 9
    print(f"{platform.python_implementation()} {platform.python_version()}, {sys.executable}")
    import_time(rounds)
    prototype_ratio(rounds)
    chain_costs(rounds)


if __name__ == "__main__":
    main()
