"""Calls on the route in the calling thread.

Through ctypes, each outermost call takes V8's lock, enters the isolate, leaves it and releases the lock, so that any
thread may make the next call. From C, the thread keeps the lock until another thread needs it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from proxywasm_engine_v8 import traps
from proxywasm_engine_v8.bridge import FAILED
from proxywasm_engine_v8.routes import Link, Lowering, Pending
from proxywasm_engine_v8.trampolines import link
from proxywasm_host.engine.protocol import Trap, TrapKind

from .deadline import Watch
from .library import address
from .native import native_link

if TYPE_CHECKING:
    from proxywasm_engine_v8.binary import Binary
    from proxywasm_host.engine.protocol import FunctionType, HostFunction

    from .isolate import InThreadIsolate

__all__ = ["InThreadCalls"]

_PRELUDE = """
library = isolate.library
invoke = library.invoke
lock = library.lock
wait_for_lock = library.wait_for_lock
unlock = library.unlock
enter = library.enter
leave = library.leave
drop_handles = library.drop_handles
current = library.current
be_in = library.be_in
thread_data = library.thread_data
pointer = isolate.pointer
limit_stack = library.isolate_stack_limit
stack_limit = isolate.stack_limit
watch = calls.watch
visitors = isolate.visitors
at = isolate.at
locker = isolate.locker_at
context = isolate.context
nothing = isolate.undefined
scope = isolate.scope
levels = isolate.levels
none = c_int(0)
"""
_DOORS = ("invoke", "lock", "wait_for_lock")

_OUTERMOST = """\
comes = owner_thread != get_ident()
lowest = stack_limit() if comes else 0
{watch}
if visitors.value:
    wait_for_lock(locker, at)
else:
    lock(locker, at)
enter(at)
if comes:
    limit_stack(pointer, lowest)
    owner_thread = get_ident()
levels[0] = 1
result = invoke(callees[number], at, context, nothing, none, None)
levels[0] = scope[1] = scope[0] = 0
drop_handles(at, at)
leave(at)
unlock(locker)
{unwatch}"""

_NESTED = """\
before = scope[0]
limit = scope[1]
outer = current()
if outer != pointer:
    be_in(at, c_void_p(thread_data(at)))
try:
    result = invoke(callees[number], at, context, nothing, none, None)
finally:
    if outer != pointer:
        be_in(c_void_p(outer), c_void_p(thread_data(c_void_p(outer))))
scope[0] = before
if scope[1] != limit:
    scope[1] = limit
    drop_handles(at, at)"""

_FREE = Lowering(_PRELUDE, _DOORS, "", _OUTERMOST.format(watch="", unwatch=""), _NESTED)
_WATCHED = Lowering(
    _PRELUDE,
    _DOORS,
    "if watch.numbers[1]:\n    raise watch.trap()",
    _OUTERMOST.format(watch="watch.begin()", unwatch="watch.numbers[0] = 0"),
    _NESTED,
)


class InThreadCalls:
    """The calls of an instance, see `routes.Calls`."""

    __slots__ = ("_binary", "_isolate", "_pending", "raised", "watch")

    def __init__(self, isolate: InThreadIsolate, binary: Binary, deadline: float | None) -> None:
        self._isolate = isolate
        self._binary = binary
        self._pending = pending = Pending()
        self.raised: Callable[[BaseException], None] = pending.raised
        self.watch = (
            None if deadline is None else Watch(isolate, deadline, pending.raised, ticks=isolate.route.native is None)
        )

    def link(self, guests: Sequence[FunctionType], functions: Sequence[HostFunction]) -> Link:
        """Make the trampolines, in C if the extension is available."""
        if self._isolate.route.native is not None:
            return native_link(self._isolate, self, guests, functions)
        made = link(self._isolate, self, _FREE if self.watch is None else _WATCHED, guests, functions)
        return replace(made, connect=lambda handles: made.connect([address(handle) for handle in handles]))

    def problem(self, result: object, nested: bool) -> BaseException:
        """The exception for a call that ended with `result` and without an answer."""
        isolate, watch = self._isolate, self.watch
        error = self._pending.take()
        expired, full = watch is not None and watch.take_expired(), isolate.full
        if result is None or expired or full or error is not None:
            isolate.full = False
            if nested:
                isolate.recover()
                if watch is not None and expired:
                    watch.refuse_calls()
            else:
                with isolate.entered():
                    isolate.recover()
        failed, isolate.page[FAILED] = isolate.page[FAILED], 0
        if error is not None:
            return error
        if full:
            return traps.full()
        if watch is not None and expired:
            return watch.trap(traps.frames(watch.frames, self._binary))
        if not failed:
            return Trap(TrapKind.STACK_OVERFLOW)  # raised before the glue could catch it
        return traps.trap(isolate.failure(), self._binary)

    def recover(self, outermost: bool) -> None:
        """Clean up after a call that Python itself has ended, for example by a KeyboardInterrupt."""
        isolate, library = self._isolate, self._isolate.library
        self._pending.take()
        if self.watch is not None:
            self.watch.take_expired()
        if not isolate.pointer or not library.locked(isolate.pointer):
            return
        isolate.page[FAILED] = 0
        isolate.recover()
        if outermost:
            if self.watch is not None:
                self.watch.numbers[0] = 0
            isolate.levels[0] = isolate.scope[1] = isolate.scope[0] = 0
            library.drop_handles(isolate.at, isolate.at)
            if library.isolate_is_used(isolate.pointer):
                library.leave(isolate.at)
            library.unlock(isolate.locker_at)

    def end(self) -> None:
        """Drop all references to the isolate."""
        if self.watch is not None:
            self.watch.end()
