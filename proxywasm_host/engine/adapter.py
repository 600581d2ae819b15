"""Helpers that adapters of engines share.

They check types of functions and the functions given for imports, identify serialised code, describe the guest's memory
for C code, and notify engines of new signal handlers.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from functools import cache

from .protocol import Engine, FunctionType, HostFunction, Import, InvalidModule, LinkError

__all__ = [
    "NUMERIC",
    "after_identity",
    "check_functions",
    "handlers_changed",
    "identity",
    "is_numeric",
    "listeners",
    "memory_capsule",
    "without_identity",
]

NUMERIC = frozenset({"i32", "i64", "f32", "f64"})
"""The types of values that can cross between guest and host."""

listeners: list[Callable[[], object]] = []
"""Functions to call when an engine has installed signal handlers, for engines whose handlers must run first."""


def handlers_changed() -> None:
    """Notify the `listeners`. An adapter calls this when it, or its engine, has installed signal handlers."""
    for listener in listeners:
        listener()


def is_numeric(type: FunctionType) -> bool:
    """Whether a function of this type can cross: numbers only, and at most one result."""
    return NUMERIC.issuperset(type.params + type.results) and len(type.results) <= 1


def check_functions(imports: Sequence[Import], functions: Sequence[HostFunction]) -> None:
    """Check that each import has a host function, in the same order and of the same type.

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
            raise LinkError(f"{name}: the guest imports {wanted.type}, but the host offers {offered.type}")


def identity(engine: Engine) -> bytes:
    """The identity that precedes code serialised by `engine`: the engine, its version and options."""
    return f"proxywasm {engine.name} {engine.fingerprint}\n".encode()


def without_identity(engine: Engine, compiled: bytes) -> bytes:
    """The code after the identity of `engine`. Raises: InvalidModule if the identity is missing or differs."""
    return compiled[after_identity(engine, compiled) :]


def after_identity(engine: Engine, compiled: bytes) -> int:
    """Where the code after the identity of `engine` begins, for an engine that does not need a copy of it.

    Raises: InvalidModule if the identity is missing or differs.
    """
    wanted = identity(engine)
    if compiled.startswith(wanted):
        return len(wanted)
    if compiled.startswith(b"proxywasm "):
        found = compiled[: compiled.find(b"\n", 0, 200)].decode(errors="replace")
        raise InvalidModule(
            f"this code is from {found!r}, an engine with another name, another version or other options than "
            f"{wanted.decode().strip()!r}: compile the module again"
        )
    raise InvalidModule("these bytes are not a module that an engine has serialised: compile the module")


@cache
def _memory_name(version: int) -> bytes:
    return f"proxywasm_host.memory.{version}".encode()  # kept for ever, because capsules refer to its address


def memory_capsule(address: int, version: int) -> object:
    """Make the capsule `native_range` of a memory. `address` is that of a ``Proxywasm_memory``.

    `version` is the ``PROXYWASM_NATIVE_ABI`` for which the struct was made. Engines pass a constant, because the core
    may be newer, and must not read an old struct as a new one.

    Raises: ValueError if `address` is 0.
    """
    make = ctypes.pythonapi.PyCapsule_New
    make.restype, make.argtypes = ctypes.py_object, (ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p)
    return make(address, _memory_name(version), None)
