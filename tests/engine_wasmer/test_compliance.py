"""The compliance suite, as it stands."""

from __future__ import annotations

from tests.engine.test_compliance import *  # noqa: F403
from tests.engine.test_compliance import echo

__all__ = ["echo"]
