"""Envoy agrees: each case through a real Envoy and through us, and what is told of both is the same."""

from __future__ import annotations

import dataclasses

import pytest

from proxywasm_host.engine.protocol import Engine
from tests.envoy.cases import CASES
from tests.envoy.rig import Answer, Case
from tests.envoy.through_host import told_by_envoy, told_by_us

DIFFERS = {
    # By choice: docs/differences.md.
    "local: twice": "the details are those of the response that is sent, not of the second",
    "trap: after a local response": "the details name the failure, not the response that was not sent",
    "trap: in the allocator": "the callback ends at once",
    "trap: restricted call in the allocator": "the callback ends at once",
    "call: trap in the reply": "the stream ends at once, and does not wait for a time-out",
    # What the embedder does, and not the host.
    "trap: unknown policy pair": "Envoy has two options for one thing, and refuses both together",
    "properties: whose values vary": "addresses and ids are the embedder's to give",
    "upstream: reset": "what the client gets when upstream fails is the embedder's answer",
    "resume: the client gives up amid the body": "an exchange has no client that goes away half-way",
    "call: the stream has gone on": "replies are given before the response, there the response was faster",
    "call: the client has gone": "replies are given before the stream ends, there the client was faster",
}
"""Cases in which we differ, and why. A case that agrees after all fails, so that this list stays true."""


def marked(case: Case) -> object:
    reason = DIFFERS.get(case.name)
    marks = [pytest.mark.xfail(strict=True, raises=AssertionError, reason=reason)] if reason else []
    return pytest.param(case, id=case.name, marks=marks)


def test_the_cases_that_differ_exist():
    assert DIFFERS.keys() <= {case.name for case in CASES}


@pytest.mark.parametrize("case", list(map(marked, CASES)))
def test_agrees(case, answers: dict[str, Answer], engine: Engine):
    theirs = told_by_envoy(case, answers[case.name])
    ours = told_by_us(case, engine)
    for part in dataclasses.fields(ours):
        assert getattr(ours, part.name) == getattr(theirs, part.name), part.name
