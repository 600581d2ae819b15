"""The package: what it exports, and that nothing is imported before it is asked for."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import tomli

import proxywasm_host

ROOT = Path(__file__).parent.parent


@pytest.mark.parametrize("name", proxywasm_host.__all__)
def test_every_public_name_is_there(name):
    assert getattr(proxywasm_host, name) is not None
    assert name in dir(proxywasm_host)


def test_a_name_that_is_not():
    with pytest.raises(AttributeError, match="module 'proxywasm_host' has no attribute 'Nope'"):
        proxywasm_host.Nope  # noqa: B018


def test_to_import_the_package_imports_no_engine_and_no_runtime():
    script = "import sys, proxywasm_host; print([m for m in sys.modules if m.startswith(('proxywasm_', 'wasmtime'))])"
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "['proxywasm_host']"


def test_a_host_imports_nothing_that_is_not_in_the_standard_library():
    script = "import sys; from proxywasm_host import Host; print({m.partition('.')[0] for m in sys.modules} - sys.stdlib_module_names)"
    ran = subprocess.run([sys.executable, "-I", "-c", script], capture_output=True, text=True, check=True)
    assert eval(ran.stdout) - {"proxywasm_host", "__main__"} <= {"_distutils_hack", "sitecustomize"} | editable()


def test_a_wheel_has_what_is_no_code_too():
    """Files beside a module are a part of its package; those in directories that are no packages are named."""
    settings = tomli.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    package = ROOT / "proxywasm_host"
    elsewhere = {file.relative_to(package) for file in package.rglob("*.*") if not (file.parent / "__init__.py").exists()}
    named = {file.relative_to(package) for glob in settings["package-data"]["proxywasm_host"] for file in package.glob(glob)}
    assert settings["package-data"]["*"] == ["*"]
    assert Path("include/proxywasm_host.h") in named
    assert {file for file in elsewhere - named if not {"native", "__pycache__"} & set(file.parts)} == set()


def editable() -> set[str]:
    """What an editable installation brings in at start."""
    return {
        name for name in sys.modules if name.startswith(("__editable__", "_virtualenv", "_coverage", "a1_coverage"))
    }
