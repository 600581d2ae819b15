"""What Envoy does itself with all cases, asked once."""

from __future__ import annotations

import pytest

from proxywasm_host.engine.protocol import Engine
from tests.envoy.cases import CASES
from tests.envoy.rig import Answer, ask


@pytest.fixture(scope="session")
def answers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Answer]:
    return ask(CASES, tmp_path_factory.mktemp("envoy"))


@pytest.fixture
def on_engine(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Servers that the test starts use each engine in turn."""
    monkeypatch.setenv("PROXYWASM_ENGINE", engine.name)
