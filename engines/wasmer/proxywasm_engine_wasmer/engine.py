"""The engine: its options, and how it makes modules of bytes."""

from __future__ import annotations

import hashlib
import os
import platform
from pathlib import Path
from typing import ClassVar, Literal

from proxywasm_host.engine.adapter import identity, listeners, without_identity
from proxywasm_host.engine.protocol import Capabilities, InvalidModule
from proxywasm_host.extension import NATIVE_ABI

from . import _native
from .module import WasmerModule

__all__ = ["WasmerEngine"]

_MAGIC = b"\0asm"


class WasmerEngine:
    """Wasmer with Cranelift, in a Rust extension of our own.

    Args:
        optimise: ``speed`` of the guest's code, or ``none`` to compile in less time.
        parallel_compilation: Whether to compile on all processors.

    Raises: ValueError if an option has another value.
    """

    name: ClassVar[str] = "wasmer"
    priority: ClassVar[int] = 100
    limits: ClassVar[str] = (
        "modules that are not small are compiled in a separate process, with limits of time and memory; "
        "memory and tables by their declared maximum; deadlines by signals"
    )

    def __init__(self, *, optimise: Literal["speed", "none"] = "speed", parallel_compilation: bool = True) -> None:
        if optimise not in ("speed", "none"):
            raise ValueError(f"optimise {optimise!r} is neither 'speed' nor 'none'")
        self.version = _native.VERSION
        self.capabilities = Capabilities(
            serialise=True, memory_limit=True, deadline=True, backtrace=True, validation=True, fork=True
        )
        self.note = "Cranelift, in a Rust extension"
        if _native.NATIVE_ABI != NATIVE_ABI:
            self.note += (
                f" (calls go through Python: it was built for native ABI {_native.NATIVE_ABI}, and this proxywasm-host "
                f"has {NATIVE_ABI}: install a matching version of proxywasm-engine-wasmer)"
            )
        self.compile_options = {"optimise": optimise, "parallel_compilation": parallel_compilation}
        self._optimise = optimise == "speed"
        self._parallel = parallel_compilation
        facts = (
            self.version,
            _native.FINGERPRINT,
            optimise,
            platform.system(),
            platform.machine(),
            _processor_features(),
        )
        self.fingerprint = hashlib.blake2b(repr(facts).encode(), digest_size=16).hexdigest()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.version}, {self.note}>"

    def compile(self, bytecode: bytes) -> WasmerModule:
        """Validate and compile `bytecode`. Raises: InvalidModule."""
        if not bytecode.startswith(_MAGIC):
            raise InvalidModule("not a WebAssembly module: it does not begin with the bytes 00 61 73 6d")
        try:
            return WasmerModule(_native.compile(bytecode, self._optimise, self._parallel), identity(self))
        except ValueError as error:
            raise InvalidModule(str(error)) from None

    def deserialise(self, compiled: bytes) -> WasmerModule:
        """Load the result of `WasmerModule.serialise` of the same `fingerprint`. Raises: InvalidModule."""
        code = without_identity(self, compiled)
        try:
            return WasmerModule(_native.deserialise(code), identity(self))
        except ValueError as error:
            raise InvalidModule(str(error)) from None


def _processor_features() -> str:
    """The features of the processor, which determine the instructions in compiled code.

    The system may report them incompletely; Wasmer checks them again when it loads code.
    """
    try:
        with Path("/proc/cpuinfo").open(encoding="utf-8", errors="replace") as lines:
            return next((line for line in lines if line.startswith(("flags", "Features"))), "")
    except OSError:
        return platform.processor()


listeners.append(_native.handlers_changed)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_native.after_fork)
