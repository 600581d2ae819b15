"""What every engine has to do, on V8."""

from __future__ import annotations

from tests.engine.test_compliance import *  # noqa: F403
from tests.engine.test_compliance import echo

__all__ = ["echo"]
