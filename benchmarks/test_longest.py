"""docs/limits.md agrees with the table of the ABI."""

from __future__ import annotations

import pytest

from benchmarks.longest import CALLS, PAGE, bounded, takes
from proxywasm_host.abi.table import Hostcall


@pytest.mark.parametrize("row", bounded(), ids=lambda row: row.name)
def test_each_bound_is_told(row: Hostcall) -> None:
    assert f"| `{row.name}` | {takes(row)} |" in PAGE.read_text(encoding="utf-8")


def test_what_is_measured_is_bounded() -> None:
    assert CALLS.keys() <= {row.name for row in bounded()}
