"""The engine that ``docs/write-an-engine.md`` makes: taken from the page, known by entry point, tested, and put to use."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from proxywasm_host.engine.protocol import Capabilities
from tests.support import FILTERS

PAGE = (Path(__file__).parents[2] / "docs" / "write-an-engine.md").read_text(encoding="utf-8")
CODE = re.findall(r"^```python\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
ENTRY_POINT = re.search(r"^```toml\n\[project\.entry-points\.\"(.*?)\"\]\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
*ENGINE, SUITE, REGISTRATION = CODE


pytestmark = pytest.mark.skipif(sys.version_info < (3, 11), reason="pywasm needs Python 3.11")


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """A directory in which the engine is installed: its module, and the metadata of its distribution."""
    directory = tmp_path_factory.mktemp("site")
    (directory / "pywasm_engine.py").write_text("\n".join(ENGINE))
    (directory / "test_pywasm.py").write_text(SUITE)
    metadata = directory / "pywasm_engine-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: pywasm-engine\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text(f"[{ENTRY_POINT[1]}]\n{ENTRY_POINT[2]}".replace('"', ""))
    return directory


def run(directory: Path, *command: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    variables = {**os.environ, "PYTHONPATH": str(directory), **environment}
    return subprocess.run(
        [sys.executable, *command], cwd=directory, env=variables, capture_output=True, text=True, timeout=100
    )


def test_it_passes_what_it_declares(installed):
    done = run(installed, "-m", "pytest", "-q", "-rs", "-p", "no:cacheprovider", "-W", "error", "test_pywasm.py")
    assert done.returncode == 0, done.stdout
    told = set(re.findall(r"pywasm does not declare the capability '(\w+)'", done.stdout))
    assert (
        told
        == {"serialise", "deadline", "backtrace", "validation"}
        == set(Capabilities.__slots__) - {"memory_limit", "fork"}
    )


def test_it_is_found_by_its_entry_point(installed):
    done = run(installed, "-m", "proxywasm_host.cli", "engines")
    assert "pywasm 2." in done.stdout
    assert "  can       memory_limit, fork\n  note      an interpreter in pure Python\n" in done.stdout


def test_it_runs_a_filter(installed):
    filter = FILTERS / "rust" / "headers.wasm"
    command = ["-m", "proxywasm_host.cli", "run", filter, "http://example.com/", "--config", "hello", "--deadline", "0"]
    ours, theirs = (run(installed, *command, PROXYWASM_ENGINE=name) for name in ("pywasm", "wasmtime"))
    assert ours.returncode == 0, ours.stderr
    assert ours.stdout.splitlines()[0].startswith("pywasm 2.")
    assert ours.stdout.splitlines()[1:] == theirs.stdout.splitlines()[1:]
    assert "hello" in ours.stdout


def test_it_can_be_registered(installed):
    done = run(installed, "-c", REGISTRATION + "print(type(host.engine).__name__)")
    assert done.stdout == "PywasmEngine\n", done.stderr
