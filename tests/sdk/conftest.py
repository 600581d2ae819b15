from __future__ import annotations

from functools import cache
from pathlib import Path

import proxywasm_pack
import pytest

from proxywasm_host.testing import Harness

EXAMPLES = Path(__file__).parent.parent.parent / "sdk" / "examples"


@cache
def packed(name: str) -> bytes:
    """The module of an example."""
    return proxywasm_pack.pack(EXAMPLES / f"{name}.py")


@pytest.fixture
def harness(engine):
    with Harness(engine) as harness:
        yield harness


@pytest.fixture
def script(tmp_path, harness):
    """A function: pack a script and load it."""

    def load(source, configuration=b"", **more):
        path = tmp_path / "filter.py"
        path.write_text(source)
        return harness(proxywasm_pack.pack(path), configuration, **more)

    return load
