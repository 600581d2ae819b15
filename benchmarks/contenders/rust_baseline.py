"""The baseline: the same filter in a Rust embedding of Wasmtime, without Python (``benchmarks/rust_baseline``)."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

from benchmarks import rust
from benchmarks.contenders.line_protocol import OtherProgram, running
from benchmarks.headers import header_filter


@contextmanager
def rust_baseline() -> Iterator[OtherProgram]:
    with tempfile.NamedTemporaryFile(suffix=".wasm") as module:
        module.write(header_filter())
        module.flush()
        with running([rust.program("rust_baseline"), module.name]) as program:
            yield program
