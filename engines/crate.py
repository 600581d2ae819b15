"""Builds the wheel of a distribution written in Rust, once for each state of its sources, and installs it.

Wheels and build output are in ``$XDG_CACHE_HOME/proxywasm-host`` (``~/.cache/proxywasm-host``), not in the checkout.
All checkouts build in the same folder, one after the other, so that cargo compiles only the differences. The ``build``
scripts of `engines/wasmer` and `dataplane` use this module.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["Crate"]

CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "proxywasm-host"
SUFFIXES = {".md", ".py", ".pyi", ".rs", ".toml", ".typed"}


class Crate:
    """A folder with a crate and its pyproject.toml.

    Args:
        here: The folder.
        name: The name of the crate in messages, and of its folder in the cache.
        sources: Files and folders that the wheel depends on.
        minutes: Duration of a build on one processor, in minutes.
        stable: Whether one wheel serves all versions of Python (abi3).
    """

    def __init__(self, here: Path, name: str, sources: tuple[str, ...], minutes: int, *, stable: bool = True) -> None:
        self.here = here
        self.name = name
        self._names = sources
        self._minutes = minutes
        self._stable = stable

    def install(self, python: str) -> None:
        """Install the wheel into the environment of the interpreter `python`, after building it if it is not cached."""
        wheels = CACHE / "wheels" / self.digest("" if self._stable else interface(python))
        if not any(wheels.glob("*.whl")):
            with locked(CACHE / f"{self.name}.lock"):
                if not any(wheels.glob("*.whl")):  # another checkout may have built it meanwhile
                    self._build(python, wheels)
        wheel = next(wheels.glob("*.whl"))
        run(python, "-m", "pip", "install", "--quiet", "--no-deps", "--force-reinstall", str(wheel))
        print(f"installed {wheel.name}")

    def sources(self) -> list[Path]:
        """The files that the wheel depends on."""
        found = (path for name in self._names for path in (self.here / name, *(self.here / name).rglob("*")))
        return sorted(path for path in found if path.suffix in SUFFIXES)

    def digest(self, interface: str) -> str:
        """A digest of everything that the wheel depends on, including the interpreter's binary interface."""
        system = f"{sys.platform} {platform.machine()} {platform.libc_ver()} {interface}"
        state = hashlib.blake2b(system.encode(), digest_size=16)
        for path in self.sources():
            content = path.read_bytes()
            state.update(f"{path.relative_to(self.here)} {len(content)}\n".encode() + content)
        return state.hexdigest()

    def _build(self, python: str, wheels: Path) -> None:
        if shutil.which("cargo") is None:
            sys.exit(
                f"building {self.name} needs cargo, which was not found: install Rust ≥ 1.95, for example with rustup"
            )
        processors = int(os.environ.get("CARGO_BUILD_JOBS") or os.cpu_count() or 1)
        minutes = self._minutes // processors + 1
        print(f"building {self.name} with {processors} processors: about {minutes} minutes, once", flush=True)
        tree = CACHE / self.name  # always the same path, so that cargo finds its earlier output
        self._bring_up_to_date(tree / "sources")
        began = time.monotonic()
        fresh = tree / "wheel"
        shutil.rmtree(fresh, ignore_errors=True)
        environment = {"CARGO_TARGET_DIR": str(tree / "target"), **os.environ}
        run(python, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(fresh), str(tree / "sources"),
            env=environment)  # fmt: skip
        wheels.parent.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(wheels, ignore_errors=True)
        fresh.rename(wheels)
        print(f"built in {time.monotonic() - began:.0f} s")

    def _bring_up_to_date(self, tree: Path) -> None:
        """Copy the sources that differ, and remove those that are gone.

        Cargo compares modification times: an unchanged file keeps its time, and a changed one gets the current time,
        because its time in this checkout may be older.
        """
        wanted = {tree / path.relative_to(self.here): path for path in self.sources()}
        for old in (path for path in tree.rglob("*") if path.is_file() and path not in wanted):
            old.unlink()
        for copy, path in wanted.items():
            if not copy.exists() or copy.read_bytes() != path.read_bytes():
                copy.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, copy)


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold a lock on a file, so that builds of two checkouts run one after the other. It ends with the process."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print(f"waiting for another build, which holds {path}", flush=True)
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def interface(python: str) -> str:
    """The name of an interpreter's binary interface."""
    asked = [python, "-c", "import sysconfig; print(sysconfig.get_config_var('SOABI'))"]
    return subprocess.run(asked, check=True, capture_output=True, text=True).stdout.strip()  # noqa: S603 - as below


def run(*command: str, env: dict[str, str] | None = None) -> None:
    done = subprocess.run(command, env=env, check=False)  # noqa: S603 - the commands are our own
    if done.returncode:
        sys.exit(f"this command failed: {' '.join(command)}")
