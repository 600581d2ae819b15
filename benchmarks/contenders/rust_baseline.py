"""The floor: the same filter in a Rust embedding of Wasmtime, with no Python anywhere (``benchmarks/floor``)."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

from benchmarks.contenders.spoken import Spoken, spoken
from benchmarks.headers import header_filter
from benchmarks.rust import program


@contextmanager
def rust_baseline() -> Iterator[Spoken]:
    with tempfile.NamedTemporaryFile(suffix=".wasm") as module:
        module.write(header_filter())
        module.flush()
        with spoken([program("floor"), module.name]) as running:
            yield running
