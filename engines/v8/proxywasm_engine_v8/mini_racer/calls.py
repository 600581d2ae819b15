"""Calls on the route with threads for V8: the calling thread begins a call, and runs host functions until it ends.

Host functions run on the calling thread and on its stack. When they call the guest, that is an answer to the guest's
thread, which waits in its hostcall, see `glue`. The calling thread checks deadlines while it waits.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from ctypes import c_uint32, c_uint64
from queue import Empty
from time import monotonic, thread_time
from typing import TYPE_CHECKING, Any

from proxywasm_engine_v8 import traps
from proxywasm_engine_v8.bridge import ANSWER, FAILED, PAGE, UNANSWERED, failure
from proxywasm_engine_v8.routes import Link, Lowering, Pending
from proxywasm_engine_v8.trampolines import link
from proxywasm_host.engine.protocol import Trap, TrapKind

from .glue import INDEX, NEXT, OVERFLOWN, RETURNED
from .interrupts import Interrupt
from .thread import TURN

if TYPE_CHECKING:
    from proxywasm_engine_v8.binary import Binary
    from proxywasm_host.engine.protocol import FunctionType, HostFunction

    from .isolate import MiniRacerIsolate

__all__ = ["MiniRacerCalls"]

_PUTS_OFF = 3
"""How often the deadline of a call is extended at most."""

_LOWERING = Lowering(
    prelude="""
outermost = calls.outermost
nested = calls.nested
""",
    doors=("outermost", "nested"),
    refused="",
    outermost="owner_thread = get_ident()\nresult = outermost(number)",
    nested="result = nested(number)",
)


class MiniRacerCalls:
    """The calls of an instance, see `routes.Calls`."""

    __slots__ = (
        "__weakref__",
        "_binary",
        "_expired",
        "_frames",
        "_interrupt",
        "_interrupted",
        "_isolate",
        "_number",
        "_ours",
        "_over",
        "_pending",
        "_puts_off",
        "_seconds",
        "_task",
        "_thread",
        "_unsettled",
        "_until",
        "_used_before",
        "_words",
        "raised",
    )

    def __init__(self, isolate: MiniRacerIsolate, binary: Binary, deadline: float | None) -> None:
        self._isolate = isolate
        self._thread = isolate.thread
        self._words = (c_uint32 * (PAGE // 4)).from_address(isolate.page_at)
        self._binary = binary
        self._pending = pending = Pending()
        self.raised: Callable[[BaseException], None] = pending.raised
        self._seconds = deadline
        self._until: float | None = None
        self._used_before = 0.0
        self._puts_off = 0
        self._number = self._task = 0
        self._ours = True  # whether the host runs, and not the guest
        self._over = True
        self._expired = self._interrupted = self._unsettled = False
        self._frames: list[tuple[str, int]] = []
        self._interrupt = self._interrupter()

    def link(self, guests: Sequence[FunctionType], functions: Sequence[HostFunction]) -> Link:
        """Make the trampolines."""
        return link(self._isolate, self, _LOWERING, guests, functions)

    def outermost(self, index: int) -> bool | None:
        """Call the guest's function `index` while no thread is inside. Returns ``True``; ``None`` after a failure."""
        self._thread.check_process()
        if self._unsettled:
            self._unsettled = False
            self._thread.stop()
        self._expired = self._interrupted = False
        self._until = None
        if self._seconds is not None:
            self._until = monotonic() + self._seconds
            self._puts_off = _PUTS_OFF
            self._used_before = self._used()
        self._words[NEXT // 4] = index + 1
        self._over = self._ours = False
        self._isolate.is_inside = True
        self._number, self._task = self._thread.begin()
        result = self._serve()
        self._isolate.is_inside = False
        return result

    def nested(self, index: int) -> bool | None:
        """Call the guest's function `index` from a host function. Returns the same as `outermost`."""
        self._thread.check_process()
        if self._over:
            return None
        self._words[NEXT // 4] = index + 1
        self._ours = False
        self._thread.answer(None)
        return self._serve()

    def problem(self, result: object, nested: bool) -> BaseException:
        """The exception for a call that ended with `result` and without an answer."""
        error = self._pending.take()
        failed, self._words[FAILED // 4] = self._words[FAILED // 4], 0
        if error is not None:
            return error
        if result is None:
            if self._expired:
                return traps.deadline(self._seconds or 0, traps.frames(self._frames, self._binary))
            if self._interrupted:
                return Trap(TrapKind.OTHER, "the call was ended by an exception of a signal handler")
            if self._isolate.is_full:
                return traps.full()
        if failed in (0, OVERFLOWN):
            return Trap(TrapKind.STACK_OVERFLOW)
        return traps.trap(failure(self._isolate.page), self._binary)

    def recover(self, outermost: bool) -> None:
        """Clean up after a call that Python itself has ended, for example by a KeyboardInterrupt.

        If the call was nested, the outermost call ends too.
        """
        self._pending.take()
        if not self._ours:
            self._words[NEXT // 4] = 0
            (c_uint64.from_address(self._isolate.page_at + ANSWER)).value = UNANSWERED
            self._thread.stop()
            self._interrupted = self._over = self._ours = True
        self._words[FAILED // 4] = 0
        if outermost:
            self._isolate.is_inside = False

    def end(self) -> None:
        """Do nothing: there is no state to release."""

    def _serve(self) -> bool | None:
        """Run host functions until the innermost call is over. Returns ``True``; ``None`` after a failure."""
        while True:
            number, value = self._next()
            self._ours = True
            if number == TURN:
                index = self._words[INDEX // 4]
                if index == RETURNED:
                    return True
                self._isolate.hosts[index]()
                if self._over:
                    return None
                self._thread.check_process()
                if self._until is not None and not self._expired and monotonic() >= self._until:
                    self._expire()
                self._words[NEXT // 4] = 0
                self._ours = False
                self._thread.answer(None)
            elif number == self._number:
                self._over = True
                if value is None:
                    return True
                self._thread.free(value.handle)
                self._isolate.is_full = self._thread.heap_was_full()
                return None
            elif value is not None:
                self._thread.free(value.handle)

    def _next(self) -> Any:
        while self._until is not None and not self._expired:
            try:
                return self._thread.take(timeout=max(0.0, self._until - monotonic()))
            except Empty:  # noqa: PERF203 - once for each extension of the deadline
                self._expire()
        return self._thread.take()

    def _used(self) -> float:
        """Processor time of the guest's thread and this one, in seconds."""
        return self._thread.seconds() + thread_time()

    def _expire(self) -> None:
        """End the guest, or extend its deadline if it has used less than half of its time on a processor."""
        seconds = self._seconds or 0.0
        used = self._used() - self._used_before
        if self._puts_off and used < seconds / 2:
            self._puts_off -= 1
            self._until = monotonic() + seconds - used
            return
        self._expired = True
        self._frames = []
        if self._interrupt is not None:
            self._thread.interrupts.request(self._thread.isolate, self._interrupt, None)
        else:
            self._unsettled = True  # if the task has just ended, this may cancel another one
            self._thread.cancel(self._task)

    def _interrupter(self) -> Any:
        """The callback that V8 runs on the guest's thread where guests check for interrupts."""
        interrupts = self._thread.interrupts
        if not interrupts.possible or self._thread.isolate is None:
            return None
        reference: Callable[[], MiniRacerCalls | None] = weakref.ref(self)

        def interrupted(isolate: int, _: None) -> None:
            calls = reference()
            if calls is None or not calls._expired or calls._over:  # too late: the call has ended
                return
            try:
                calls._frames = interrupts.backtrace(isolate)
            finally:
                calls._thread.cancel(calls._task)

        callback = Interrupt(interrupted)
        self._isolate.keep(callback)
        return callback
