"""V8 for the tests that every engine has to pass."""

from __future__ import annotations

import pytest

from proxywasm_engine_v8 import V8Engine
from proxywasm_host.engine.protocol import Engine
from tests.engine.conftest import start

__all__ = ["start"]


@pytest.fixture(scope="session")
def engine() -> Engine:
    """The engine."""
    return V8Engine()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """V8 has one trap for all conversions that cannot be: it does not tell NaN from a number that is too large."""
    for item in items:
        if "test_each_has_its_kind[convert-arguments8" in item.nodeid and "engine_v8" in item.nodeid:
            item.add_marker(pytest.mark.xfail(strict=True, reason="V8 does not tell an overflow from NaN"))
