"""Deadlines: guest code checks the epoch of its engine at each function entry and loop, and a thread advances it.

When the epoch reaches the limit of a store, Wasmtime calls the callback of the store, which checks the time. So a call
reads the clock once, without a crossing, deadlines are accurate to about one tick, and stores without a deadline are
never interrupted.
"""

from __future__ import annotations

import os
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from time import monotonic
from typing import Any

import wasmtime

from proxywasm_host.engine.exception_table import extend_try

from .capi import CApi, DeadlineCallback

__all__ = ["NEVER", "TICK", "Ticker", "Watch"]

TICK = 0.01
"""Seconds between two epochs."""
NEVER = 1 << 62
"""Ticks until the epoch limit of a store without a deadline."""
_QUIET_TICKS = 100


class Ticker:
    """Advances the epoch of one engine while guests with a deadline run.

    The thread ends after a second in which no such guest ran, and the next call starts another one.
    """

    def __init__(self, engine: wasmtime.Engine) -> None:
        self._engine = engine
        self._lock = threading.Lock()
        self._held = 0
        self.running = False
        self.used = False
        _tickers.add(self)

    def start(self) -> None:
        """Start the thread if it is not running."""
        with self._lock:
            if not self.running:
                self.running = True
                threading.Thread(target=self._run, name="proxywasm-wasmtime-epoch", daemon=True).start()

    @contextmanager
    def held(self) -> Iterator[None]:
        """Keep the thread running during the block."""
        with self._lock:
            self._held += 1
        try:
            self.start()
            yield
        finally:
            with self._lock:
                self._held -= 1

    def after_fork(self) -> None:
        """Reset the state in a child process, which has neither the thread nor the holder of the lock."""
        self._lock = threading.Lock()
        self.running = False

    def _run(self) -> None:
        quiet = 0
        while True:
            time.sleep(TICK)
            try:
                self._engine.increment_epoch()
            except ValueError:  # the process is ending, see `exit`
                break
            quiet = 0 if self.used or self._held else quiet + 1
            self.used = False
            if quiet >= _QUIET_TICKS:
                with self._lock:
                    if not self._held:
                        self.running = False
                        break
        # A call that saw `running` before it was reset reaches this last epoch, and its watch starts another thread.
        with suppress(ValueError):
            self._engine.increment_epoch()


_tickers: weakref.WeakSet[Ticker] = weakref.WeakSet()


def _after_fork() -> None:
    for ticker in list(_tickers):
        ticker.after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


class Watch:
    """The deadline of one store: `seconds` for each outermost call."""

    __slots__ = ("_asked", "_expired", "_ticker", "_until", "seconds")

    def __init__(
        self, api: CApi, store: int | None, seconds: float, ticker: Ticker, raised: Callable[[BaseException], object]
    ) -> None:
        self.seconds = seconds
        self._ticker = ticker
        self._until = 0.0
        self._expired = False

        def asked(context: int, environment: None, ticks: Any, kind: int) -> Any:
            try:
                if self._has_time():
                    ticks[0] = 1
                    return None
            except BaseException as error:  # noqa: BLE001 - usually raised by a signal handler
                raised(error)
            return api.wasmtime_error_new(b"stopped by the host")

        asked.__code__ = extend_try(asked.__code__)
        self._asked = DeadlineCallback(asked)
        api.wasmtime_context_set_epoch_deadline(api.wasmtime_store_context(store), 1)
        api.wasmtime_store_epoch_deadline_callback(store, self._asked, None, None)

    def enter(self) -> None:
        """Set the deadline of an outermost call."""
        self._until = monotonic() + self.seconds
        if not self._ticker.running:
            self._ticker.start()

    def take_expired(self) -> bool:
        """Return and reset whether the deadline has ended a call."""
        expired, self._expired = self._expired, False
        return expired

    def _has_time(self) -> bool:
        ticker = self._ticker
        ticker.used = True
        if not ticker.running:
            ticker.start()
        self._expired = monotonic() >= self._until
        return not self._expired
