"""Deadlines: guest code looks at its engine's epoch at each function entry and loop, and a thread moves the epoch on.

When the epoch reaches what a store allows, Wasmtime asks a callback of that store, which looks at the clock. So a call
costs one look at the clock and no crossing, deadlines are kept to about one tick, and stores without one never stop.
"""

from __future__ import annotations

import os
import threading
import time
import weakref
from time import monotonic
from typing import Any

import wasmtime

from .capi import CApi, DeadlineCallback

__all__ = ["NEVER", "TICK", "Ticker", "Watch"]

TICK = 0.01
"""Seconds between two epochs."""
NEVER = 1 << 62
"""Ticks until the deadline of a store that has none."""
_QUIET_TICKS = 100


class Ticker:
    """Moves the epoch of one engine while guests with a deadline are at work.

    The thread ends itself after a second in which no such guest ran, and the next call starts another one.
    """

    def __init__(self, engine: wasmtime.Engine) -> None:
        self._engine = engine
        self.running = False
        self.used = False
        _tickers.add(self)

    def start(self) -> None:
        """Start the thread if it is not running."""
        if not self.running:
            self.running = True
            threading.Thread(target=self._run, name="proxywasm-wasmtime-epoch", daemon=True).start()

    def _run(self) -> None:
        quiet = 0
        while quiet < _QUIET_TICKS:
            time.sleep(TICK)
            self._engine.increment_epoch()
            quiet = 0 if self.used else quiet + 1
            self.used = False
        self.running = False
        # A call that saw `running` just before meets this last epoch, asks its watch, and that starts us again.
        self._engine.increment_epoch()


_tickers: weakref.WeakSet[Ticker] = weakref.WeakSet()


def _after_fork() -> None:
    for ticker in _tickers:
        ticker.running = False  # threads do not live on in the child


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


class Watch:
    """The deadline of one store: `seconds` for each outermost call."""

    __slots__ = ("_callback", "_error", "_expired", "_ticker", "_until", "seconds")

    def __init__(self, api: CApi, store: int | None, context: int, seconds: float, ticker: Ticker) -> None:
        self.seconds = seconds
        self._ticker = ticker
        self._until = 0.0
        self._expired = False
        self._error = api.wasmtime_error_new
        self._callback = DeadlineCallback(self._asked)
        api.wasmtime_context_set_epoch_deadline(context, 1)
        api.wasmtime_store_epoch_deadline_callback(store, self._callback, None, None)

    def enter(self) -> None:
        """An outermost call begins."""
        self._until = monotonic() + self.seconds
        if not self._ticker.running:
            self._ticker.start()

    def take_expired(self) -> bool:
        """Whether the deadline has ended a call, asked once."""
        expired, self._expired = self._expired, False
        return expired

    def _asked(self, context: int, environment: None, ticks: Any, kind: int) -> int | None:
        ticker = self._ticker
        ticker.used = True
        if not ticker.running:
            ticker.start()
        if monotonic() < self._until:
            ticks[0] = 1
            return None
        self._expired = True
        error: int = self._error(b"deadline exceeded")
        return error

