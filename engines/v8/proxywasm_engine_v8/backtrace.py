"""The stack of an isolate, which V8's interface reports only to code that runs in the isolate."""

from __future__ import annotations

import ctypes
from ctypes import c_int, c_uint32, c_uint64, c_void_p
from typing import Any

__all__ = ["OPTIMISE", "Backtrace"]

OPTIMISE = "_ZN2v88internal26Runtime_WasmTierUpFunctionEiPmPNS0_7IsolateE"
"""The function of V8's runtime that optimises a guest's function. Its parameters are the number of arguments, their
address, and the isolate."""

_MAX_FRAMES = 64
_ALL_DETAILS = 0x7F
_PROTOTYPES: dict[str, tuple[str, Any, list[Any]]] = {
    "trace": (
        "_ZN2v810StackTrace17CurrentStackTraceEPNS_7IsolateEiNS0_17StackTraceOptionsE",
        c_void_p,
        [c_void_p, c_int, c_int],
    ),
    "size": ("_ZNK2v810StackTrace13GetFrameCountEv", c_int, [c_void_p]),
    "frame": ("_ZNK2v810StackTrace8GetFrameEPNS_7IsolateEj", c_void_p, [c_void_p, c_void_p, c_uint32]),
    "location": ("_ZNK2v810StackFrame11GetLocationEv", c_uint64, [c_void_p]),
    "script": ("_ZNK2v810StackFrame24GetScriptNameOrSourceURLEv", c_void_p, [c_void_p]),
    "text": ("_ZN2v86String9Utf8ValueC1EPNS_7IsolateENS_5LocalINS_5ValueEEE", None, [c_void_p] * 3),
    "text_end": ("_ZN2v86String9Utf8ValueD1Ev", None, [c_void_p]),
}


class Backtrace:
    """Reads stacks with functions of V8. Raises: AttributeError if one of them is missing."""

    def __init__(self, library: ctypes.CDLL) -> None:
        self._functions: dict[str, Any] = {}
        for name, (symbol, result, parameters) in _PROTOTYPES.items():
            function = self._functions[name] = library[symbol]
            function.restype = result
            function.argtypes = parameters

    def __call__(self, isolate: int | None) -> list[tuple[str, int]]:
        """Script and position of each active call, innermost first. Must be called inside `isolate`."""
        its = self._functions
        trace = its["trace"](isolate, _MAX_FRAMES, _ALL_DETAILS)
        frames = (its["frame"](trace, isolate, index) for index in range(its["size"](trace)))
        return [(self._script(isolate, frame), its["location"](frame) >> 32) for frame in frames]

    def _script(self, isolate: int | None, frame: int) -> str:
        its = self._functions
        name = its["script"](frame)
        if not name:
            return ""
        place = (c_void_p * 2)()
        its["text"](place, isolate, name)
        try:
            return ctypes.string_at(place[0], place[1] or 0).decode(errors="replace") if place[0] else ""
        finally:
            its["text_end"](place)
