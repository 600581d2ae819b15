"""V8's thread for one isolate, and the messages to and from it."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from itertools import count
from queue import SimpleQueue
from threading import get_ident
from typing import Any

from proxywasm_engine_v8.errors import forked
from proxywasm_engine_v8.routes import Thrown

from .glue import OWN_GLUE
from .interrupts import Interrupts
from .library import DOUBLE, STRING, UNDEFINED, Callback, Library, Value, read

__all__ = ["TURN", "V8Thread"]

TURN = 0
"""The number that the callback gets when the guest's thread waits. The numbers of requests begin at 1."""
_OPTIMISE = 1 << 62
"""The number that the callback gets when a function is to be optimised."""
_HEAP = 192 << 20  # bytes: less than V8's own limit, at which it ends the process


class _Line:
    """State that the callback uses. The callback runs on V8's thread, and must not keep the isolate alive."""

    __slots__ = ("clock", "context", "from_v8", "isolate", "thread", "to_v8")

    def __init__(self) -> None:
        self.context = 0
        self.thread = 0
        self.clock: int | None = None
        self.isolate: int | None = None
        self.from_v8: SimpleQueue[tuple[int, Value | None]] = SimpleQueue()
        self.to_v8: SimpleQueue[None] = SimpleQueue()


def _listener(line: _Line, free: Callable[[int, int], None], interrupts: Interrupts) -> Any:
    put, wait, turn = line.from_v8.put, line.to_v8.get, (TURN, None)
    current, optimise = interrupts.current, interrupts.optimise

    def listen(number: int, handle: int) -> None:
        if number == TURN:
            free(line.context, handle)
            put(turn)
            wait()
            return
        if number == _OPTIMISE:
            free(line.context, handle)
            optimise()
            return
        if not line.thread:
            line.thread, line.isolate = get_ident(), current()
        value = read(handle)
        if value.kind == UNDEFINED:
            free(line.context, handle)
            put((number, None))
        else:
            put((number, value))

    return Callback(listen)


class V8Thread:
    """A context of mini-racer: an isolate with the glue, and its thread.

    While no call is active, `ask` runs a function of the glue and waits for its result. `begin` calls a function of the
    guest. `take` then returns each turn of the guest, which continues after `answer`, and finally the end of the call.
    """

    __slots__ = (
        "_call",
        "_callback",
        "_library",
        "_line",
        "_lock",
        "_main",
        "_nothing",
        "_numbers",
        "answer",
        "context",
        "interrupts",
        "page_at",
        "process",
        "take",
    )

    def __init__(self, library: Library, interrupts: Interrupts) -> None:
        self._library = library
        self.interrupts = interrupts
        self.process = os.getpid()
        self._line = line = _Line()
        self.take, self.answer = line.from_v8.get, line.to_v8.put
        self._lock = threading.Lock()
        self._numbers = count(TURN + 1)
        self._callback = _listener(line, library.free_value, interrupts)
        self.context: int = library.init_context(self._callback)
        line.context = self.context
        library.set_hard_memory_limit(self.context, _HEAP)
        self._main = self._evaluate(OWN_GLUE)
        self._call, self._nothing = self._list(self.string("call")), self._list(self.string("nothing"))
        page = self.ask("connect", *(library.make_js_callback(self.context, number) for number in (TURN, _OPTIMISE)))
        if page is None:
            raise RuntimeError("V8 does not accept the engine's own script")
        self.page_at = page.data
        self.free(page.handle)

    @property
    def isolate(self) -> int | None:
        """The address of V8's isolate, if known."""
        return self._line.isolate

    def seconds(self) -> float:
        """Processor time of the thread, in seconds."""
        return time.clock_gettime(self._clock()) if self._line.thread else 0.0

    def _clock(self) -> int:
        if self._line.clock is None:
            self._line.clock = time.pthread_getcpuclockid(self._line.thread)
        return self._line.clock

    def string(self, text: str) -> int:
        """Make a value of a text. The caller frees it or passes it on."""
        encoded = text.encode()
        handle: int = self._library.alloc_string_val(self.context, encoded, len(encoded), STRING)
        return handle

    def number(self, value: float) -> int:
        """Make a value of a number. The caller frees it or passes it on."""
        handle: int = self._library.alloc_double_val(self.context, value, DOUBLE)
        return handle

    def free(self, handle: int) -> None:
        """Free a value. Any thread may call this at any time."""
        self._library.free_value(self.context, handle)

    def ask(self, what: str, *values: int, keep: bool = False) -> Value | None:
        """Run the glue's function `what` with `values`, which are freed unless `keep` is true.

        Returns the result, which the caller frees; ``None`` for undefined. Raises: Thrown.
        """
        self.check_process()
        with self._lock:
            arguments = self._list(self.string(what), *values, keep=1 if keep else None)
            try:
                number = next(self._numbers)
                self._library.call_function(self.context, self._main, self._main, arguments, number)
                return self._result(number)
            finally:
                self.free(arguments)

    def begin(self) -> tuple[int, int]:
        """Call the guest's function whose number is in the page. Returns the number of the request, and its task."""
        number = next(self._numbers)
        return number, self._library.call_function(self.context, self._main, self._main, self._call, number)

    def cancel(self, task: int) -> None:
        """Cancel a task, if it has not ended."""
        self._library.cancel_task(self.context, task)

    def stop(self) -> None:
        """End the active call, if any, and wait until the thread is idle.

        Exceptions of signal handlers are dropped: the caller is about to raise one.
        """
        attempts = 1
        while True:
            try:
                number = next(self._numbers)
                last = self._library.call_function(self.context, self._main, self._main, self._nothing, number)
                for before in range(1, attempts + 1):
                    self.cancel(last - before)  # tasks are numbered in the order of requests
                self.answer(None)
                while (event := self.take())[0] != number:
                    if event[0] == TURN:
                        self.answer(None)
                    elif event[1] is not None:
                        self.free(event[1].handle)
                if event[1] is not None:
                    self.free(event[1].handle)
                while not self._line.to_v8.empty():
                    self._line.to_v8.get()
            except BaseException:  # noqa: BLE001, PERF203 - see above
                attempts += 1
            else:
                return

    def heap_was_full(self) -> bool:
        """Return and reset whether the heap was full."""
        if not self._library.hard_memory_limit_reached(self.context):
            return False
        self._library.set_hard_memory_limit(self.context, _HEAP)
        return True

    def collect(self) -> None:
        """Make V8 collect garbage."""
        self._library.low_memory_notification(self.context)

    def check_process(self) -> None:
        """Refuse use in a child process, which does not have V8's thread. Raises: RuntimeError."""
        if self.process != os.getpid():
            raise forked()

    def end(self) -> None:
        """Free everything."""
        context, self.context = self.context, 0
        if not context or self.process != os.getpid():
            return
        free, callback = self._library.free_context, self._callback
        if get_ident() == self._line.thread:  # the garbage collector runs here, and a thread cannot wait for itself
            threading.Thread(target=lambda: (free(context), callback), daemon=True).start()
        else:
            free(context)

    def _list(self, *values: int, keep: int | None = None) -> int:
        """Make a list of values, and free them except those from the position `keep` on."""
        made = self._evaluate("[]")
        for position, value in enumerate(values):
            self.free(self._library.array_push(self.context, made, value))
            if keep is None or position < keep:
                self.free(value)
        return made

    def _evaluate(self, source: str) -> int:
        number, code = next(self._numbers), self.string(source)
        self._library.eval(self.context, code, number)
        result = self._result(number)
        self.free(code)
        return result.handle if result else 0

    def _result(self, number: int) -> Value | None:
        while (event := self.take())[0] != number:  # the result of an abandoned request
            if event[1] is not None:
                self.free(event[1].handle)
        value = event[1]
        if value is not None and value.is_failure:
            text = value.text
            self.free(value.handle)
            raise Thrown("RangeError" if "RangeError" in text else "Error", text, "")
        return value
