"""The examples print what they should, on every engine."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PRINTED = {
    "one_request.py": """\
secret: upstream gets b'from Go'
secret: the client gets 200 b'Hello.'
    auth: auth: allowed
    headers: headers: request for /x by -
    headers: headers: response by upstream
    headers: headers: done
guessed: upstream gets nothing
guessed: the client gets 401 b'unauthorized\\n'
    auth: auth: denied with 401
    headers: headers: done
""",
    "own_io.py": """\
asking accounts about Bearer good
to upstream: /x
to the client: 200
to the client: Hello.
asking accounts about Bearer bad
to the client: 403
to the client: forbidden
""",
}


def run(engine, *arguments: str) -> str:
    environment = {**os.environ, "PROXYWASM_ENGINE": engine.name}
    ran = subprocess.run(
        [sys.executable, *arguments], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert (ran.returncode, ran.stderr) == (0, "")
    return ran.stdout


@pytest.mark.parametrize("name", PRINTED)
def test_prints(name, engine):
    assert run(engine, f"examples/{name}") == PRINTED[name]


def test_the_unit_test_passes(engine):
    assert "2 passed" in run(engine, "-m", "pytest", "-q", "-p", "no:cacheprovider", "examples/test_a_filter.py")


def test_every_example_is_run():
    assert {path.name for path in (ROOT / "examples").glob("*.py")} == {*PRINTED, "test_a_filter.py"}
