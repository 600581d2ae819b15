"""Measure everything and write the report.

    benchmarks/report                          writes docs/benchmarks.md and its plots, in a quarter of an hour at most
    benchmarks/report --quick                  writes the same into .benchmarks/, in two minutes, as a check
    benchmarks/report --headline               prints the ratios that matter most, in some seconds
    benchmarks/report --compare OLD.json NEW.json

Everything is measured in the fastest CPython of the machine, and the header filter also in newer ones.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.compare import compare
from benchmarks.document import document
from benchmarks.draw import draw
from benchmarks.interpreters import ROOT, Interpreter, environment, found
from benchmarks.run import Run

SCRATCH = ROOT / ".benchmarks"


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="benchmarks/report", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="measure few rounds, and only in the fastest interpreter")
    parser.add_argument("--headline", action="store_true", help="measure and print only the ways to extend a gateway")
    parser.add_argument("--here", action="store_true", help="measure in this interpreter, even if another is faster")
    parser.add_argument("--output", type=Path, metavar="FOLDER", help="where to write the report, instead of docs/")
    parser.add_argument("--json", type=Path, metavar="FILE", help="where to write the results, for --compare")
    parser.add_argument(
        "--from", dest="source", type=Path, metavar="FILE", help="use results of --json instead of measuring"
    )
    parser.add_argument("--compare", nargs=2, type=Path, metavar=("OLD", "NEW"), help="compare results of --json")
    options = parser.parse_args()
    if options.compare:
        print(*compare(*map(Run.read, options.compare)), sep="\n")
        return
    output = options.output or (SCRATCH if options.quick else ROOT / "docs")
    source = options.source or measure(options)
    if source is None:
        return
    run = Run.read(source)
    output.mkdir(parents=True, exist_ok=True)
    draw(run, output / "benchmarks")
    (output / "benchmarks.md").write_text(document(run, "benchmarks"), encoding="utf-8")
    print(f"The report is in {output / 'benchmarks.md'}.")


def measure(options: argparse.Namespace) -> Path | None:
    """Measure, and return the file with the results; ``None`` if only the headline was requested."""
    interpreters = found()
    print(*(f"CPython {one.name}: {one.seconds * 1e3:.2f} ms for a loop" for one in interpreters), sep="\n")
    python = Path(sys.executable) if options.here else next(filter(None, map(ready, interpreters)))
    if options.headline:
        subprocess.run([python, "-m", "benchmarks.ladder"], cwd=ROOT, check=True)
        return None
    run = measured(python, *["--quick"] * options.quick)
    if not options.quick:
        others = {one.name: ready(one) for one in newer(interpreters)}
        run["beside"] = {name: measured(other, "--ladder") for name, other in others.items() if other}
    output: Path = options.json or SCRATCH / "run.json"
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(json.dumps(run), encoding="utf-8")
    return output


def ready(interpreter: Interpreter) -> Path | None:
    """The program of an environment for `interpreter`; ``None``, with a message, if it cannot be set up."""
    try:
        return environment(interpreter)
    except subprocess.CalledProcessError as error:
        print(f"CPython {interpreter.name} is left out: {error}", file=sys.stderr)
        return None


def newer(interpreters: list[Interpreter]) -> list[Interpreter]:
    """The fastest interpreter of each version of Python that is newer than the fastest of all."""
    first = interpreters[0]
    chosen: dict[tuple[int, ...], Interpreter] = {}
    for one in interpreters:
        if one.version[:2] > first.version[:2]:
            chosen.setdefault(one.version[:2], one)
    return sorted(chosen.values(), key=lambda one: one.version)


def measured(python: Path, *flags: str) -> dict[str, Any]:
    """Run `benchmarks.measure` in an interpreter, and return its results."""
    with tempfile.NamedTemporaryFile(suffix=".json") as file:
        subprocess.run([python, "-m", "benchmarks.measure", file.name, *flags], cwd=ROOT, check=True)
        return dict(json.load(file))


if __name__ == "__main__":
    main()
