"""One isolate of V8, with one context and the glue: a heap of its own, in which one thread at a time can be."""

from __future__ import annotations

import atexit
import ctypes
import json
import os
import weakref
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from .bridge import FAILED, PAGE, REPORT
from .facts import Facts
from .glue import GLUE
from .library import Callback, Library, NearLimit, address
from .stack import lowest_stack

__all__ = ["V8", "Isolate", "Thrown"]

_LARGEST_PARAMETERS = 1024
_MOST_FRAMES = 64
_ALL_DETAILS = 0x7F
_ROOM = 1200 << 20  # what a guest gets beyond the limit of the heap to end in peace: more than any one object takes


class Thrown(Exception):
    """JavaScript's exception: its class, its message, its stack."""

    def __init__(self, kind: str, message: str, stack: str) -> None:
        super().__init__(message)
        self.kind = kind
        self.message = message
        self.stack = stack


class V8:
    """V8 in this process."""

    def __init__(self, library: Library, facts: Facts, version: str, note: str) -> None:
        self.library = library
        self.version = version
        self.note = note
        self.facts = facts
        self.process = os.getpid()
        self._parameters = ctypes.create_string_buffer(_LARGEST_PARAMETERS)
        library.create_params(self._parameters)
        allocator: int = library.allocator()
        ctypes.c_void_p.from_buffer(self._parameters, facts.allocator_in_create_params).value = allocator
        self._platform: int = library.platform()
        self.room: int = library.sandbox_size() or 1 << 46

    def new_isolate(self) -> int:
        """A new ``v8::Isolate``."""
        pointer: int = self.library.isolate_new(self._parameters)
        return pointer

    def dispose(self, isolate: int) -> None:
        """Free an isolate that nobody is in, with everything in it."""
        self.library.forget_isolate(self._platform, isolate)
        self.library.isolate_dispose(isolate)


class Isolate:
    """An isolate. What V8 calls back must be kept as long as it lives (`keep`)."""

    __slots__ = (
        "__weakref__",
        "_compile",
        "_instantiate",
        "_kept",
        "_memory",
        "at",
        "context",
        "full",
        "levels",
        "library",
        "locker",
        "locker_at",
        "page",
        "page_at",
        "pointer",
        "scope",
        "undefined",
        "v8",
        "visitors",
    )

    def __init__(self, v8: V8) -> None:
        self.v8 = v8
        self.library = library = v8.library
        self._kept: list[Any] = []
        self.full = False
        self.visitors = 0
        self.pointer: int | None = v8.new_isolate()
        self.at = address(self.pointer)
        self.locker = ctypes.create_string_buffer(64)
        self.locker_at = ctypes.byref(self.locker)
        scope = (self.pointer or 0) + v8.facts.scope_in_isolate
        self.scope = (ctypes.c_uint64 * 2).from_address(scope)
        self.levels = (ctypes.c_int * 2).from_address(scope + 16)
        self.context: Any = None
        with self.entered():
            context: int = library.context_new(self.pointer, *[None] * 13)
            self.context = address(self._global(context))
            library.context_enter(context)
            try:
                self.undefined = address(self._global(self._evaluate(context, "undefined")))
                glue = self._evaluate(context, GLUE)
                buffer, *functions = (library.get(glue, context, index) for index in range(4))
                self._compile, self._instantiate, self._memory = (address(self._global(item)) for item in functions)
                self._global(buffer)
                self.page_at: int = library.buffer_data(buffer)
            finally:
                library.context_exit(context)
            callback = NearLimit(self._near_limit())
            self.keep(callback)
            library.isolate_near_limit(self.pointer, callback, None)
        self.page = (ctypes.c_ubyte * PAGE).from_address(self.page_at)
        _alive.add(self)

    def keep(self, callback: Any) -> None:
        """Keep `callback` alive as long as the isolate."""
        self._kept.append(callback)

    def limit_stack(self) -> None:
        """Let V8 use less of this thread's stack, if it is a small one. For each thread that comes anew."""
        limit = lowest_stack()
        if limit is not None:
            with self.entered():
                self.library.isolate_stack_limit(self.pointer, limit)

    def compile(self, code: bytes) -> int:
        """A ``WebAssembly.Module`` of this isolate, to be dropped by `drop`. Raises: Thrown."""
        library = self.library
        with self.entered():
            buffer = library.buffer_new(self.pointer, len(code), 1)
            ctypes.memmove(library.buffer_data(buffer), code, len(code))
            return self._global(self._called(self._compile, buffer))

    def instantiate(self, plan: Mapping[str, Any], codes: Sequence[bytes], hosts: Sequence[Any]) -> list[Any]:
        """Make an instance; see `glue`. Returns: functions to be called without arguments. Raises: Thrown."""
        library = self.library
        with self.entered():
            arguments = [self._string(json.dumps(plan))]
            # All are valid, and not compiled anew: V8 gives what it has compiled of the same bytes while it is held.
            arguments += [library.wasm_compile(self.pointer, code, len(code)) for code in codes]
            for host in hosts:
                callback = Callback(host)
                self.keep(callback)
                arguments.append(library.function_new(self.context, callback, None, 0, 0, 0))
            if not all(arguments):
                self.recover()
                raise Thrown("Error", "V8 has no room for the instance", "")
            made = self._called(self._instantiate, *arguments)
            functions = (library.get(made, self.context, index) for index in range(len(plan["names"])))
            return [address(self._global(function)) for function in functions]

    def memory(self) -> tuple[int, int]:
        """Address and size of the guest's memory. Raises: Thrown."""
        with self.entered():
            buffer = self._called(self._memory)
            return self.library.buffer_data(buffer) or 0, self.library.buffer_size(buffer)

    def failure(self) -> Thrown:
        """What the glue has reported last."""
        report = memoryview(self.page).cast("B")[REPORT:]
        size = int.from_bytes(report[:4], "little")
        kind, _, text = bytes(report[4 : 4 + 2 * size]).decode("utf-16-le", "replace").partition("\n")
        message, _, stack = text.partition("\n")
        return Thrown(kind, message, stack)

    def recover(self) -> None:
        """Leave nothing behind of a call that V8 has ended with an exception or a termination. To be called inside."""
        self.library.throw_termination(self.pointer)  # in place of whatever it was, for this one can be cancelled
        self.library.cancel_termination(self.pointer)

    def drop(self, handle: int) -> None:
        """Give a module back."""
        if self.pointer:
            with self.entered():
                self.library.dispose_global(handle)
                self.library.isolate_low_memory(self.pointer)

    def dispose(self) -> None:
        """Free the isolate with everything in it. Nobody may be in it."""
        pointer, self.pointer = self.pointer, None
        if pointer:
            self.v8.dispose(pointer)
            self._kept.clear()

    def __del__(self) -> None:
        self.dispose()

    def _script(self, frame: int) -> str:
        name = self.library.frame_script(frame)
        if not name:
            return ""
        place = (ctypes.c_void_p * 2)()
        self.library.string_value(place, self.pointer, name)
        try:
            return ctypes.string_at(place[0], place[1] or 0).decode(errors="replace") if place[0] else ""
        finally:
            self.library.string_value_end(place)

    def stack(self) -> list[tuple[str, int]]:
        """Script and position of what is under way, innermost first. To be called inside."""
        library = self.library
        trace = library.stack_trace(self.pointer, _MOST_FRAMES, _ALL_DETAILS)
        frames = (library.stack_frame(trace, self.pointer, index) for index in range(library.stack_size(trace)))
        return [(self._script(frame), library.frame_location(frame) >> 32) for frame in frames]

    @contextmanager
    def entered(self) -> Iterator[None]:
        """Be in the isolate, whether or not this thread is in it already.

        While `visitors` is not zero, V8's lock must be waited for without the GIL.
        """
        library, at = self.library, self.at
        locker = ctypes.byref(ctypes.create_string_buffer(64))
        self.visitors += 1
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
            self.visitors -= 1

    def _called(self, function: Any, *arguments: int) -> int:
        values = (ctypes.c_void_p * max(len(arguments), 1))(*arguments)
        self.page[FAILED] = 0
        result: int | None = self.library.call(function, self.at, self.context, self.undefined, len(arguments), values)
        if result is None:
            self.recover()
            raise Thrown("RangeError", "Maximum call stack size exceeded", "")
        if self.page[FAILED]:
            self.page[FAILED] = 0
            raise self.failure()
        return result

    def _evaluate(self, context: int, source: str) -> int:
        script = self.library.script_compile(context, self._string(source), None)
        value: int | None = script and self.library.script_run(script, context)
        if not value:
            raise RuntimeError("V8 does not take the engine's own script")
        return value

    def _string(self, text: str) -> int:
        encoded = text.encode()
        value: int = self.library.string_new(self.pointer, encoded, 0, len(encoded))
        return value

    def _global(self, handle: int) -> int:
        """A handle that outlives the scope."""
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


_alive: weakref.WeakSet[Isolate] = weakref.WeakSet()


@atexit.register
def _leave_to_the_end() -> None:
    """What lives until the end of the process ends with it: V8 need not be told while all is being torn down."""
    for isolate in list(_alive):
        isolate.pointer = None
