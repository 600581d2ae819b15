"""A body that a filter holds and rewrites is in the memory of the host once, on every engine."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.conftest import ENGINES
from tests.integrations.held_memory import LIMIT, MIB


@pytest.mark.parametrize(("carrier", "engine"), [*(("asgi", engine) for engine in ENGINES), ("wsgi", ENGINES[-1])])
def test_a_body_of_50_mib(carrier, engine):
    command = [sys.executable, "-m", "tests.integrations.held_memory", carrier, engine]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.stderr == ""
    assert int(done.stdout) <= LIMIT + 20 * MIB
