"""Deadlines: a thread requests interrupts of running guests, and a callback on the guest's thread checks the time.

V8 runs the callback where guests check for interrupts, in loops and at the beginning of functions. So it never stops a
later call, and exceptions of signal handlers (Ctrl-C) end endless loops too.
"""

from __future__ import annotations

import ctypes
import os
import threading
import time
import weakref
from collections.abc import Callable, Sequence
from time import monotonic
from typing import TYPE_CHECKING, Any

from proxywasm_engine_v8.bridge import FAILED
from proxywasm_engine_v8.traps import deadline
from proxywasm_host.engine.exception_table import extend_try
from proxywasm_host.engine.protocol import Frame, Trap

from .library import Callback

if TYPE_CHECKING:
    from .isolate import InThreadIsolate

__all__ = ["TICK", "Watch"]

TICK = 0.01
"""Seconds between two checks of the time."""
_QUIET_TICKS = 100


class _Ticker:
    """The thread that requests interrupts.

    It ends after a second in which no guest with a deadline ran; the next call starts another.
    """

    def __init__(self) -> None:
        self.running = False
        self.watches: weakref.WeakSet[Watch] = weakref.WeakSet()
        self.lock = threading.Lock()
        self.asking = threading.Lock()
        """Held during requests for interrupts: in a child process forked meanwhile, V8's locks would remain taken."""

    def start(self) -> None:
        with self.lock:
            if not self.running:
                self.running = True
                threading.Thread(target=self._run, name="proxywasm-v8-deadlines", daemon=True).start()

    def _run(self) -> None:
        quiet = 0
        while quiet < _QUIET_TICKS:
            time.sleep(TICK)
            quiet = 0 if self._ask() else quiet + 1
        self.running = False
        if self._ask():  # a call that began meanwhile saw `running`, and started no thread
            self.start()

    def _ask(self) -> bool:
        """Request an interrupt of each active call. Returns whether there are any."""
        busy = [watch for watch in list(self.watches) if watch.numbers[0]]
        with self.asking:
            for watch in busy:
                watch.ask()
        return bool(busy)


def _nothing() -> None:
    return None


_ticker = _Ticker()


def _in_child() -> None:
    _ticker.lock, _ticker.asking = threading.Lock(), threading.Lock()
    _ticker.running = False


if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=lambda: _ticker.asking.acquire(),  # noqa: PLW0108 - a child process has another lock
        after_in_parent=lambda: _ticker.asking.release(),  # noqa: PLW0108 - as above
        after_in_child=_in_child,
    )


class Watch:
    """The deadline of one instance: `seconds` for each outermost call.

    Without `ticks`, the C extension calls `expire`.
    """

    __slots__ = ("__weakref__", "_callback", "_isolate", "_lock", "expire", "expired", "frames", "numbers", "seconds")

    def __init__(
        self, isolate: InThreadIsolate, seconds: float, raised: Callable[[BaseException], object], *, ticks: bool
    ) -> None:
        self.seconds = seconds
        self.numbers = (ctypes.c_double * 2)()
        """When the active call must end, or 0; and 1 if no more nested calls may begin, or 0."""
        self.expired = False
        self.frames: list[tuple[str, int]] = []
        self._isolate: Callable[[], InThreadIsolate | None] = weakref.ref(isolate)
        self._lock = threading.Lock()
        terminate, at, page = isolate.library.terminate, isolate.at, isolate.page
        reference, isolate_reference = weakref.ref(self), self._isolate

        def asked() -> Any:
            try:
                watch, inside = reference(), isolate_reference()
                if watch is None or inside is None or not 0 < watch.numbers[0] <= monotonic():
                    return
                if not watch.expired:
                    watch.expired = True
                    watch.frames = inside.stack()
            except BaseException as error:  # noqa: BLE001 - usually raised by a signal handler
                raised(error)
            page[FAILED] = 1  # so that it is noticed even if the guest returns at this moment
            terminate(at)

        asked.__code__ = extend_try(asked.__code__)
        self.expire = asked
        """Ends the guest if its deadline has passed. Must be called on its thread."""
        self._callback = Callback(asked)
        isolate.keep(self._callback)
        if ticks:
            _ticker.watches.add(self)

    def begin(self) -> None:
        """Set the deadline of an outermost call."""
        self.numbers[0], self.numbers[1] = monotonic() + self.seconds, 0
        if not _ticker.running:
            _ticker.start()

    def ask(self) -> None:
        """Make V8 call `expire` on the guest's thread."""
        with self._lock:
            isolate = self._isolate()
            if isolate is not None and isolate.pointer:
                isolate.library.interrupt(isolate.at, self._callback, None)

    def refuse_calls(self) -> None:
        """Refuse further nested calls after one was ended, until the outermost call has ended too."""
        self.numbers[1] = 1
        self.ask()

    def trap(self, frames: Sequence[Frame] = ()) -> Trap:
        """The exception for a call that the deadline has ended."""
        return deadline(self.seconds, frames)

    def end(self) -> None:
        """Drop the reference to the isolate, before it is freed."""
        with self._lock:
            self._isolate = _nothing

    def take_expired(self) -> bool:
        """Return and reset whether the deadline has ended a call."""
        expired, self.expired = self.expired, False
        return expired
