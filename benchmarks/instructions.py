"""Compares the cost of each row of the workloads with another revision, in instructions or processor time.

    python -m benchmarks.instructions --base REVISION [--engine ENGINE] [ROW …]

Both sides run their own code and their own rows, with the same libraries. The base is built in a temporary directory.
Callgrind (Debian's package valgrind) counts the instructions, so other load on the machine hardly matters. ``--time``
compares seconds of processor time in alternating rounds instead, for rows that Callgrind cannot run.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import venv
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.ladder import ENGINES
from benchmarks.timing import Spread, ratio
from benchmarks.workloads.table import WORKLOADS

__all__ = ["Row", "main", "table"]

ROOT = Path(__file__).resolve().parents[1]
COUNTED, TIMED = 100e6, 0.3
"""The instructions, or the seconds, for which a row is repeated."""
MOST = 20_000
"""The limit of repetitions."""
WORSE = 1.05
"""Ratios above this are marked."""
SUFFIXES = ((1e9, "G"), (1e6, "M"), (1e3, "k"))


@dataclass
class Row:
    """A workload with the cost of a repetition on both sides, in each round; or the reason why it has none."""

    name: str
    base: list[float] = field(default_factory=list)
    ours: list[float] = field(default_factory=list)
    problem: str = ""

    @property
    def ratio(self) -> Spread:
        """Our cost relative to the base, over the rounds."""
        return ratio(self.ours, self.base)


def table(rows: Sequence[Row], unit: str) -> Iterator[str]:
    """The lines of a Markdown table, and a sentence. `unit` is that of the costs: "instructions" or "s"."""
    yield f"| row | base ({unit}) | here ({unit}) | ratio | |"
    yield "|---|--:|--:|--:|---|"
    for row in rows:
        if row.problem:
            yield f"| {row.name} | | | | {row.problem} |"
            continue
        base, ours = min(row.base), min(row.ours)
        found = row.ratio
        spread = f"{found.low:.3f} – {found.high:.3f}" if len(row.base) > 1 else ""
        notes = " ".join(filter(None, (spread, "**worse**" if found.median > WORSE else "")))
        yield f"| {row.name} | {_short(base)} | {_short(ours)} | {found.median:.3f} | {notes} |"
    worse = [row.name for row in rows if not row.problem and row.ratio.median > WORSE]
    compared = sum(not row.problem for row in rows)
    yield ""
    beyond = f"{len(worse)} of them above {WORSE} ×: {', '.join(worse)}" if worse else f"none of them above {WORSE} ×"
    yield f"{compared} rows were compared, {beyond}."


def _short(cost: float) -> str:
    for least, suffix in SUFFIXES:
        if cost >= least:
            return f"{cost / least:.3g} {suffix}"
    return f"{cost:.3g}"


class Side:
    """A process that repeats the rows of one revision."""

    def __init__(self, name: str, tree: Path, python: Path, engine: str, counter: Path | None, scratch: Path) -> None:
        command: list[str | Path] = [python, "-c", (ROOT / "benchmarks" / "rows.py").read_text(), engine]
        if counter is not None:
            file = scratch / f"{name}.callgrind"
            # Engines modify their generated code in place.
            options = ("--instr-atstart=no", "--smc-check=all-non-file", f"--callgrind-out-file={file}")
            command = ["valgrind", "--quiet", "--tool=callgrind", *options, *command, counter, file]
        environment = {**os.environ, "PYTHONHASHSEED": "0", "PYTHONPATH": str(tree)}
        self.log = scratch / f"{name}.log"
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                command, cwd=tree, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True
            )

    def ask(self, word: str | int) -> dict[str, float | str]:
        """Send it a line, and return its answer. Raises: SystemExit, if it has ended."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        try:
            self.process.stdin.write(f"{word}\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            pass
        line = self.process.stdout.readline()
        if not line:
            sys.exit(f"the process that repeats the rows has ended:\n{self.log.read_text()[-2000:]}")
        found: dict[str, float | str] = json.loads(line)
        return found

    def close(self) -> None:
        """End the process."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()


def measured(name: str, base: Side, ours: Side, rounds: int, enough: float) -> Row:
    """Open a row on both sides, and repeat it on each in turn."""
    row = Row(name)
    for side, where in ((base, "the base"), (ours, "this revision")):
        if error := side.ask(name).get("error"):
            row.problem = f"not opened by {where}: {str(error)[:100]}"
            return row
    times = 1
    while (cost := float(ours.ask(times)["cost"])) * times < enough / 8 and times < MOST:
        times *= 8
    times = max(1, min(MOST, int(enough / cost)))
    for number in range(rounds):
        sides = ((base, row.base), (ours, row.ours))
        for side, costs in sides if number % 2 else sides[::-1]:
            costs.append(float(side.ask(times)["cost"]))
    return row


@contextmanager
def built(revision: str, engine: str, kept: Path | None) -> Iterator[tuple[Path, Path]]:
    """Build a tree of the base; yield it and its interpreter, which has our environment's libraries. `kept` is the
    folder for the build, if a later run is to use it again."""
    with tempfile.TemporaryDirectory() as temporary:
        place = kept or Path(temporary)
        tree, environment = place / "tree", place / "environment"
        python = environment / "bin" / "python"
        if not (place / "ready").exists():
            shutil.rmtree(place, ignore_errors=True)
            tree.mkdir(parents=True)
            archive = subprocess.run(["git", "archive", revision], cwd=ROOT, check=True, stdout=subprocess.PIPE)
            subprocess.run(["tar", "-x"], cwd=tree, input=archive.stdout, check=True)
            print(f"Building {revision}, about a minute.", file=sys.stderr)
            venv.create(environment)
            packages = Path(sysconfig.get_path("purelib", vars={"base": str(environment)}))
            # The .pth files in our environment have no effect there, so editable packages of ours stay out.
            (packages / "shared.pth").write_text(sysconfig.get_path("purelib"))
            install = [sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--no-deps"]
            parts = [".", *(f"engines/{name}" for name in ("wasmtime", "v8"))]
            subprocess.run([*install, *(word for part in parts for word in ("--editable", part))], cwd=tree, check=True)
            if engine == "wasmer":
                subprocess.run([sys.executable, "engines/wasmer/build", python], cwd=tree, check=True)
            (place / "ready").touch()
        yield tree, python


def _counter(scratch: Path) -> Path:
    """Build the library that starts and stops Callgrind's counting. Raises: SystemExit, if there is no valgrind."""
    if shutil.which("valgrind") is None:
        sys.exit("valgrind is not installed: install it (Debian's package valgrind), or use --time")
    library = scratch / "counter.so"
    subprocess.run(["cc", "-shared", "-fPIC", "-o", library, ROOT / "benchmarks" / "counter.c"], check=True)
    return library


def main(arguments: Sequence[str] | None = None) -> None:
    """Compare, and print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.instructions", description=__doc__.split("\n", 1)[0])
    parser.add_argument("--base", required=True, metavar="REVISION", help="the Git revision to compare with")
    parser.add_argument("--engine", default="wasmtime", choices=ENGINES)
    parser.add_argument("--time", action="store_true", help="compare processor time instead of instructions")
    parser.add_argument("--rounds", type=int, help="how often to measure each row (default: 1; with --time, 7)")
    parser.add_argument("--keep", type=Path, metavar="DIRECTORY", help="build the base here, or use an earlier build")
    parser.add_argument("rows", nargs="*", metavar="ROW", help="names of rows (default: all)")
    given = parser.parse_args(arguments)
    names = given.rows or [workload.name for workload in WORKLOADS]
    if unknown := set(names) - {workload.name for workload in WORKLOADS}:
        parser.error(f"there is no row {min(unknown)!r}")
    rounds = given.rounds or (7 if given.time else 1)
    with tempfile.TemporaryDirectory() as directory, built(given.base, given.engine, given.keep) as (tree, python):
        scratch = Path(directory)
        counter = None if given.time else _counter(scratch)
        base = Side("base", tree, python, given.engine, counter, scratch)
        ours = Side("here", ROOT, Path(sys.executable), given.engine, counter, scratch)
        rows = []
        for name in names:
            rows.append(measured(name, base, ours, rounds, TIMED if given.time else COUNTED))
            print(f"{name}: {rows[-1].problem or f'{rows[-1].ratio.median:.3f}'}", file=sys.stderr, flush=True)
        base.close()
        ours.close()
    print(*table(rows, "s" if given.time else "instructions"), sep="\n")


if __name__ == "__main__":
    main()
