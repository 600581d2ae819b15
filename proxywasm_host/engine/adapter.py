"""What adapters of engines have in common: which functions can cross, and whether those given fit the imports."""

from __future__ import annotations

from collections.abc import Sequence

from .protocol import FunctionType, HostFunction, Import, LinkError

__all__ = ["NUMERIC", "check_functions", "is_numeric"]

NUMERIC = frozenset({"i32", "i64", "f32", "f64"})
"""The types whose values can cross."""


def is_numeric(type: FunctionType) -> bool:
    """Whether a function of this type can cross: numbers only, and at most one result."""
    return NUMERIC.issuperset(type.params + type.results) and len(type.results) <= 1


def check_functions(imports: Sequence[Import], functions: Sequence[HostFunction]) -> None:
    """Check that there is a host function for each import, in its place and of its type.

    Raises: LinkError, which names the import.
    """
    if len(functions) > len(imports):
        raise LinkError(f"{len(functions)} host functions were given for {len(imports)} imports")
    for index, wanted in enumerate(imports):
        name = f"import {wanted.module}.{wanted.name}"
        if wanted.type is None:
            raise LinkError(f"{name} is a {wanted.kind}: only functions can be imported")
        if not is_numeric(wanted.type):
            raise LinkError(f"{name} {wanted.type} has values that cannot cross")
        if index >= len(functions):
            raise LinkError(f"{name}: no host function was given")
        offered = functions[index]
        if (offered.module, offered.name) != (wanted.module, wanted.name):
            raise LinkError(f"{name}: the host function in its place is {offered.module}.{offered.name}")
        if offered.type != wanted.type:
            raise LinkError(f"{name}: the guest wants {wanted.type}, the host offers {offered.type}")
