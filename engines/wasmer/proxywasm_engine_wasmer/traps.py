"""Converts Wasmer's traps to those of the engine protocol."""

from __future__ import annotations

from collections.abc import Callable

from proxywasm_host.engine.protocol import Frame, Trap, TrapKind

__all__ = ["trap_maker"]

_KINDS = {
    0: TrapKind.STACK_OVERFLOW,
    1: TrapKind.OUT_OF_BOUNDS,
    2: TrapKind.OUT_OF_BOUNDS,  # a misaligned atomic access
    3: TrapKind.TABLE_OUT_OF_BOUNDS,
    4: TrapKind.INDIRECT_CALL,
    5: TrapKind.INDIRECT_CALL,
    6: TrapKind.INTEGER_OVERFLOW,
    7: TrapKind.DIVIDE_BY_ZERO,
    8: TrapKind.BAD_CONVERSION,
    9: TrapKind.UNREACHABLE,
    10: TrapKind.OUT_OF_BOUNDS,  # a misaligned atomic access too
    14: TrapKind.DEADLINE,
}
"""By the numbers of Wasmer's ``TrapCode``."""


def trap_maker(module: str, deadline: float | None) -> Callable[[int | None, str, list[tuple[str, int]]], Trap]:
    """Make a function that turns code, message and frames into a trap.

    `module` is the name of the guest's module, and `deadline` the guest's deadline in seconds.
    """

    def make(code: int | None, message: str, frames: list[tuple[str, int]]) -> Trap:
        kind = TrapKind.OTHER if code is None else _KINDS.get(code, TrapKind.OTHER)
        if kind is TrapKind.DEADLINE:
            message = f"deadline of {deadline:g} s exceeded"
        elif kind is not TrapKind.OTHER:
            message = kind.value
        return Trap(kind, message, [Frame(function, module, offset) for function, offset in frames])

    return make
