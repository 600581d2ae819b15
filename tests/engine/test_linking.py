"""Linking, where its cost is the host's: a module may have as many functions as it likes."""

from __future__ import annotations

from types import FunctionType as PythonFunction
from typing import Any

import pytest

from proxywasm_host import Limits, open_engine
from proxywasm_host.engine.protocol import HostFunction, Instance
from proxywasm_host.testing.guest import type_of
from tests.conftest import ENGINES
from tests.support import wat

ROUTES = {
    "wasmtime": [{}, {"route": "ctypes"}, {"route": "objects"}],
    "v8": [{}, {"route": "in-thread", "native": False}, {"route": "mini-racer"}],
}
THROUGH_CTYPES = [("wasmtime", {"route": "ctypes"}), *(("v8", options) for options in ROUTES["v8"][1:])]


def text(imports: int, exports: int) -> str:
    """A module each of whose exports adds its number to what one of its imports returns."""
    imported = (f'(import "h" "f" (func $i{number} (result i32)))' for number in range(imports))
    exported = (
        f'(func (export "f{number}") (result i32) (i32.add (i32.const {number}) (call $i{number % imports})))'
        for number in range(exports)
    )
    return f"(module {' '.join(imported)} {' '.join(exported)})"


def link(name: str, options: dict[str, Any], imports: int, exports: int) -> Instance:
    module = open_engine(name, **options).compile(wat(text(imports, exports)))
    functions = [HostFunction("h", "f", type_of("-> i32"), lambda number=number: number) for number in range(imports)]
    return module.instantiate(functions, Limits())


@pytest.mark.parametrize(
    ("name", "options"), [(name, options) for name in ENGINES for options in ROUTES.get(name, [{}])], ids=str
)
def test_thousands_of_exports_and_imports(name: str, options: dict[str, Any]) -> None:
    instance = link(name, options, 1000, 3000)
    for number in (0, 999, 1000, 2999):
        function = instance.function(f"f{number}")
        assert function is not None
        assert function() == number + number % 1000
    instance.close()


@pytest.mark.parametrize(("name", "options"), [way for way in THROUGH_CTYPES if way[0] in ENGINES], ids=str)
def test_what_is_compiled_for_functions_of_one_type_is_compiled_once(name: str, options: dict[str, Any]) -> None:
    instance = link(name, options, 2, 3)
    first, second = instance.function("f0"), instance.function("f1")
    assert isinstance(first, PythonFunction)
    assert isinstance(second, PythonFunction)
    assert first.__code__ is second.__code__
    assert (first(), second()) == (0, 2)
    instance.close()
