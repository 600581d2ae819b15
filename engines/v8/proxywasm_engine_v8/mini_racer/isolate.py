"""An isolate on a separate thread."""

from __future__ import annotations

import atexit
import ctypes
import json
import os
import weakref
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from proxywasm_engine_v8.bridge import FAILED, PAGE, failure
from proxywasm_engine_v8.routes import Thrown

from .calls import MiniRacerCalls
from .glue import SIZE
from .thread import V8Thread

if TYPE_CHECKING:
    from proxywasm_engine_v8.binary import Binary

    from .route import MiniRacer

__all__ = ["MiniRacerIsolate"]


class MiniRacerIsolate:
    """An isolate, see `routes.Isolate`. V8 may run callbacks until its thread has ended."""

    __slots__ = (
        "__weakref__",
        "_base",
        "_has_garbage",
        "_kept",
        "_seen",
        "_size",
        "hosts",
        "is_full",
        "is_inside",
        "page",
        "page_at",
        "thread",
    )

    def __init__(self, route: MiniRacer) -> None:
        self.thread = V8Thread(route.library, route.interrupts)
        self.page_at = self.thread.page_at
        self.page = (ctypes.c_ubyte * PAGE).from_address(self.page_at)
        self._size = ctypes.c_double.from_address(self.page_at + SIZE)
        self.hosts: Sequence[Any] = ()
        self.is_full = self.is_inside = False
        self._has_garbage = False
        self._base, self._seen = 0, -1
        self._kept: list[object] = []
        _alive.add(self)

    def keep(self, thing: object) -> None:
        """Keep `thing` until the isolate is freed."""
        self._kept.append(thing)

    def calls(self, binary: Binary, deadline: float | None) -> MiniRacerCalls:
        """The calls of the only instance in this isolate."""
        return MiniRacerCalls(self, binary, deadline)

    def compile(self, code: bytes) -> int:
        """Make a ``WebAssembly.Module`` of this isolate. The caller frees it with `drop`. Raises: Thrown."""
        thread = self.thread
        if self._has_garbage:
            self._has_garbage = False
            thread.collect()
        buffer = thread.ask("buffer", thread.number(len(code)))
        if buffer is None:
            raise Thrown("Error", "V8 has no room for the module", "")
        ctypes.memmove(buffer.data, code, len(code))
        module = thread.ask("compile", buffer.handle)
        self._check()
        return module.handle if module else 0

    def drop(self, handle: int) -> None:
        """Free a module. Does nothing in a child process, which does not have V8's thread."""
        if self.thread.context and self.thread.process == os.getpid():
            self.thread.free(handle)
            self._has_garbage = True

    def instantiate(self, plan: Mapping[str, Any], codes: Sequence[bytes], hosts: Sequence[Any]) -> list[Any]:
        """Make the instance, see `glue`. Returns an empty list: functions are called by number. Raises: Thrown."""
        self.hosts = hosts
        text = json.dumps({**plan, "hosts": len(hosts)})
        modules = [self.compile(code) for code in codes]  # V8 reuses the code that it has compiled of the same bytes
        self.thread.ask("instantiate", self.thread.string(text), *modules)
        self._check()
        return []

    def memory(self) -> tuple[int, int]:
        """Address and size of the guest's memory. Raises: Thrown."""
        size = int(self._size.value)
        if size != self._seen and not self.is_inside:
            buffer = self.thread.ask("memory")
            if buffer is not None:
                self._base, self._seen = buffer.data, buffer.size
                self.thread.free(buffer.handle)
        return self._base, size

    def dispose(self) -> None:
        """Free the isolate with everything in it. No thread may be in it."""
        self.thread.end()

    def __del__(self) -> None:
        thread = getattr(self, "thread", None)
        if thread is not None:
            thread.end()

    def _check(self) -> None:
        if self.page[FAILED]:
            self.page[FAILED] = 0
            raise failure(self.page)


_alive: weakref.WeakSet[MiniRacerIsolate] = weakref.WeakSet()


@atexit.register
def _leave_to_the_end() -> None:
    """Leave the remaining isolates to the end of the process."""
    for isolate in list(_alive):
        isolate.thread.context = 0
