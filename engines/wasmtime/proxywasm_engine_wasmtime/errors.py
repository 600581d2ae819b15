"""Failures that both routes tell in the same words."""

from __future__ import annotations

from proxywasm_host.engine.protocol import LinkError, Trap, TrapKind

__all__ = ["another_thread", "closed", "link_failure"]


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
