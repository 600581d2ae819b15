"""An environment in which benchmarks measure has all that they import."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.metadata import distribution, packages_distributions

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from benchmarks.interpreters import EDITABLE, ROOT

BUILT = ("proxywasm-engine-wasmer", "proxywasm-dataplane")
"""Distributions that are built with cargo, and may be missing here."""
NAMES = {
    ".": "proxywasm-host",
    "engines/wasmtime": "proxywasm-engine-wasmtime",
    "engines/v8": "proxywasm-engine-v8",
    "sdk": "proxywasm-sdk",
}
"""The distributions in the folders of `EDITABLE`."""
IMPORT = """
import json, sys
missing = set(json.loads(sys.argv[1]))

class Missing:
    def find_spec(self, name, path=None, target=None):
        if name in missing:
            raise ModuleNotFoundError(name)

sys.meta_path.insert(0, Missing())
import benchmarks.gateway, benchmarks.growth, benchmarks.measure, benchmarks.servers
import proxywasm_pack  # imported where it is used
"""
"""Imports the benchmarks where some packages are missing."""


def installed(wanted: str, found: set[tuple[str, str]]) -> set[str]:
    """The distributions that a requirement brings."""
    requirement = Requirement(wanted)
    names = {canonicalize_name(requirement.name)}
    for extra in ["", *requirement.extras]:
        if (requirement.name, extra) in found:
            continue
        found.add((requirement.name, extra))
        for line in distribution(requirement.name).requires or ():
            further = Requirement(line)
            if further.marker is None or further.marker.evaluate({"extra": extra}):
                names |= installed(line.partition(";")[0], found)
    return names


def test_what_is_imported_is_installed():
    lines = (ROOT / "benchmarks/requirements.txt").read_text(encoding="utf-8").splitlines()
    wanted = [line for line in lines if line and not line.startswith("#")]
    found: set[tuple[str, str]] = set()
    for each in EDITABLE:
        folder, bracket, extras = each.partition("[")
        wanted.append(NAMES[folder] + bracket + extras)
    there = set(BUILT).union(*(installed(each, found) for each in wanted))
    missing = [
        name
        for name, owners in packages_distributions().items()
        if name.isidentifier() and not {canonicalize_name(owner) for owner in owners} & there
    ]
    assert "django" in missing
    command = [sys.executable, "-c", IMPORT, json.dumps(missing)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
