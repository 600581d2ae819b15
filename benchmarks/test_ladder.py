"""Each way does the work. With ``--benchmark-enable``, what it costs."""

from __future__ import annotations

import shutil

import pytest

from benchmarks.headers import check
from benchmarks.ladder import WAYS, Way
from benchmarks.timing import InProcess


@pytest.mark.parametrize("way", WAYS, ids=[way.name for way in WAYS])
def test_way(way: Way, benchmark) -> None:
    if way.name == "rust" and shutil.which("cargo") is None:
        pytest.skip("there is no cargo, and make was told so")
    with way.open() as timed:
        check(timed.result())
        if isinstance(timed, InProcess):
            benchmark(timed.call)
        else:
            benchmark(timed.seconds, 1)
