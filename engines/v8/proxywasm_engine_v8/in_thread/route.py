"""V8 in the calling thread of this process."""

from __future__ import annotations

import ctypes
from typing import Any

from proxywasm_host.forks import cached_property

from .facts import Facts
from .isolate import InThreadIsolate
from .library import Library
from .native import use

__all__ = ["InThread"]

_LARGEST_PARAMETERS = 1024


class InThread:
    """The route in the calling thread, see `routes.Route`."""

    follows = forks = sees_loops = True

    def __init__(self, library: Library, facts: Facts, version: str, note: str, native: Any) -> None:
        self.library = library
        self.version = version
        self.note = note
        self.native = native
        self.facts = facts
        self._parameters = ctypes.create_string_buffer(_LARGEST_PARAMETERS)
        library.create_params(self._parameters)
        allocator: int = library.allocator()
        ctypes.c_void_p.from_buffer(self._parameters, facts.allocator_in_create_params).value = allocator
        if native is not None:
            use(native, library)
        self._platform: int = library.platform()
        self.room: int = library.sandbox_size() or 1 << 46

    def isolate(self) -> InThreadIsolate:
        """Make an isolate."""
        return InThreadIsolate(self)

    def compiling_isolate(self) -> InThreadIsolate:
        """The isolate in which modules are compiled."""
        return self._workshop

    @cached_property
    def _workshop(self) -> InThreadIsolate:
        return self.isolate()

    def new_isolate(self) -> int:
        """Make a ``v8::Isolate`` and return its address."""
        pointer: int = self.library.isolate_new(self._parameters)
        return pointer

    def dispose(self, isolate: int) -> None:
        """Free a ``v8::Isolate`` with everything in it. No thread may be in it."""
        self.library.forget_isolate(self._platform, isolate)
        self.library.isolate_dispose(isolate)
