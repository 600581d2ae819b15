"""What Envoy does itself with all cases, asked once."""

from __future__ import annotations

import pytest

from tests.envoy.cases import CASES
from tests.envoy.rig import Answer, ask


@pytest.fixture(scope="session")
def answers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Answer]:
    return ask(CASES, tmp_path_factory.mktemp("envoy"))
