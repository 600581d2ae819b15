"""Forks wait while Wasmtime makes, compiles or frees something without the GIL.

In a child process forked meanwhile, locks of Wasmtime would remain taken.
"""

from __future__ import annotations

from proxywasm_host.forks import ThreadLocks

__all__ = ["making"]

making = ThreadLocks()
"""``with making.own:`` delays forks, but no other thread."""
