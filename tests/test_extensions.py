"""The C extensions are optional, so pip says nothing if one does not compile, and tests that need it are left out."""

from __future__ import annotations

import os
import shutil
import sysconfig
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import pytest

from proxywasm_host import open_engine
from proxywasm_host.testing.compliance.base import instantiate
from proxywasm_host.testing.compliance.exceptions import LAYERS
from tests.conftest import ENGINES

COMPILER = shutil.which("cc") and Path(sysconfig.get_paths()["include"], "Python.h").exists()
# Extension, and where the Python code around it says which one is its own.
EXTENSIONS = {
    "proxywasm_host._native": "proxywasm_host.abi.native",
    "proxywasm_engine_wasmtime._native": "proxywasm_engine_wasmtime.engine",
    "proxywasm_engine_v8._native": "proxywasm_engine_v8.in_thread",
}


needs_compiler = pytest.mark.skipif(
    not COMPILER or "PROXYWASM_NATIVE" in os.environ, reason="there is no compiler, or it is off"
)


@needs_compiler
@pytest.mark.parametrize("name", [name for name in EXTENSIONS if find_spec(name.partition(".")[0])])
def test_each_is_built_where_there_is_a_compiler(name):
    assert import_module(name).REVISION == import_module(EXTENSIONS[name]).REVISION


@needs_compiler
@pytest.mark.parametrize("name", ENGINES)
def test_each_engine_can_be_called_from_c(name):
    """Otherwise all works, and takes longer; and `EngineComplianceSuite` skips its tests of such calls."""
    instance = instantiate(open_engine(name), LAYERS, lambda: 0)
    assert len(instance.function("fine").native_call) == 2
    assert instance.memory.native_range
    instance.close()
