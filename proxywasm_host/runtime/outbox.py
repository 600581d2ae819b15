"""The outbox: effects that wait for the embedder.

Where the C extension is there (``native/outbox.c``), its ``Outbox`` takes the place of the one here.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from proxywasm_host.abi.native import NATIVE

if TYPE_CHECKING:
    from proxywasm_host.runtime.effects import Effect

__all__ = ["Outbox"]


class Outbox:
    """Effects in their order; those that came from anywhere, at any time, stand last."""

    def __init__(self) -> None:
        self.drained = 0
        """How often it was drained."""
        self._effects: list[Effect] = []
        self._notices: deque[Effect] = deque()

    def put(self, effect: Effect, /) -> None:
        """Note an effect."""
        self._effects.append(effect)

    def notify(self, effect: Effect, /) -> None:
        """Note an effect, in any thread."""
        self._notices.append(effect)

    def drain(self) -> list[Effect]:
        """What was noted; afterwards nothing is."""
        self.drained += 1
        empty: list[Effect] = []  # first: the collector may come with it, and run what drains us too
        effects, self._effects = self._effects, empty
        while self._notices:
            effects.append(self._notices.popleft())
        return effects


PythonOutbox = Outbox
if not TYPE_CHECKING and NATIVE is not None:
    Outbox = NATIVE.Outbox
