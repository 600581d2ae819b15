"""Failures with the same messages in several modules."""

from __future__ import annotations

__all__ = ["MAX_NESTED", "NESTED_TOO_DEEPLY", "another_thread", "closed", "forked"]

MAX_NESTED = 64
"""How many calls of one guest may nest. Sensible programs need three or four."""
NESTED_TOO_DEEPLY = f"host and guest call each other more than {MAX_NESTED} deep"


def another_thread() -> RuntimeError:
    """For a call from outside while guest code runs."""
    return RuntimeError("another thread is inside this instance: one instance serves one thread at a time")


def closed() -> RuntimeError:
    """For a call after `close`."""
    return RuntimeError("the instance is closed")


def forked() -> RuntimeError:
    """For a call in a child process, where V8's thread is not."""
    return RuntimeError(
        "this instance was made before the process forked, and V8's thread did not come along: load the filter in the "
        "child process, after the fork"
    )
