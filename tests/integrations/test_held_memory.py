"""A body that filters hold and rewrite is in the memory of the host once, on every engine."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests.conftest import ENGINES
from tests.integrations.held_memory import LIMIT, MIB, SIZE


@pytest.mark.parametrize(("carrier", "engine"), [*(("asgi", engine) for engine in ENGINES), ("wsgi", ENGINES[-1])])
def test_a_body_of_50_mib(carrier, engine):
    assert used(carrier, engine) <= LIMIT + 20 * MIB


def test_a_body_that_comes_in_one_part():
    """The server holds it beside us."""
    assert used("asgi", ENGINES[-1], "whole") <= SIZE + LIMIT + 20 * MIB


def test_without_the_c_extension():
    """Guests do not write in place, so what one writes is there beside what it replaces."""
    assert used("asgi", ENGINES[-1], PROXYWASM_NATIVE="no") <= SIZE + LIMIT + 20 * MIB


def used(*arguments: str, **environment: str) -> int:
    command = [sys.executable, "-m", "tests.integrations.held_memory", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | environment)
    assert done.stderr == ""
    return int(done.stdout)
