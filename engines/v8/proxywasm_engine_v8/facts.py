"""Which V8s the engine knows, and where these keep two things that no exported function gives.

To add one: install the wheel, find the numbers (``--help`` of this module has no magic for that: a debugger shows
where ``HandleScope::Extend`` reads, and where ``Isolate::New`` looks for the allocator), and run the tests.
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
