"""V8's C++ interface, which the library in the wheel `mini-racer` exports under mangled names.

V8's handles are one pointer wide and are passed in registers, so each of these functions can be called as a C function.
Functions that are called often have no prototypes: their arguments are results of ``ctypes.byref``, made once, which
ctypes passes without conversion. Quick functions that never wait keep the GIL (`held`); those that run guests release
it.
"""

from __future__ import annotations

import ctypes
from ctypes import c_bool, c_char_p, c_int, c_size_t, c_void_p
from typing import Any

from proxywasm_engine_v8.backtrace import OPTIMISE, Backtrace

from .facts import Facts

__all__ = ["Callback", "Library", "NearLimit", "address"]

Callback = ctypes.CFUNCTYPE(None)
"""A callback that ignores its arguments."""
NearLimit = ctypes.CFUNCTYPE(c_size_t, c_void_p, c_size_t, c_size_t)

_P = c_void_p
_CONTEXT_NEW = (
    "_ZN2v87Context3NewEPNS_7IsolateEPNS_22ExtensionConfigurationENS_10MaybeLocalINS_14ObjectTemplateEEENS5_INS_5ValueEEE"
    "NS_33DeserializeInternalFieldsCallbackEPNS_14MicrotaskQueueENS_30DeserializeContextDataCallbackENS_29Deserialize"
    "APIWrapperCallbackE"
)
_CALL = "_ZN2v88Function4CallEPNS_7IsolateENS_5LocalINS_7ContextEEENS3_INS_5ValueEEEiPS7_"
_EXECUTE = "_ZN2v88internal9Execution4CallEPNS0_7IsolateENS0_12DirectHandleINS0_6ObjectEEES6_NS_4base6VectorIKS6_EE"
_PROTOTYPES: dict[str, tuple[str, Any, list[Any]]] = {
    # name: (symbol, or "" if it is in `Facts`; result; parameters)
    "allocator": ("_ZN2v811ArrayBuffer9Allocator19NewDefaultAllocatorEv", _P, []),
    "create_params": ("_ZN2v87Isolate12CreateParamsC1Ev", None, [_P]),
    "isolate_new": ("_ZN2v87Isolate3NewERKNS0_12CreateParamsE", _P, [_P]),
    "isolate_dispose": ("_ZN2v87Isolate7DisposeEv", None, [_P]),
    "isolate_is_used": ("_ZN2v87Isolate7IsInUseEv", c_bool, [_P]),
    "isolate_low_memory": ("_ZN2v87Isolate21LowMemoryNotificationEv", None, [_P]),
    "isolate_near_limit": ("_ZN2v87Isolate24AddNearHeapLimitCallbackEPFmPvmmES1_", None, [_P, NearLimit, _P]),
    "isolate_stack_limit": ("_ZN2v87Isolate13SetStackLimitEm", None, [_P, c_size_t]),
    "stack_start": ("_ZN2v84base5Stack13GetStackStartEv", c_size_t, []),
    "throw_termination": ("_ZN2v88internal7Isolate18TerminateExecutionEv", _P, [_P]),
    "cancel_termination": ("_ZN2v87Isolate24CancelTerminateExecutionEv", None, [_P]),
    "platform": ("_ZN2v88internal2V818GetCurrentPlatformEv", _P, []),
    "forget_isolate": ("_ZN2v88platform21NotifyIsolateShutdownEPNS_8PlatformEPNS_7IsolateE", None, [_P, _P]),
    "locked": ("_ZN2v86Locker8IsLockedEPNS_7IsolateE", c_bool, [_P]),
    "context_new": (_CONTEXT_NEW, _P, [_P] * 14),
    "context_enter": ("_ZN2v87Context5EnterEv", None, [_P]),
    "context_exit": ("_ZN2v87Context4ExitEv", None, [_P]),
    "handles": ("_ZN2v811HandleScope15NumberOfHandlesEPNS_7IsolateE", c_int, [_P]),
    "globalize": ("_ZN2v812api_internal18GlobalizeReferenceEPNS_8internal7IsolateEm", _P, [_P, c_size_t]),
    "dispose_global": ("_ZN2v812api_internal13DisposeGlobalEPm", None, [_P]),
    "string_new": ("_ZN2v86String11NewFromUtf8EPNS_7IsolateEPKcNS_13NewStringTypeEi", _P, [_P, c_char_p, c_int, c_int]),
    "script_compile": (
        "_ZN2v86Script7CompileENS_5LocalINS_7ContextEEENS1_INS_6StringEEEPNS_12ScriptOriginE",
        _P,
        [_P, _P, _P],
    ),
    "script_run": ("_ZN2v86Script3RunENS_5LocalINS_7ContextEEE", _P, [_P, _P]),
    "function_new": ("", _P, [_P, Callback, _P, c_int, c_int, c_int]),
    "call": (
        "_ZN2v88Function4CallEPNS_7IsolateENS_5LocalINS_7ContextEEENS3_INS_5ValueEEEiPS7_",
        _P,
        [_P] * 4 + [c_int, _P],
    ),
    "get": ("_ZN2v86Object3GetENS_5LocalINS_7ContextEEEj", _P, [_P, _P, ctypes.c_uint32]),
    "buffer_new": (
        "_ZN2v811ArrayBuffer3NewEPNS_7IsolateEmNS_30BackingStoreInitializationModeE",
        _P,
        [_P, c_size_t, c_int],
    ),
    "memory_buffer": ("_ZN2v816WasmMemoryObject6BufferEv", _P, [_P]),
    "buffer_data": ("_ZNK2v811ArrayBuffer4DataEv", _P, [_P]),
    "buffer_size": ("_ZNK2v811ArrayBuffer10ByteLengthEv", c_size_t, [_P]),
    "wasm_compile": (
        "_ZN2v816WasmModuleObject7CompileEPNS_7IsolateENS_10MemorySpanIKhEE",
        _P,
        [_P, c_char_p, c_size_t],
    ),
    "optimise": (OPTIMISE, _P, [c_int, _P, _P]),
    "sandbox_size": ("_ZN2v82V821GetSandboxSizeInBytesEv", c_size_t, []),
}
_FAST: dict[str, tuple[str, Any, bool]] = {
    # name: (symbol, result, whether it keeps the GIL)
    "invoke": (_CALL, _P, False),
    # The function that `invoke` calls. It opens no handle scope and does not look for tasks, which guests do not have.
    "run": (_EXECUTE, _P, False),
    "lock": ("_ZN2v86Locker10InitializeEPNS_7IsolateE", None, True),
    "wait_for_lock": ("_ZN2v86Locker10InitializeEPNS_7IsolateE", None, False),
    "unlock": ("_ZN2v86LockerD1Ev", None, True),
    "enter": ("_ZN2v87Isolate5EnterEv", None, True),
    "leave": ("_ZN2v87Isolate4ExitEv", None, True),
    # A method that does not use its object, so the isolate is its second argument.
    "drop_handles": ("_ZN2v811HandleScope16DeleteExtensionsEPNS_7IsolateE", None, True),
    "terminate": ("_ZN2v87Isolate18TerminateExecutionEv", None, True),
    "current": ("_ZN2v87Isolate13TryGetCurrentEv", _P, True),
    "be_in": ("_ZN2v88internal7Isolate22SetIsolateThreadLocalsEPS1_PNS1_20PerIsolateThreadDataE", None, True),
    "thread_data": ("_ZN2v88internal7Isolate40FindOrAllocatePerThreadDataForThisThreadEv", _P, True),
    "extend": ("_ZN2v811HandleScope6ExtendEPNS_7IsolateE", _P, True),
    "interrupt": ("_ZN2v87Isolate16RequestInterruptEPFvPS0_PvES2_", None, True),
}


class Library:
    """V8's functions as attributes. Raises: AttributeError if one is missing."""

    def __init__(self, loaded: ctypes.CDLL, facts: Facts) -> None:
        free, held = ctypes.CDLL(loaded._name), ctypes.PyDLL(loaded._name)
        self.path: str = loaded._name
        self.stack = Backtrace(free)
        for name, (symbol, result, parameters) in _PROTOTYPES.items():
            function = free[symbol or getattr(facts, name)]
            function.restype = result
            function.argtypes = parameters
            setattr(self, name, function)
        for name, (symbol, result, holds) in _FAST.items():
            function = (held if holds else free)[symbol]
            function.restype = result
            setattr(self, name, function)

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(f"the function {name} is not in the table")


def address(at: int | None) -> Any:
    """The address `at` as an argument that ctypes passes without conversion."""
    return ctypes.byref(ctypes.c_char.from_address(at or 0))
