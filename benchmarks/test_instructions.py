"""``python -m benchmarks.instructions``: its output, and the process that repeats rows."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from benchmarks.instructions import ROOT, Row, table
from benchmarks.rows import counted


def test_the_table():
    rows = [
        Row("read a header", [1580.0], [1502.0]),
        Row("HTTP callout", [2.0, 2.0, 2.0], [2.0, 2.2, 2.4]),
        Row("in Redis", problem="not opened, the base: there is no such row"),
    ]
    assert list(table(rows, "instructions")) == [
        "| row | base (instructions) | here (instructions) | ratio | |",
        "|---|--:|--:|--:|---|",
        "| read a header | 1.58 k | 1.5 k | 0.951 |  |",
        "| HTTP callout | 2 | 2 | 1.100 | 1.050 – 1.150 **worse** |",
        "| in Redis | | | | not opened, the base: there is no such row |",
        "",
        "2 rows were compared, 1 of them above 1.05 ×: HTTP callout.",
    ]
    assert list(table(rows[:1], "s"))[-1] == "1 rows were compared, none of them above 1.05 ×."


def test_what_callgrind_writes():
    assert counted("version: 1\ncreator: callgrind-3.19.0\npid: 1\n\nsummary: 12\n\n\ntotals: 12\n") == 12
    assert counted("totals: 3\nfn=(1) totals: 9\n0 4\ntotals: 4\n") == 7


def test_rows_are_repeated_as_asked():
    command = [sys.executable, "-c", Path(ROOT / "benchmarks/rows.py").read_text(), "wasmtime"]
    asked = "log level\n10\nnobody\n5\n"
    done = subprocess.run(command, cwd=ROOT, input=asked, capture_output=True, text=True, timeout=120, check=True)
    opened, cost, unknown, without = map(json.loads, done.stdout.splitlines())
    assert (list(opened), unknown) == (["open"], {"error": "there is no such row"})
    assert 0 < cost["cost"] < 1
    assert "error" in without
