"""Checks that a fast route returns the same as wasmtime-py's objects, once when an engine is opened."""

from __future__ import annotations

import math
from collections.abc import Callable

from proxywasm_host.engine.protocol import FunctionType, HostFunction, Instance, Module, Trap

__all__ = ["MODULE", "transcript"]

# (module
#   (import "h" "mix" (func $mix (param i32 i64 f32 f64) (result i64)))
#   (memory (export "memory") 1 2)
#   (func (export "twice") (param i32) (result i32) (i32.mul (local.get 0) (i32.const 2)))
#   (func (export "half") (param f32) (result f32) (f32.div (local.get 0) (f32.const 2)))
#   (func (export "cross") (param f64 i64 f32 i32) (result f64)
#     (i64.store (i32.const 8) (call $mix (local.get 3) (local.get 1) (local.get 2) (local.get 0)))
#     (f64.convert_i64_u (i64.load (i32.const 8))))
#   (func (export "grow") (result i32) (memory.grow (i32.const 1)))
#   (func $fall (export "trap") unreachable))
MODULE = bytes.fromhex(
    "0061736d0100000001220660047f7e7d7c017e60017f017f60017d017d60047c7e7d7f017c6000017f6000000209010168036d697800"
    "000306050102030405050401010102072f06066d656d6f7279020005747769636500010468616c6600020563726f737300030467726f"
    "770004047472617000050a37050700200041026c0b0a0020004300000040950b17004108200320012002200010003703004108290300"
    "ba0b0600410140000b0300000b0013046e616d65010c0200036d6978050466616c6c"
)
"""The module above."""

_MIX = FunctionType(("i32", "i64", "f32", "f64"), ("i64",))


def transcript(instantiate: Callable[[Module, HostFunction], Instance], module: Module) -> list[object]:
    """Call all functions of an instance of `module`. Returns the results, traps and memory that each call leaves."""
    seen: list[object] = []

    def mix(*values: float) -> int:
        seen.extend(values)
        twice = instance.function("twice")
        seen.append(twice(21) if twice else None)
        if values[0] == 13:
            raise KeyError("of the host")
        return -5

    instance = instantiate(module, HostFunction("h", "mix", _MIX, mix))
    memory = instance.memory
    calls: list[tuple[str, tuple[float, ...]]] = [
        ("twice", (-4,)),
        ("half", (math.pi,)),
        ("cross", (math.e, -(1 << 40), 0.1, -7)),
        ("cross", (-0.0, 1, math.inf, 13)),
        ("grow", ()),
        ("trap", ()),
        ("grow", ()),
    ]
    for name, arguments in calls:
        call = instance.function(name)
        if call is None or memory is None:
            return [*seen, "nothing found"]
        try:
            seen.append((name, call(*arguments)))
        except Trap as trap:
            seen.append((name, trap.kind, trap.frames))
        except KeyError as error:
            seen.append((name, str(error)))
        seen.append((memory.refresh(), len(memory.view), bytes(memory.view[:24])))
    instance.close()
    return seen
