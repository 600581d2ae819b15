"""Helpers that adapters of engines share.

They check types of functions and the functions given for imports, identify serialised code, give C code the guest's
memory, and tell engines of new signal handlers.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence

from proxywasm_host.extension import NATIVE_ABI

from .protocol import Engine, FunctionType, HostFunction, Import, InvalidModule, LinkError

__all__ = [
    "NUMERIC",
    "check_functions",
    "handlers_changed",
    "identity",
    "is_numeric",
    "listeners",
    "memory_capsule",
    "without_identity",
]

NUMERIC = frozenset({"i32", "i64", "f32", "f64"})
"""The types whose values can cross."""

listeners: list[Callable[[], object]] = []
"""Called when an engine has installed signal handlers, for an engine whose own handlers have to run first."""


def handlers_changed() -> None:
    """An adapter calls this when it, or its engine, has installed signal handlers."""
    for listener in listeners:
        listener()


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


def identity(engine: Engine) -> bytes:
    """The identity that precedes code serialised by `engine`: the engine, its version and options."""
    return f"proxywasm {engine.name} {engine.fingerprint}\n".encode()


def without_identity(engine: Engine, compiled: bytes) -> bytes:
    """The code behind the identity of `engine`. Raises: InvalidModule if there is another identity, or none."""
    wanted = identity(engine)
    if compiled.startswith(wanted):
        return compiled[len(wanted) :]
    if compiled.startswith(b"proxywasm "):
        found = compiled[: compiled.find(b"\n", 0, 200)].decode(errors="replace")
        raise InvalidModule(
            f"this is code of {found!r}, which is another engine, another version or has other options than "
            f"{wanted.decode().strip()!r}: compile the module again"
        )
    raise InvalidModule("these bytes are not what an engine has serialised: compile the module")


_MEMORY = f"proxywasm_host.memory.{NATIVE_ABI}".encode()  # for as long as the process: capsules keep its address


def memory_capsule(address: int) -> object:
    """A capsule for `native_range` of a memory, of the address of a ``Proxywasm_memory``. Raises: ValueError, for 0."""
    make = ctypes.pythonapi.PyCapsule_New
    make.restype, make.argtypes = ctypes.py_object, (ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p)
    return make(address, _MEMORY, None)
