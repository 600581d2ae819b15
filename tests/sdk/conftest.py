from __future__ import annotations

from functools import cache
from pathlib import Path

import proxywasm_pack
import pytest
from proxywasm_pack.cpython import CPythonEngine, module_of

from proxywasm_host import open_engine
from proxywasm_host.testing import Harness
from tests.conftest import PARAMS

EXAMPLES = Path(__file__).parent.parent.parent / "sdk" / "examples"


@cache
def packed(name: str) -> bytes:
    """The module of an example."""
    return proxywasm_pack.pack(EXAMPLES / f"{name}.py")


@pytest.fixture(params=[*PARAMS, "cpython"])
def harness(request, monkeypatch):
    """A harness on each engine, where scripts are packed, and under CPython, where they run as they are."""
    name, _, route = request.param.partition(" ")
    if route:
        monkeypatch.setenv(f"PROXYWASM_{name.upper()}_ROUTE", route)
    with Harness(CPythonEngine() if name == "cpython" else open_engine(name)) as harness:
        if name == "cpython":
            harness.find = module_of
        else:
            harness.find = lambda path: packed(path.stem) if path.parent == EXAMPLES else proxywasm_pack.pack(path)
        yield harness


@pytest.fixture
def script(tmp_path, harness):
    """A function: load a script."""

    def load(source, configuration=b"", **more):
        path = tmp_path / "filter.py"
        path.write_text(source)
        return harness(path, configuration, **more)

    return load
