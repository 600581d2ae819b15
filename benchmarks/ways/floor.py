"""The floor: the same filter in a Rust embedding of Wasmtime, with no Python anywhere (``benchmarks/floor``).

It is built with cargo, once for each state of its sources, in the cache directory.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.cache import CACHE
from benchmarks.headers import HERE, header_filter
from benchmarks.ways.spoken import Spoken, spoken

SOURCES = HERE / "floor"


@contextmanager
def floor() -> Iterator[Spoken]:
    with tempfile.NamedTemporaryFile(suffix=".wasm") as module:
        module.write(header_filter())
        module.flush()
        with spoken([program(), module.name]) as running:
            yield running


def program() -> Path:
    """The program, built if its sources are new. Raises: RuntimeError, if it cannot be built."""
    sources = sorted(path for path in SOURCES.rglob("*") if path.suffix in {".rs", ".toml"})
    state = hashlib.blake2b(digest_size=10)
    for path in sources:
        state.update(path.read_bytes())
    built = CACHE / "floor" / state.hexdigest()
    if not built.exists():
        built.parent.mkdir(parents=True, exist_ok=True)
        with open(built.parent / "lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # another process may be building it
            if not built.exists():
                _build(sources, built)
    return built


def _build(sources: list[Path], built: Path) -> None:
    if shutil.which("cargo") is None:
        raise RuntimeError("The floor is built with cargo, which is not there: install Rust ≥ 1.95.")
    tree = CACHE / "floor" / "sources"
    shutil.rmtree(tree, ignore_errors=True)
    for path in sources:
        copy = tree / path.relative_to(SOURCES)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(path, copy)  # times included: cargo goes by them
    target = CACHE / "floor" / "target"
    command = ["nice", "cargo", "build", "--quiet", "--release"]
    done = subprocess.run(command, cwd=tree, env={**os.environ, "CARGO_TARGET_DIR": str(target)}, check=False)
    if done.returncode:
        raise RuntimeError("The floor could not be built: see what cargo says above.")
    fresh = built.with_suffix(".new")
    shutil.copy2(target / "release" / "floor", fresh)
    fresh.rename(built)


if __name__ == "__main__":
    program()
