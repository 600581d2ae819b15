"""The outbox: effects that wait for the embedder.

With the C extension (``native/outbox.c``), its ``Outbox`` replaces this one.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from proxywasm_host.abi.native import NATIVE

if TYPE_CHECKING:
    from proxywasm_host.runtime.effects import Effect

__all__ = ["Outbox"]


class Outbox:
    """Effects in their order; those from other threads come last."""

    def __init__(self) -> None:
        self.drained = 0
        """Number of calls of `drain`."""
        self._effects: list[Effect] = []
        self._notified: deque[Effect] = deque()

    def put(self, effect: Effect, /) -> None:
        """Add an effect."""
        self._effects.append(effect)

    def notify(self, effect: Effect, /) -> None:
        """Add an effect from any thread."""
        self._notified.append(effect)

    def drain(self) -> list[Effect]:
        """Remove and return all effects."""
        self.drained += 1
        empty: list[Effect] = []  # made first: it may run the garbage collector, and so code that drains too
        effects, self._effects = self._effects, empty
        while self._notified:
            effects.append(self._notified.popleft())
        return effects


PythonOutbox = Outbox
if not TYPE_CHECKING and NATIVE is not None:
    Outbox = NATIVE.Outbox
