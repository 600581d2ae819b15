"""mini-racer's C functions.

A value is represented by the address of a structure that mini-racer keeps until it is freed. Functions that run
JavaScript return at once. The result arrives later: V8's thread calls the only callback of the context with it and with
a number that the caller has chosen.
"""

from __future__ import annotations

import ctypes
from ctypes import c_bool, c_char_p, c_double, c_size_t, c_ubyte, c_uint64, c_void_p
from dataclasses import dataclass
from typing import Any

__all__ = ["DOUBLE", "STRING", "UNDEFINED", "Callback", "Library", "Value", "read"]

Callback = ctypes.CFUNCTYPE(None, c_uint64, c_void_p)

_C, _V = c_uint64, c_void_p  # a context, a value
_PROTOTYPES: dict[str, tuple[Any, list[Any]]] = {
    "init_context": (_C, [Callback]),
    "free_context": (None, [_C]),
    "eval": (c_uint64, [_C, _V, c_uint64]),
    "call_function": (c_uint64, [_C, _V, _V, _V, c_uint64]),
    "cancel_task": (None, [_C, c_uint64]),
    "make_js_callback": (_V, [_C, c_uint64]),
    "array_push": (_V, [_C, _V, _V]),
    "alloc_double_val": (_V, [_C, c_double, c_ubyte]),
    "alloc_string_val": (_V, [_C, c_char_p, c_uint64, c_ubyte]),
    "value_count": (c_size_t, [_C]),
    "set_hard_memory_limit": (None, [_C, c_size_t]),
    "hard_memory_limit_reached": (c_bool, [_C]),
    "low_memory_notification": (None, [_C]),
}
DOUBLE, STRING, UNDEFINED = 4, 5, 11
"""Kinds of values, as mini-racer numbers them."""
_FAILURES = 200


@dataclass(frozen=True, slots=True)
class Value:
    """A value of mini-racer: its address and kind; for buffers and texts, the address and number of their bytes."""

    handle: int
    kind: int
    data: int
    size: int

    @property
    def is_failure(self) -> bool:
        """Whether the value describes an exception."""
        return self.kind >= _FAILURES

    @property
    def text(self) -> str:
        """The contents of a text, or the description of an exception."""
        return ctypes.string_at(self.data, self.size).decode(errors="replace")


class Library:
    """mini-racer's functions as attributes, without their prefix. Raises: AttributeError if one is missing."""

    def __init__(self, loaded: ctypes.CDLL) -> None:
        free, held = ctypes.CDLL(loaded._name), ctypes.PyDLL(loaded._name)
        self.path: str = loaded._name
        for name, (result, parameters) in _PROTOTYPES.items():
            function = free[f"mr_{name}"]
            function.restype = result
            function.argtypes = parameters
            setattr(self, name, function)
        self.free_value = held["mr_free_value"]  # never waits
        self.free_value.restype = None
        self.free_value.argtypes = [_C, _V]

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(f"the function {name} is not in the table")


def read(handle: int) -> Value:
    """Read the value at the address `handle`."""
    kind = c_ubyte.from_address(handle + 16).value
    return Value(handle, kind, c_uint64.from_address(handle).value, c_uint64.from_address(handle + 8).value)
