"""Which V8s the engine knows, and where these keep two things that no exported function gives.

To add one, look at its machine code: ``v8::HandleScope::DeleteExtensions`` reads `limit`, the second word of the handle
scope's data, from its second argument, the isolate; ``v8::Isolate::Initialize`` takes the allocator out of its second
argument, the parameters. Then run the tests with its wheel.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["KNOWN", "Facts"]


@dataclass(frozen=True, slots=True)
class Facts:
    """Byte offsets within V8's objects."""

    allocator_in_create_params: int
    scope_in_isolate: int
    """Of the handle scope's data: two pointers, next and limit; two ints, level and sealed level."""


KNOWN = {
    "14.4.258.23": Facts(allocator_in_create_params=96, scope_in_isolate=0x230),
}
