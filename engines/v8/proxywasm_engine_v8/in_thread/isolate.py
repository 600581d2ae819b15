"""A V8 isolate with one context and the glue. It has its own heap, and serves one thread at a time."""

from __future__ import annotations

import atexit
import ctypes
import json
import weakref
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from proxywasm_engine_v8.bridge import FAILED, PAGE, failure
from proxywasm_engine_v8.glue import GLUE
from proxywasm_engine_v8.routes import Thrown
from proxywasm_host.forks import ThreadLocks

from .calls import InThreadCalls
from .library import Callback, NearLimit, address
from .stack import stack_limit

if TYPE_CHECKING:
    from proxywasm_engine_v8.binary import Binary

    from .route import InThread

__all__ = ["InThreadIsolate"]

_making = ThreadLocks()
"""Held while V8 makes or frees something without the GIL: in a child process forked meanwhile, its locks would remain
taken.
"""
_ROOM = 1200 << 20  # bytes that a guest may use beyond the heap limit until it has ended: more than the largest object


class InThreadIsolate:
    """An isolate, see `routes.Isolate`. Callbacks of V8 must exist as long as the isolate, see `keep`."""

    __slots__ = (
        "__weakref__",
        "_compile",
        "_get_memory",
        "_instantiate",
        "_kept",
        "_memory",
        "affinity",
        "at",
        "context",
        "full",
        "handles",
        "levels",
        "library",
        "locker",
        "locker_at",
        "page",
        "page_at",
        "pointer",
        "route",
        "scope",
        "undefined",
        "visitors",
    )

    def __init__(self, route: InThread) -> None:
        with _making.own:
            self._make(route)
        _alive.add(self)

    def _make(self, route: InThread) -> None:
        self.route = route
        self.library = library = route.library
        self._kept: list[Any] = []
        self.full = False
        self.visitors = ctypes.c_int()
        self.pointer: int | None = route.new_isolate()
        self.at = address(self.pointer)
        self.locker = ctypes.create_string_buffer(64)
        self.locker_at = ctypes.byref(self.locker)
        scope = (self.pointer or 0) + route.facts.scope_in_isolate
        self.scope = (ctypes.c_uint64 * 2).from_address(scope)
        self.levels = (ctypes.c_int * 2).from_address(scope + 16)
        self.affinity: Any = None
        """Keeps V8's lock in the last thread that used the isolate (``native/thread_affinity.c``), or ``None``."""
        self.context: Any = None
        with self.entered():
            context: int = library.context_new(self.pointer, *[None] * 13)
            global_context = self._global(context)
            self.context = address(global_context)
            library.context_enter(context)
            try:
                undefined = self._global(self._evaluate(context, "undefined"))
                self.undefined = address(undefined)
                self.handles = global_context, undefined
                glue = self._evaluate(context, GLUE)
                buffer, *functions = (library.get(glue, context, index) for index in (0, 1, 2, 4))
                self._compile, self._instantiate, self._get_memory = (address(self._global(item)) for item in functions)
                self._global(buffer)
                self.page_at: int = library.buffer_data(buffer)
            finally:
                library.context_exit(context)
            callback = NearLimit(self._near_limit())
            self.keep(callback)
            library.isolate_near_limit(self.pointer, callback, None)
        self.page = (ctypes.c_ubyte * PAGE).from_address(self.page_at)

    def keep(self, thing: object) -> None:
        """Keep `thing` until the isolate is freed."""
        self._kept.append(thing)

    def calls(self, binary: Binary, deadline: float | None) -> InThreadCalls:
        """The calls of the only instance in this isolate."""
        if self.route.native is not None:
            self.affinity = self.route.native.Affinity(self.pointer, self.handles[0], ctypes.addressof(self.scope))
        return InThreadCalls(self, binary, deadline)

    def stack_limit(self) -> int:
        """The lowest stack address that V8 may use on this thread. V8 must get it each time that the thread changes."""
        return stack_limit(self.library.stack_start())

    def compile(self, code: bytes) -> int:
        """Make a ``WebAssembly.Module`` of this isolate. The caller frees it with `drop`. Raises: Thrown."""
        library = self.library
        with _making.own, self.entered():
            if module := library.wasm_compile(self.pointer, code, len(code)):
                return self._global(module)
            self.recover()
            # Compile again from JavaScript, to get the error message.
            buffer = library.buffer_new(self.pointer, len(code), 1)
            ctypes.memmove(library.buffer_data(buffer), code, len(code))
            return self._global(self._called(self._compile, buffer))

    def instantiate(self, plan: Mapping[str, Any], codes: Sequence[bytes], hosts: Sequence[Any]) -> list[Any]:
        """Make the instance, see `glue`. Returns its functions as global handles. Raises: Thrown."""
        library = self.library
        with _making.own, self.entered():
            if self.affinity is None:
                library.isolate_stack_limit(self.pointer, self.stack_limit())
            arguments = [self._string(json.dumps(plan))]
            # All are valid, and V8 does not compile them again: the module holds the code that V8 made of these bytes.
            arguments += [library.wasm_compile(self.pointer, code, len(code)) for code in codes]
            for host in hosts:
                callback = host if isinstance(host, Callback) else Callback(host)
                self.keep(callback)
                arguments.append(library.function_new(self.context, callback, None, 0, 0, 0))
            if not all(arguments):
                self.recover()
                raise Thrown("Error", "V8 has no room for the instance", "")
            made = self._called(self._instantiate, *arguments)
            self._memory = address(self._global(self._called(self._get_memory)))
            count = len(plan["names"])
            for index in range(count, count + len(plan["large"])):
                library.optimise(1, library.get(made, self.context, index), self.pointer)
            functions = (library.get(made, self.context, index) for index in range(count))
            return [self._global(function) for function in functions]

    def memory(self) -> tuple[int, int]:
        """Address and size of the guest's memory."""
        with self.entered():
            buffer = self.library.memory_buffer(self._memory)  # without JavaScript, because an interrupt could end it
            return self.library.buffer_data(buffer) or 0, self.library.buffer_size(buffer)

    def failure(self) -> Thrown:
        """The last exception that the glue has reported."""
        return failure(self.page)

    def recover(self) -> None:
        """Clear the exception or termination of a call that V8 has ended. Must be called inside the isolate."""
        self.library.throw_termination(self.pointer)  # replaces any exception, because this one can be cancelled
        self.library.cancel_termination(self.pointer)

    def drop(self, handle: int) -> None:
        """Free a module."""
        if self.pointer:
            with _making.own, self.entered():
                self.library.dispose_global(handle)
                self.library.isolate_low_memory(self.pointer)

    def dispose(self) -> None:
        """Free the isolate with everything in it. No thread may be in it."""
        pointer, self.pointer = self.pointer, None
        if pointer:
            if self.affinity is not None:
                self.affinity.end()
            with _making.own:
                self.route.dispose(pointer)
            self._kept.clear()

    def __del__(self) -> None:
        self.dispose()

    def stack(self) -> list[tuple[str, int]]:
        """Script and position of each active call, innermost first. Must be called inside the isolate."""
        return self.library.stack(self.pointer)

    @contextmanager
    def entered(self) -> Iterator[None]:
        """Enter the isolate for the duration of the block; this thread may be inside already.

        While `visitors` is not zero, a thread must release the GIL before it waits for V8's lock. If the isolate has an
        `affinity`, no thread ever waits.

        Raises: RuntimeError if the isolate has an `affinity` and another thread is inside.
        """
        library, at, affinity = self.library, self.at, self.affinity
        outer = affinity.enter() if affinity is not None else 0
        locker = ctypes.byref(ctypes.create_string_buffer(64))
        self.visitors.value += 1
        library.wait_for_lock(locker, at)
        library.enter(at)
        scope, levels, context = self.scope, self.levels, self.context
        before, limit = scope
        levels[0] += 1
        if context is not None:
            library.context_enter(context)
        try:
            yield
        finally:
            if context is not None:
                library.context_exit(context)
            levels[0] -= 1
            scope[0] = before
            if scope[1] != limit:
                scope[1] = limit
                library.drop_handles(at, at)
            library.leave(at)
            library.unlock(locker)
            self.visitors.value -= 1
            if affinity is not None:
                affinity.leave(outer)

    def _called(self, function: Any, *arguments: int) -> int:
        values = (ctypes.c_void_p * max(len(arguments), 1))(*arguments)
        before, self.page[FAILED] = self.page[FAILED], 0  # the caller may be a call whose deadline has passed
        result: int | None = self.library.call(function, self.at, self.context, self.undefined, len(arguments), values)
        failed, self.page[FAILED] = self.page[FAILED], before
        if result is None:
            self.recover()
            raise Thrown("RangeError", "Maximum call stack size exceeded", "")
        if failed:
            raise self.failure()
        return result

    def _evaluate(self, context: int, source: str) -> int:
        script = self.library.script_compile(context, self._string(source), None)
        value: int | None = script and self.library.script_run(script, context)
        if not value:
            raise RuntimeError("V8 does not accept the engine's own script")
        return value

    def _string(self, text: str) -> int:
        encoded = text.encode()
        value: int = self.library.string_new(self.pointer, encoded, 0, len(encoded))
        return value

    def _global(self, handle: int) -> int:
        """Make a handle that outlives the scope."""
        value: int = self.library.globalize(self.pointer, ctypes.c_size_t.from_address(handle).value)
        return value

    def _near_limit(self) -> Any:
        reference = weakref.ref(self)
        terminate, at = self.library.terminate, self.at

        def near_limit(_: None, current: int, initial: int) -> int:
            isolate = reference()
            if isolate is not None:
                isolate.full = True
            terminate(at)
            return current + _ROOM

        return near_limit


_alive: weakref.WeakSet[InThreadIsolate] = weakref.WeakSet()


@atexit.register
def _leave_to_the_end() -> None:
    """Leave the remaining isolates to the end of the process: during shutdown, V8 is not called any more."""
    for isolate in list(_alive):
        isolate.pointer = None
