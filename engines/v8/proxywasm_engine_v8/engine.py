"""The engine: finding V8, and deciding whether it can be trusted."""

from __future__ import annotations

import hashlib
from functools import cached_property
from typing import ClassVar

from proxywasm_host.engine.protocol import Capabilities, InvalidModule

from .binary import Binary, Malformed, Refused
from .isolate import Isolate, Thrown
from .module import V8Module
from .start import start_v8

__all__ = ["V8Engine"]

_MAGIC = b"\0asm"


class V8Engine:
    """V8, as the wheel `mini-racer` brings it, in the calling thread.

    Args:
        self_check: Before V8 is used for the first time, see in a child process whether it can be.

    Raises: EngineUnavailable.
    """

    name: ClassVar[str] = "v8"
    priority: ClassVar[int] = 200

    def __init__(self, *, self_check: bool = True) -> None:
        self._v8 = start_v8(self_check=self_check)
        self.version = self._v8.version
        self.capabilities = Capabilities(
            memory_limit=True, deadline=True, backtrace=True, validation=True, fork=True
        )
        self.note = self._v8.note
        self.fingerprint = hashlib.blake2b(self.version.encode(), digest_size=16).hexdigest()

    def compile(self, bytecode: bytes) -> V8Module:
        """Validate and compile `bytecode`. Raises: InvalidModule."""
        if not bytecode.startswith(_MAGIC):
            raise InvalidModule("no WebAssembly module: it does not begin with the bytes 00 61 73 6d")
        workshop = self._workshop
        try:
            binary = Binary(bytecode)
            return V8Module(workshop, binary, workshop.compile(binary.rewritten))
        except Refused as error:
            raise InvalidModule(str(error)) from None
        except (Malformed, IndexError, Thrown) as error:
            raise InvalidModule(self._complaint(bytecode) or str(error)) from None

    def deserialise(self, compiled: bytes) -> V8Module:
        """Not possible."""
        raise InvalidModule("V8 compiles a function when it is first called: nothing was ever serialised")

    @cached_property
    def _workshop(self) -> Isolate:
        return Isolate(self._v8)

    def _complaint(self, bytecode: bytes) -> str:
        """What V8 says of a module as it came in, with positions in it."""
        try:
            self._workshop.drop(self._workshop.compile(bytecode))
        except Thrown as thrown:
            message = thrown.message.removeprefix("WebAssembly.Module(): ")
            wrong_type = any(words in message for words in ("type error", "on the stack", "expected type"))
            return f"type mismatch: {message}" if wrong_type else message
        return ""
