"""The engine: it starts V8 and compiles modules."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import ClassVar

from proxywasm_host.engine.protocol import Capabilities, InvalidModule

from .address_space import FOR_AN_ISOLATE, lacking
from .binary import Binary
from .module import V8Module
from .reader import Malformed, Refused
from .routes import Thrown
from .start import IN_THREAD, MINI_RACER, start_v8

__all__ = ["V8Engine"]

_MAGIC = b"\0asm"


class V8Engine:
    """V8 from the wheel `mini-racer`.

    Args:
        route: ``in-thread`` calls V8's C++ interface in the calling thread. ``mini-racer`` calls the wheel's C
            functions, which run V8 on separate threads: the results are the same, but calls are many times slower. By
            default ``in-thread`` if it is safe, else ``mini-racer``.
        native: Whether the route in the calling thread may use the C extension. Through ctypes, a call takes some µs
            more.
        self_check: Whether a route is tested in a child process before its first use.

    Raises: EngineUnavailable; ValueError if the route does not exist.
    """

    name: ClassVar[str] = "v8"
    priority: ClassVar[int] = 200
    limits: ClassVar[str] = (
        "functions are compiled when they are first called, and optimised when they are hot; those estimated to take "
        "more than 40 ms are compiled and optimised when they are loaded, and those above 2 s are refused; memory and "
        "tables by their declared maximum; deadlines in guest code; 1.4 TiB of address space are reserved"
    )

    def __init__(self, *, route: str | None = None, native: bool = True, self_check: bool = True) -> None:
        if route not in (None, IN_THREAD, MINI_RACER):
            raise ValueError(f"route {route!r} is neither {IN_THREAD!r} nor {MINI_RACER!r}")
        self.route = start_v8(route, native=native, self_check=self_check)
        self.version = self.route.version
        self.capabilities = Capabilities(
            memory_limit=True, deadline=True, backtrace=True, validation=True, fork=self.route.forks
        )
        self.note = self.route.note
        self.fingerprint = hashlib.blake2b(self.version.encode(), digest_size=16).hexdigest()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.version}, {self.note}>"

    def compile(self, bytecode: bytes) -> V8Module:
        """Validate and compile `bytecode`. Raises: InvalidModule."""
        return self.compile_early(bytecode, ())

    def compile_early(self, bytecode: bytes, slow: Sequence[int], ranges: bytes | None = None) -> V8Module:
        """Validate and compile `bytecode`, with functions that are optimised before the first call.

        Args:
            slow: Functions to optimise when the first instance is made, and not during a call; they are numbered
                without imported functions.
            ranges: Positions of instructions that V8 does not interrupt, if known, see `bulk.ranges_of`.

        Raises: InvalidModule.
        """
        if not bytecode.startswith(_MAGIC):
            raise InvalidModule("not a WebAssembly module: it does not begin with the bytes 00 61 73 6d")
        if reason := lacking(FOR_AN_ISOLATE):
            raise InvalidModule(reason)
        compiling_isolate = self.route.compiling_isolate()
        try:
            binary = Binary(bytecode, slow, ranges)
            return V8Module(self.route, compiling_isolate, binary, compiling_isolate.compile(binary.rewritten))
        except Refused as error:
            raise InvalidModule(str(error)) from None
        except (Malformed, IndexError, Thrown) as error:
            raise InvalidModule(self._complaint(bytecode) or str(error)) from None

    def deserialise(self, compiled: bytes) -> V8Module:
        """Not supported. Raises: InvalidModule."""
        raise InvalidModule("V8 compiles a function when it is first called, and never serialises modules")

    def _complaint(self, bytecode: bytes) -> str:
        """V8's message about the unchanged module, with positions in it; empty if V8 accepts it."""
        try:
            compiling_isolate = self.route.compiling_isolate()
            compiling_isolate.drop(compiling_isolate.compile(bytecode))
        except Thrown as thrown:
            message = thrown.message.removeprefix("WebAssembly.Module(): ")
            wrong_type = any(words in message for words in ("type error", "on the stack", "expected type"))
            return f"type mismatch: {message}" if wrong_type else message
        return ""
