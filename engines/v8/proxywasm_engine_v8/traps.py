"""Converts V8's exceptions to traps of the engine protocol."""

from __future__ import annotations

import re
from collections.abc import Iterable

from proxywasm_host.engine.protocol import Frame, Trap, TrapKind

from .binary import Binary
from .bridge import NAME
from .routes import Thrown

__all__ = ["deadline", "frames", "full", "instantiation_failure", "trap"]

_KINDS = {
    "unreachable": TrapKind.UNREACHABLE,
    "memory access out of bounds": TrapKind.OUT_OF_BOUNDS,
    "operation does not support unaligned accesses": TrapKind.OUT_OF_BOUNDS,
    "table index is out of bounds": TrapKind.TABLE_OUT_OF_BOUNDS,
    "table access out of bounds": TrapKind.TABLE_OUT_OF_BOUNDS,
    "function signature mismatch": TrapKind.INDIRECT_CALL,
    "null function or function signature mismatch": TrapKind.INDIRECT_CALL,
    "divide by zero": TrapKind.DIVIDE_BY_ZERO,
    "remainder by zero": TrapKind.DIVIDE_BY_ZERO,
    "divide result unrepresentable": TrapKind.INTEGER_OVERFLOW,
    "float unrepresentable in integer range": TrapKind.BAD_CONVERSION,
    "Maximum call stack size exceeded": TrapKind.STACK_OVERFLOW,
}
_INITIALISER = re.compile(r"(data|element|table).*out of bounds")
_FRAME = re.compile(r"(wasm://wasm/[^\s()]*):wasm-function\[(\d+)\]:0x([0-9a-f]+)\)?$")
_BRIDGE = f"wasm://wasm/{NAME}-"


def trap(thrown: Thrown, binary: Binary) -> Trap:
    """The trap for an exception that the glue has reported."""
    kind = _KINDS.get(thrown.message, TrapKind.OTHER)
    return Trap(kind, thrown.message if kind is TrapKind.OTHER else "", _frames_of_stack(thrown.stack, binary))


def deadline(seconds: float, frames: Iterable[Frame]) -> Trap:
    """The trap of a call that its deadline has ended."""
    return Trap(TrapKind.DEADLINE, f"deadline of {seconds:g} s exceeded", tuple(frames))


def full() -> Trap:
    """The trap of a call that has filled the heap."""
    return Trap(TrapKind.MEMORY_LIMIT, "the guest has filled V8's heap")


def instantiation_failure(thrown: Thrown) -> Trap | None:
    """The trap that ended an instantiation, or ``None`` for other exceptions."""
    message = thrown.message.partition("(): ")[2] or thrown.message
    if found := _INITIALISER.search(message):
        kind = TrapKind.OUT_OF_BOUNDS if found[1] == "data" else TrapKind.TABLE_OUT_OF_BOUNDS
        return Trap(kind)
    if thrown.kind == "RangeError":  # a memory or table that does not fit
        return Trap(TrapKind.MEMORY_LIMIT, message)
    return Trap(_KINDS[message]) if message in _KINDS else None


def _frames_of_stack(stack: str, binary: Binary) -> list[Frame]:
    """The guest's frames in the property ``stack`` of a JavaScript exception."""
    found = (_FRAME.search(line) for line in stack.splitlines())
    return frames(((match[1], int(match[3], 16)) for match in found if match), binary)


def frames(places: Iterable[tuple[str, int]], binary: Binary) -> list[Frame]:
    """The guest's frames in `places`, each a script and a position in V8's module."""
    made = []
    for script, position in places:
        if script.startswith("wasm:") and not script.startswith(_BRIDGE):
            offset = binary.original(position)
            if offset is not None:
                made.append(Frame(binary.function_name(binary.function_at(offset)), binary.module_name, offset))
    return made
