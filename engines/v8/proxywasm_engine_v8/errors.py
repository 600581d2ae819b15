"""Errors that several modules raise with the same message."""

from __future__ import annotations

from proxywasm_host.extension import check_constants

from .extension import NATIVE

__all__ = ["MAX_NESTED", "NESTED_TOO_DEEPLY", "another_thread", "closed", "forked"]

MAX_NESTED = 64
"""How deep calls of one guest may nest. Real filters need three or four levels."""
NESTED_TOO_DEEPLY = f"host and guest call each other more than {MAX_NESTED} deep"
check_constants(NATIVE, MAX_NESTED=MAX_NESTED)


def another_thread() -> RuntimeError:
    """The error of a call while another thread runs the guest."""
    return RuntimeError("another thread is inside this instance: one instance serves one thread at a time")


def closed() -> RuntimeError:
    """The error of a call after `close`."""
    return RuntimeError("the instance is closed")


def forked() -> RuntimeError:
    """The error of a call in a child process, which does not have V8's thread."""
    return RuntimeError(
        "this instance was made before the process forked, and V8's thread did not come along: load the filter in the "
        "child process, after the fork"
    )
