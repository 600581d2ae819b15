"""The fixtures of ``tests/engine``, with Wasmer as the only engine."""

from __future__ import annotations

import pytest

from proxywasm_engine_wasmer import WasmerEngine
from proxywasm_host.engine.protocol import Engine
from tests.engine.conftest import start

__all__ = ["engine", "start"]

@pytest.fixture(scope="session")
def engine() -> Engine:
    """Wasmer."""
    return WasmerEngine()
