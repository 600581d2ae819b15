"""Errors that all routes raise with the same message."""

from __future__ import annotations

from proxywasm_host.engine.protocol import LinkError, Trap, TrapKind
from proxywasm_host.extension import check_constants, load

__all__ = ["MAX_NESTED", "NESTED_TOO_DEEPLY", "another_thread", "closed", "link_failure"]

MAX_NESTED = 64
"""How deep calls of one guest may nest. Real filters need three or four levels."""
NESTED_TOO_DEEPLY = f"host and guest call each other more than {MAX_NESTED} deep"
check_constants(load("proxywasm_engine_wasmtime._native")[0], MAX_NESTED=MAX_NESTED)


def another_thread() -> RuntimeError:
    """The error of a call while another thread runs the guest."""
    return RuntimeError("another thread is inside this instance: one instance serves one thread at a time")


def closed() -> RuntimeError:
    """The error of a call after `close`."""
    return RuntimeError("the instance is closed")


def link_failure(failure: BaseException) -> Exception | None:
    """The error to raise instead of `failure`, if an instantiation failed before guest code ran; else ``None``."""
    if not isinstance(failure, Trap) or failure.kind is not TrapKind.OTHER or failure.frames:
        return None
    if "memory" in failure.message and "limit" in failure.message:
        return Trap(TrapKind.MEMORY_LIMIT, failure.message)
    return LinkError(failure.message)
