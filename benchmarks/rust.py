"""Builds our Rust programs with cargo in the cache directory, once for each state of their sources.

    python -m benchmarks.rust

builds all of them.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
from pathlib import Path

from benchmarks.cache import CACHE

HERE = Path(__file__).parent
CRATES = ("rust_baseline", "rust_plugin_server")


def program(name: str) -> Path:
    """The program of the crate `name` in this folder, built if necessary. Raises: RuntimeError, if that fails."""
    folder = HERE / name
    sources = sorted(path for path in folder.rglob("*") if path.suffix in {".rs", ".toml"})
    state = hashlib.blake2b(digest_size=10)
    for path in sources:
        state.update(path.read_bytes())
    built = CACHE / name / state.hexdigest()
    if not built.exists():
        built.parent.mkdir(parents=True, exist_ok=True)
        with open(built.parent / "lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # another process may be building it
            if not built.exists():
                _build(folder, sources, built)
    return built


def _build(folder: Path, sources: list[Path], built: Path) -> None:
    if shutil.which("cargo") is None:
        raise RuntimeError(f"benchmarks/{folder.name} needs cargo, which is not installed: install Rust ≥ 1.95.")
    tree = built.parent / "sources"
    shutil.rmtree(tree, ignore_errors=True)
    for path in sources:
        copy = tree / path.relative_to(folder)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(path, copy)  # with its times, by which cargo decides what to build
    target = built.parent / "target"
    command = ["nice", "cargo", "build", "--quiet", "--release"]
    done = subprocess.run(command, cwd=tree, env={**os.environ, "CARGO_TARGET_DIR": str(target)}, check=False)
    if done.returncode:
        raise RuntimeError(f"benchmarks/{folder.name} could not be built: see cargo's output above.")
    fresh = built.with_suffix(".new")
    shutil.copy2(target / "release" / folder.name, fresh)
    fresh.rename(built)


if __name__ == "__main__":
    for crate in CRATES:
        program(crate)
