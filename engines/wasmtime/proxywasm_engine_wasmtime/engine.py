"""The engine: its options, its configuration, and the choice of a route for its calls."""

from __future__ import annotations

import ctypes
import hashlib
import os
import platform
import warnings
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any, ClassVar, Literal

import wasmtime
import wasmtime._ffi as ffi

from proxywasm_host import remedy
from proxywasm_host.engine.adapter import after_identity, identity
from proxywasm_host.engine.protocol import Capabilities, InvalidModule, Limits
from proxywasm_host.errors import EngineUnavailable, ModuleError
from proxywasm_host.extension import TURNED_OFF, load
from proxywasm_host.forks import cached_property
from proxywasm_host.wasm import Binary

from . import signals
from .capi import CApi
from .deadline import Ticker
from .exit import quiet_at_exit
from .making import making
from .module import WasmtimeModule
from .selfcheck import MODULE, transcript
from .stack import GUESTS

__all__ = ["WasmtimeEngine"]

_RESERVATION = 4 << 30  # bytes: the maximum of 32-bit memory, which therefore never moves
_MAGIC = b"\0asm"
_SINGLE_PASS = 1
_KNOWN_TYPES = frozenset({"i32", "i64", "f32", "f64", "funcref", "externref"})
_LEFT_OUT = ("wasm_gc", "wasm_function_references", "wasm_exceptions", "wasm_multi_memory")


class WasmtimeEngine:
    """Wasmtime from the wheel `wasmtime`.

    Args:
        route: ``native`` calls Wasmtime's C API from our C extension, if that was built; ``ctypes`` calls it from
            Python, which is slower; ``objects`` uses wasmtime-py's classes, which is many times slower. By default the
            first that is available and returns the same as ``objects`` in a check.
        optimise: ``speed`` of the guest's code, or ``none`` to compile in about half of the time.
        parallel_compilation: Whether to compile on all processors.
        deadline: Whether compiled code can be stopped. Without it, guests with long loops are a few percent to a fifth
            faster, and `Limits.deadline` is refused.

    Raises: EngineUnavailable if the requested route is not possible; ValueError if an option has another value.
    """

    name: ClassVar[str] = "wasmtime"
    priority: ClassVar[int] = 300
    limits: ClassVar[str] = (
        "modules that are not small are compiled in a separate process, with limits of time and memory; "
        "memory and tables by Wasmtime's limiter; deadlines in guest code"
    )

    def __init__(
        self,
        *,
        route: Literal["native", "ctypes", "objects"] | None = None,
        optimise: Literal["speed", "none"] = "speed",
        parallel_compilation: bool = True,
        deadline: bool = True,
    ) -> None:
        if route not in (None, "native", "ctypes", "objects"):
            raise ValueError(f"route {route!r} is neither 'native' nor 'ctypes' nor 'objects'")
        if optimise not in ("speed", "none"):
            raise ValueError(f"optimise {optimise!r} is neither 'speed' nor 'none'")
        self.version = version("wasmtime")
        self.capabilities = Capabilities(
            serialise=True, memory_limit=True, deadline=deadline, backtrace=True, validation=True, fork=True
        )
        self._optimise = optimise
        self._deadline = deadline
        self.compile_options: Mapping[str, object] = {
            "route": "objects",
            "optimise": optimise,
            "parallel_compilation": parallel_compilation,
            "deadline": deadline,
        }
        self._process = os.getpid()
        self._engine = quiet_at_exit(wasmtime.Engine(self._config(parallel=parallel_compilation)))
        signals.remember()
        self._ticker = Ticker(self._engine)
        self._api: CApi | None = None
        self.fingerprint = self._fingerprint()
        self.note = self._take_route(route)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.version}, {self.note}>"

    def compile(self, bytecode: bytes) -> WasmtimeModule:
        """Validate and compile `bytecode`. Raises: InvalidModule."""
        if not bytecode.startswith(_MAGIC):  # wasmtime-py would read other bytes as text
            raise InvalidModule("not a WebAssembly module: it does not begin with the bytes 00 61 73 6d")
        _check_types(bytecode)
        try:
            with making.own:
                if os.getpid() == self._process:
                    return self._module(wasmtime.Module(self._engine, bytecode))
                # This child process does not have the threads that compile in parallel, and would wait for them for
                # ever. So another engine with the same configuration compiles, and its code is transferred as bytes.
                return self._deserialise(bytes(wasmtime.Module(self._serial, bytecode).serialize()))
        except wasmtime.WasmtimeError as error:
            raise InvalidModule(str(error)) from None

    def deserialise(self, compiled: bytes) -> WasmtimeModule:
        """Load the result of `WasmtimeModule.serialise` of the same `fingerprint`. Raises: InvalidModule."""
        try:
            with making.own:
                return self._deserialise(compiled, after_identity(self, compiled))
        except wasmtime.WasmtimeError as error:
            raise InvalidModule(str(error)) from None

    def _deserialise(self, code: bytes, start: int = 0) -> WasmtimeModule:
        """The module of the bytes from `start`. wasmtime-py's function would copy them, often tens of megabytes."""
        found = ctypes.POINTER(ffi.wasmtime_module_t)()
        address = ctypes.cast(ctypes.c_char_p(code), ctypes.c_void_p).value or 0
        place = ctypes.cast(address + start, ctypes.POINTER(ctypes.c_uint8))
        error = ffi.wasmtime_module_deserialize(self._engine.ptr(), place, len(code) - start, ctypes.byref(found))
        if error:
            raise wasmtime.WasmtimeError._from_ptr(error)
        return self._module(wasmtime.Module._from_ptr(found))

    @cached_property
    def _serial(self) -> wasmtime.Engine:
        return quiet_at_exit(wasmtime.Engine(self._config(parallel=False)))

    def _config(self, *, parallel: bool) -> wasmtime.Config:
        config = wasmtime.Config()
        config.epoch_interruption = self._deadline
        config.cranelift_opt_level = self._optimise
        allocate_registers = getattr(ffi, "wasmtime_config_cranelift_regalloc_algorithm_set", None)  # since version 46
        if self._optimise == "none" and allocate_registers is not None:
            allocate_registers(config.ptr(), _SINGLE_PASS)  # halves the time
        config.parallel_compilation = parallel
        config.max_wasm_stack = GUESTS
        # Some versions of wasmtime-py in our range have these as C functions only.
        ffi.wasmtime_config_memory_may_move_set(config.ptr(), False)
        ffi.wasmtime_config_memory_reservation_set(config.ptr(), _RESERVATION)
        # Wasmtime's C API ends the process when it has to return a type of these proposals, which no filter needs.
        for proposal in _LEFT_OUT:
            switch = getattr(ffi, f"wasmtime_config_{proposal}_set", None)
            if switch is not None:
                switch(config.ptr(), False)
        return config

    def _module(self, module: wasmtime.Module) -> WasmtimeModule:
        return WasmtimeModule(
            self._engine, module, self._api, self._ticker, identity(self), interruptible=self._deadline
        )

    def _take_route(self, wanted: str | None) -> str:
        """Set `_api` if a fast route is used. Returns the text of `note`."""
        if wanted == "objects":
            return "wasmtime-py's objects, as requested (slow)"
        native, state = load("proxywasm_engine_wasmtime._native")
        why = ""
        if native is not None and wanted != "ctypes":
            problem = self._open_fast_route(native)
            if problem is None:
                return "C API from C"
            state = f"cannot be used: {problem}"
        if wanted == "native":
            raise _unavailable(f"the C extension of the engine is {state}")
        if wanted is None:
            why = f" (the C extension is {state})"
        problem = self._open_fast_route(None)
        if problem is None:
            return f"C API through ctypes{why}"
        if wanted == "ctypes":
            raise _unavailable(f"the C API of wasmtime {self.version} cannot be used through ctypes: {problem}")
        self._api = None
        warnings.warn(
            f"wasmtime {self.version} is used through wasmtime-py's objects, which is many times slower, "
            f"because its C API cannot be used: {problem}",
            RuntimeWarning,
            stacklevel=4,
        )
        return f"wasmtime-py's objects (slow), because the C API cannot be used: {problem}"

    def _open_fast_route(self, native: Any) -> str | None:
        """Set `_api` for calls from the extension `native`, or through ctypes, if a check succeeds.

        Returns a description of the problem, or ``None``.
        """
        compiled = wasmtime.Module(self._engine, MODULE)
        self._api = None
        plain = self._module(compiled)
        try:
            api = CApi()
        except (AttributeError, OSError) as error:
            return str(error)
        if native is not None:
            api.use_native(native, self._engine)
        self._api = api
        fast = self._module(compiled)
        limits = Limits()
        expected, got = (
            transcript(lambda module, mix: module.instantiate([mix], limits), module) for module in (plain, fast)
        )
        return None if got == expected else f"the self-check got {got}, not {expected}"

    def _fingerprint(self) -> str:
        facts = (
            self.version,
            self._optimise,
            self._deadline,
            _LEFT_OUT,
            platform.system(),
            platform.machine(),
            _processor_features(),
        )
        return hashlib.blake2b(repr(facts).encode(), digest_size=16).hexdigest()


def _unavailable(reason: str) -> EngineUnavailable:
    """The error for a requested route that is not available."""
    if reason.endswith(TURNED_OFF):
        return EngineUnavailable("wasmtime", f"not usable: {reason}", "remove that setting, or take another route")
    upgrade = remedy.install_engine("proxywasm-engine-wasmtime", upgrade=True)
    return EngineUnavailable("wasmtime", f"not usable: {reason}", f"{upgrade}, or take another route")


def _check_types(bytecode: bytes) -> None:
    """Refuse types for which Wasmtime's C API ends the process when it has to return them. Raises: InvalidModule."""
    try:
        binary = Binary(bytecode)
        functions = [(f"import {module}.{name}", type) for module, name, _, type in binary.imports]
        functions += [(f"export {name}", type) for name, _, type in binary.exports]
    except ModuleError as error:
        raise InvalidModule(str(error)) from None
    for where, type in functions:
        if type is not None and not _KNOWN_TYPES.issuperset(type[0] + type[1]):
            raise InvalidModule(f"{where} has a type that cannot cross between guest and host: {type}")


def _processor_features() -> str:
    """The features of the processor, which determine the instructions in compiled code.

    The system may report them incompletely; Wasmtime checks them again when it loads code.
    """
    try:
        with Path("/proc/cpuinfo").open(encoding="utf-8", errors="replace") as lines:
            return next((line for line in lines if line.startswith(("flags", "Features"))), "")
    except OSError:
        return platform.processor()
