"""The floor: the same filter in a Rust embedding of Wasmtime, with no Python anywhere (``benchmarks/floor``)."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

from benchmarks.headers import header_filter
from benchmarks.rust import program
from benchmarks.ways.spoken import Spoken, spoken


@contextmanager
def floor() -> Iterator[Spoken]:
    with tempfile.NamedTemporaryFile(suffix=".wasm") as module:
        module.write(header_filter())
        module.flush()
        with spoken([program("floor"), module.name]) as running:
            yield running
