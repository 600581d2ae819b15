"""Converts Wasmtime's traps and errors to those of the engine protocol."""

from __future__ import annotations

import ctypes
from typing import Any

import wasmtime
import wasmtime._ffi as ffi

from proxywasm_host.engine.protocol import Frame, Trap, TrapKind

from .capi import CApi

__all__ = ["cause", "from_object", "take_error", "take_trap"]

_KINDS = {
    0: TrapKind.STACK_OVERFLOW,
    1: TrapKind.OUT_OF_BOUNDS,
    2: TrapKind.OUT_OF_BOUNDS,  # a misaligned atomic access
    3: TrapKind.TABLE_OUT_OF_BOUNDS,
    4: TrapKind.INDIRECT_CALL,
    5: TrapKind.INDIRECT_CALL,
    6: TrapKind.INTEGER_OVERFLOW,
    7: TrapKind.DIVIDE_BY_ZERO,
    8: TrapKind.BAD_CONVERSION,
    9: TrapKind.UNREACHABLE,
    10: TrapKind.DEADLINE,
}
"""By the numbers of ``wasmtime_trap_code_enum``, which has only ever been extended at its end."""


def take_trap(api: CApi, trap: int) -> Trap:
    """Convert the ``wasm_trap_t`` at address `trap` to an exception, and free it."""
    code = ctypes.c_uint8()
    kind = TrapKind.OTHER
    if api.wasmtime_trap_code(trap, code):
        kind = _KINDS.get(code.value, TrapKind.OTHER)
    message = _text(api, api.wasm_trap_message, trap)
    frames = _frames(api, api.wasm_trap_trace, trap)
    api.wasm_trap_delete(trap)
    return _trap(kind, message, frames)


def take_error(api: CApi, error: int) -> tuple[str, list[Frame]]:
    """Return message and backtrace of the ``wasmtime_error_t`` at address `error`, and free it."""
    message = _text(api, api.wasmtime_error_message, error)
    frames = _frames(api, api.wasmtime_error_wasm_trace, error)
    api.wasmtime_error_delete(error)
    return message, frames


def from_object(trap: wasmtime.Trap) -> Trap:
    """Convert a trap of wasmtime-py."""
    try:
        code = trap.trap_code
    except ValueError:  # a code newer than this version of wasmtime-py
        code = None
    kind = TrapKind.OTHER if code is None else _KINDS.get(code.value, TrapKind.OTHER)
    frames = [
        Frame(
            frame.func_name or f"<wasm function {frame.func_index}>",
            frame.module_name or "",
            _offset(frame.module_offset),
        )
        for frame in trap.frames
    ]
    return _trap(kind, trap.message, frames)


def cause(message: str) -> str:
    """The innermost cause in a message of Wasmtime, without the backtrace and the list of causes."""
    last = message.rpartition("Caused by:")[2].strip()
    return " ".join(line.strip() for line in last.splitlines())


def _offset(offset: int) -> int | None:
    return offset if offset < 1 << 32 else None  # all bits are set if it is unknown


def _trap(kind: TrapKind, message: str, frames: list[Frame]) -> Trap:
    return Trap(kind, cause(message) if kind is TrapKind.OTHER else "", frames)


def _text(api: CApi, read: Any, source: int) -> str:
    text = ffi.wasm_byte_vec_t()
    read(source, ctypes.byref(text))
    message = _decode(text)
    api.wasm_byte_vec_delete(ctypes.byref(text))
    return message.rstrip("\0")


def _frames(api: CApi, read: Any, source: int) -> list[Frame]:
    vector = ffi.wasm_frame_vec_t()
    read(source, ctypes.byref(vector))
    frames = []
    for index in range(vector.size):
        frame = vector.data[index]
        function = _name(api.wasmtime_frame_func_name(frame))
        frames.append(
            Frame(
                function or f"<wasm function {api.wasm_frame_func_index(frame)}>",
                _name(api.wasmtime_frame_module_name(frame)),
                _offset(api.wasm_frame_module_offset(frame)),
            )
        )
    api.wasm_frame_vec_delete(ctypes.byref(vector))
    return frames


def _name(address: int | None) -> str:
    return _decode(ffi.wasm_byte_vec_t.from_address(address)) if address else ""


def _decode(text: Any) -> str:
    return ctypes.string_at(text.data, text.size).decode(errors="replace") if text.size else ""
