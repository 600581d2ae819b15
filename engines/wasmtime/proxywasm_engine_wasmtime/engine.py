"""The engine: its configuration, and which route its calls take."""

from __future__ import annotations

import hashlib
import platform
from importlib.metadata import version
from typing import ClassVar

import wasmtime
import wasmtime._ffi as ffi
from proxywasm_host.engine.protocol import Capabilities, InvalidModule

from .capi import CApi
from .deadline import Ticker
from .module import WasmtimeModule

__all__ = ["WasmtimeEngine"]

_GIB = 1 << 30


class WasmtimeEngine:
    """Wasmtime, by the wheel `wasmtime`."""

    name: ClassVar[str] = "wasmtime"
    priority: ClassVar[int] = 300

    def __init__(self) -> None:
        self.version = version("wasmtime")
        self.capabilities = Capabilities(serialise=True, memory_limit=True, deadline=True, backtrace=True)
        self.note = ""
        self._engine = wasmtime.Engine(_config())
        self._ticker = Ticker(self._engine)
        self._api = CApi()
        parts = (self.version, platform.machine(), platform.system())
        self.fingerprint = hashlib.blake2b(repr(parts).encode(), digest_size=16).hexdigest()

    def compile(self, bytecode: bytes) -> WasmtimeModule:
        """Validate and compile. Raises: InvalidModule."""
        try:
            # Text would be taken as well.
            if not bytecode.startswith(b"\0asm"):
                raise InvalidModule("no WebAssembly module: it does not begin with \\0asm")
            return self._module(wasmtime.Module(self._engine, bytecode))
        except wasmtime.WasmtimeError as error:
            raise InvalidModule(str(error)) from None

    def deserialise(self, compiled: bytes) -> WasmtimeModule:
        """Load what `serialise` gave. Raises: InvalidModule."""
        try:
            return self._module(wasmtime.Module.deserialize(self._engine, compiled))
        except wasmtime.WasmtimeError as error:
            raise InvalidModule(str(error)) from None

    def _module(self, module: wasmtime.Module) -> WasmtimeModule:
        return WasmtimeModule(self._engine, module, self._api, self._ticker, True)


def _config() -> wasmtime.Config:
    config = wasmtime.Config()
    config.epoch_interruption = True
    config.max_wasm_stack = 512 << 10
    # wasmtime-py has properties for these only since some version; the C functions are older.
    ffi.wasmtime_config_memory_may_move_set(config.ptr(), False)
    ffi.wasmtime_config_memory_reservation_set(config.ptr(), 4 * _GIB)
    return config
