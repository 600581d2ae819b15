"""The supported versions of V8: for each, the symbol that differs between versions, and two offsets that no exported
function returns.

To add a version, read its machine code: ``v8::HandleScope::DeleteExtensions`` reads `limit`, the second word of the
handle scope's data, from its second argument, the isolate; ``v8::Isolate::Initialize`` reads the allocator from its
second argument, the parameters. Then run the tests with its wheel.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["KNOWN", "Facts"]


@dataclass(frozen=True, slots=True)
class Facts:
    """A symbol, and byte offsets within V8's objects."""

    function_new: str
    allocator_in_create_params: int
    scope_in_isolate: int
    """Offset of the handle scope's data: two pointers (next, limit) and two ints (level, sealed level)."""


_FUNCTION_NEW = (
    "_ZN2v88Function3NewENS_5LocalINS_7ContextEEEPFvRKNS_20FunctionCallbackInfoINS_5ValueEEEENS1_I{}EEi"
    "NS_19ConstructorBehaviorENS_14SideEffectTypeE"
)
KNOWN = {
    "14.3.127.17": Facts(_FUNCTION_NEW.format("S5_"), allocator_in_create_params=96, scope_in_isolate=0x230),
    "14.4.258.23": Facts(_FUNCTION_NEW.format("NS_4DataE"), allocator_in_create_params=96, scope_in_isolate=0x230),
}
