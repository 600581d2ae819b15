"""``python -m benchmarks.deadlines``: each kind of family meets its deadline, and its line is printed."""

from __future__ import annotations

import re

import pytest

from benchmarks.deadlines import FAMILIES, main


@pytest.mark.parametrize("family", ["loop: nothing", "range: table.copy", "optimised: loops"])
def test_a_family(family, capsys):
    assert family in FAMILIES
    main(["--engine", "wasmtime", "--rounds", "1", f"^{family}$"])
    line = capsys.readouterr().out.splitlines()[-1]
    assert re.fullmatch(rf"\| wasmtime \| {family} \| [\d.]+ \| [\d.]+ \| [\d.]+ \| [\d.]+( \*\*more\*\*)? \|", line)
