"""Tests whether an engine is usable, with a tiny module that calls the host, is called, and has a memory."""

from __future__ import annotations

from .protocol import Engine, FunctionType, HostFunction, Instance, Limits

__all__ = ["MODULE", "smoke_test"]

# (module
#   (import "h" "add" (func $add (param i32 i32) (result i32)))
#   (memory (export "memory") 1)
#   (func (export "run") (param i32) (result i32)
#     (i32.store (i32.const 8) (call $add (local.get 0) (i32.const 1)))
#     (i32.load (i32.const 8))))
MODULE = bytes.fromhex(
    "0061736d01000000010c0260027f7f017f60017f017f0209010168036164640000030201010503010001071002066d656d6f72790200"
    "0372756e00010a14011200410820004101100036020041082802000b000d046e616d650106010003616464"
)
"""The module above."""

_ADD = FunctionType(("i32", "i32"), ("i32",))


def smoke_test(engine: Engine) -> None:
    """Run `MODULE` on `engine`. Raises: RuntimeError if a result is wrong, or whatever the engine raises."""
    instance = engine.compile(MODULE).instantiate([HostFunction("h", "add", _ADD, lambda a, b: a + b)], Limits())
    try:
        _run(instance)
    finally:
        instance.close()


def _run(instance: Instance) -> None:
    run, memory = instance.function("run"), instance.memory
    if run is None or memory is None:
        raise RuntimeError("the smoke module has lost its exports")
    result, stored = run(41), bytes(memory.view[8:12])
    if (result, stored) != (42, b"\x2a\0\0\0"):
        raise RuntimeError(f"the smoke module returned {result!r} and stored {stored!r}, not 42")
