"""The interpreters of this machine: finds the fastest, and sets up an environment for each that is measured."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent
ENVIRONMENTS = ROOT / ".venv" / "interpreters"
OLDEST = (3, 11)
"""The oldest version of Python for which constraints.txt has versions."""
EDITABLE = (".[serve,redis]", "engines/wasmtime", "engines/v8", "sdk")
"""Distributions of the checkout that pip installs: the core, with the extras that are measured, and others."""

# Prints the version, the program, and the seconds of a loop with work like that of hosts.
PROBE = """
import json, sys, time
def work():
    headers = [(b"name%d" % i, b"value") for i in range(20)]
    total = 0
    for i in range(4000):
        for name, value in headers:
            if name == b"name19":
                total += len(value)
        headers = list(headers)
    return total
times = []
for _ in range(30):
    start = time.perf_counter()
    work()
    times.append(time.perf_counter() - start)
program = getattr(sys, "_base_executable", sys.executable)
print(json.dumps([sys.implementation.name, list(sys.version_info[:3]), program, min(times)]))
"""


@dataclass(frozen=True)
class Interpreter:
    """A CPython; `seconds` is the duration of the loop in it."""

    version: tuple[int, ...]
    program: Path
    seconds: float

    @property
    def name(self) -> str:
        return ".".join(map(str, self.version))


def found() -> list[Interpreter]:
    """The usable interpreters of this machine, the fastest first."""
    known: dict[tuple[tuple[int, ...], Path], Interpreter] = {}
    for program in dict.fromkeys(_candidates()):
        done = subprocess.run([program, "-I", "-c", PROBE], capture_output=True, text=True, check=False)
        if done.returncode:
            continue
        implementation, version, base, seconds = json.loads(done.stdout)
        one = Interpreter(tuple(version), Path(base).resolve(), seconds)
        if implementation == "cpython" and one.version >= OLDEST:
            known.setdefault((one.version, one.program), one)
    return sorted(known.values(), key=lambda one: one.seconds)


def _candidates() -> Iterator[Path]:
    yield Path(sys.executable)
    for minor in range(OLDEST[1], 20):
        for folder in dict.fromkeys([*os.environ["PATH"].split(os.pathsep), "/usr/local/bin", "/usr/bin"]):
            program = Path(folder) / f"python3.{minor}"
            if program.exists() and ".venv" not in program.parts:
                yield program
    for versions in (Path.home() / ".pyenv/versions", Path.home() / ".local/share/uv/python"):
        yield from sorted(versions.glob("*/bin/python3"))


def environment(interpreter: Interpreter) -> Path:
    """The interpreter of an environment with everything needed to measure, which is set up first if necessary.

    Raises: subprocess.CalledProcessError, if that fails.
    """
    digest = hashlib.blake2b(str(interpreter.program).encode(), digest_size=4).hexdigest()
    folder = ENVIRONMENTS / f"{interpreter.name}-{digest}"
    python, ready = folder / "bin" / "python", folder / "ready"
    state = _state()
    if not ready.exists() or ready.read_text(encoding="ascii") != state:
        print(f"Setting up an environment for CPython {interpreter.name}.", file=sys.stderr, flush=True)
        if not python.exists():
            shutil.rmtree(folder, ignore_errors=True)
            subprocess.run([interpreter.program, "-m", "venv", "--without-pip", folder], check=True)
        pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--python", python, "install", "--quiet"]
        editable = [word for name in EDITABLE for word in ("--editable", name)]
        wanted = ["--constraint", "constraints.txt", "--requirement", "benchmarks/requirements.txt", "pip"]
        subprocess.run([*pip, *wanted, *editable], cwd=ROOT, check=True)
        for build in ("engines/wasmer/build", "dataplane/build"):
            subprocess.run([ROOT / build, python], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
        ready.write_text(state, encoding="ascii")
    return python


def _state() -> str:
    """A digest of everything that an environment is built from."""
    files = [ROOT / "pyproject.toml", ROOT / "constraints.txt", ROOT / "benchmarks/requirements.txt"]
    files += sorted((ROOT / "proxywasm_host/native").glob("*.[ch]"))
    for folder in ("engines", "dataplane"):
        files += sorted(path for path in (ROOT / folder).rglob("*") if path.suffix in {".c", ".h", ".rs", ".toml"})
    state = hashlib.blake2b(" ".join(EDITABLE).encode(), digest_size=16)
    for path in files:
        state.update(path.read_bytes())
    return state.hexdigest()
