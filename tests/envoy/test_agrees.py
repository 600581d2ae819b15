"""Envoy agrees: each case through a real Envoy and through us, and what is told of both is the same."""

from __future__ import annotations

import dataclasses

import pytest

from proxywasm_host.engine.protocol import Engine
from tests.envoy.cases import CASES
from tests.envoy.ours import told_by_envoy, told_by_us
from tests.envoy.rig import Answer, ask


@pytest.fixture(scope="session")
def answers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Answer]:
    return ask(CASES, tmp_path_factory.mktemp("envoy"))


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_agrees(case, answers: dict[str, Answer], engine: Engine):
    theirs = told_by_envoy(case, answers[case.name])
    ours = told_by_us(case, engine)
    for part in dataclasses.fields(ours):
        assert getattr(ours, part.name) == getattr(theirs, part.name), part.name
