"""Failures with the same messages on both routes."""

from __future__ import annotations

from proxywasm_host.engine.protocol import LinkError, Trap, TrapKind

__all__ = ["MAX_NESTED", "NESTED_TOO_DEEPLY", "another_thread", "closed", "link_failure"]

MAX_NESTED = 64
"""How many calls of one guest may nest. Sensible programs need three or four."""
NESTED_TOO_DEEPLY = f"host and guest call each other more than {MAX_NESTED} deep"


def another_thread() -> RuntimeError:
    """For a call from outside while guest code runs."""
    return RuntimeError("another thread is inside this instance: one instance serves one thread at a time")


def closed() -> RuntimeError:
    """For a call after `close`."""
    return RuntimeError("the instance is closed")


def link_failure(failure: BaseException) -> Exception | None:
    """What to raise in place of `failure`, which ended an instantiation, if no guest code had run."""
    if not isinstance(failure, Trap) or failure.kind is not TrapKind.OTHER or failure.frames:
        return None
    if "memory" in failure.message and "limit" in failure.message:
        return Trap(TrapKind.MEMORY_LIMIT, failure.message)
    return LinkError(failure.message)
