"""The functions of Wasmtime's C API that the fast routes call, from the library in the wheel `wasmtime`.

Functions have prototypes, except ``wasmtime_func_call_unchecked``, the only one that is called often: its arguments are
results of ``ctypes.byref``, made once, which ctypes passes without conversion.
"""

from __future__ import annotations

import ctypes
from ctypes import CFUNCTYPE, POINTER, c_bool, c_char_p, c_size_t, c_uint8, c_uint32, c_uint64, c_void_p
from typing import Any

import wasmtime._ffi as ffi

from .signals import bring_forward, is_enabled
from .stack import check_stack

__all__ = ["CApi", "DeadlineCallback", "HostCallback", "address_of"]

HostCallback = CFUNCTYPE(c_void_p, c_void_p, c_void_p, c_void_p, c_size_t)
"""``(environment, caller, slots, number of slots) -> trap``; pointers are ints, and null pointers are ``None``."""

DeadlineCallback = CFUNCTYPE(c_void_p, c_void_p, c_void_p, POINTER(c_uint64), c_void_p)
"""``(context, environment, ticks to add, kind of update) -> error``."""

_PROTOTYPES: dict[str, tuple[Any, list[Any]]] = {
    "wasm_byte_vec_delete": (None, [c_void_p]),
    "wasm_frame_func_index": (c_uint32, [c_void_p]),
    "wasm_frame_module_offset": (c_size_t, [c_void_p]),
    "wasm_frame_vec_delete": (None, [c_void_p]),
    "wasm_trap_delete": (None, [c_void_p]),
    "wasm_trap_message": (None, [c_void_p, c_void_p]),
    "wasm_trap_trace": (None, [c_void_p, c_void_p]),
    "wasmtime_engine_increment_epoch": (None, [c_void_p]),
    "wasmtime_caller_export_get": (c_bool, [c_void_p, c_char_p, c_size_t, c_void_p]),
    "wasmtime_context_set_epoch_deadline": (None, [c_void_p, c_uint64]),
    "wasmtime_error_delete": (None, [c_void_p]),
    "wasmtime_error_message": (None, [c_void_p, c_void_p]),
    "wasmtime_error_new": (c_void_p, [c_char_p]),
    "wasmtime_error_wasm_trace": (None, [c_void_p, c_void_p]),
    "wasmtime_frame_func_name": (c_void_p, [c_void_p]),
    "wasmtime_frame_module_name": (c_void_p, [c_void_p]),
    "wasmtime_func_call_unchecked": (c_void_p, []),
    "wasmtime_func_new_unchecked": (None, [c_void_p, c_void_p, HostCallback, c_void_p, c_void_p, c_void_p]),
    "wasmtime_instance_export_get": (c_bool, [c_void_p, c_void_p, c_char_p, c_size_t, c_void_p]),
    "wasmtime_instance_new": (c_void_p, [c_void_p, c_void_p, c_void_p, c_size_t, c_void_p, c_void_p]),
    "wasmtime_memory_data": (c_void_p, [c_void_p, c_void_p]),
    "wasmtime_memory_data_size": (c_size_t, [c_void_p, c_void_p]),
    "wasmtime_store_context": (c_void_p, [c_void_p]),
    "wasmtime_store_delete": (None, [c_void_p]),
    "wasmtime_store_epoch_deadline_callback": (None, [c_void_p, DeadlineCallback, c_void_p, c_void_p]),
    "wasmtime_store_limiter": (None, [c_void_p, *[ctypes.c_int64] * 5]),
    "wasmtime_store_new": (c_void_p, [c_void_p, c_void_p, c_void_p]),
    "wasmtime_trap_code": (c_bool, [c_void_p, POINTER(c_uint8)]),
    "wasmtime_trap_new": (c_void_p, [c_char_p, c_size_t]),
}


_NATIVE = (
    "wasmtime_func_call_unchecked",
    "wasmtime_instance_new",
    "wasmtime_trap_new",
    "wasm_trap_delete",
    "wasmtime_error_new",
    "wasmtime_error_delete",
    "wasmtime_engine_increment_epoch",
)
"""Functions that the extension calls, in the order of ``Api`` in ``native/native.h``."""


class CApi:
    """The C functions as attributes, by name.

    `native` is the C extension if trampolines use it, and `native_ticker` is its ticker.

    Raises: OSError if the library cannot be loaded; AttributeError if a function is missing.
    """

    native: Any = None
    native_ticker: Any = None

    def __init__(self) -> None:
        library = ctypes.CDLL(ffi.dll._name)
        for name, (result, parameters) in _PROTOTYPES.items():
            function = getattr(library, name)
            function.restype = result
            if parameters:
                function.argtypes = parameters
            setattr(self, name, function)

    def use_native(self, native: Any, engine: Any) -> None:
        """Use the trampolines of the extension `native`, for modules of `engine`, a ``wasmtime.Engine``."""
        native.use(*(ctypes.cast(getattr(self, name), c_void_p).value for name in _NATIVE))
        native.prepare(is_enabled, bring_forward, check_stack)
        self.native = native
        self.native_ticker = native.Ticker(engine, address_of(engine.ptr()))

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(f"the C function {name} is not in the table of prototypes")


def address_of(pointer: Any) -> int:
    """The address in a ctypes pointer object; 0 for a null pointer."""
    return ctypes.cast(pointer, c_void_p).value or 0
