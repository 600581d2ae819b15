"""Traps: the same reason on every engine, and a backtrace with the names from the module."""

from __future__ import annotations

import faulthandler
import math
import os
import threading
from collections.abc import Callable, Sequence

import pytest

from proxywasm_host.engine.protocol import Engine, Instance, Trap, TrapKind

from .assembled import wasm
from .base import Base, Start, instantiate, requires
from .processes import in_a_child

TRAPS = """(module
  (table 2 2 funcref)
  (memory (export "memory") 1)
  (type $none (func)) (type $one (func (param i32)))
  (elem (i32.const 0) $takes_one)
  (func $takes_one (param i32))
  (func $deep (export "unreachable") (call $inner)) (func $inner unreachable)
  (func (export "load") (param i32) (drop (i32.load (local.get 0))))
  (func (export "load_far") (drop (i32.load offset=0xffffffff (i32.const 0xffffffff))))
  (func (export "store") (param i32) (i64.store (local.get 0) (i64.const 1)))
  (func (export "fill") (param i32) (memory.fill (local.get 0) (i32.const 0) (i32.const 9)))
  (func (export "copy") (param i32) (memory.copy (i32.const 0) (local.get 0) (i32.const 9)))
  (func (export "table") (call_indirect (type $none) (i32.const 7)))
  (func (export "get") (drop (table.get 0 (i32.const 2))))
  (func (export "null") (call_indirect (type $none) (i32.const 1)))
  (func (export "signature") (call_indirect (type $none) (i32.const 0)))
  (func (export "divide") (param i32) (drop (i32.div_s (i32.const 1) (local.get 0))))
  (func (export "remainder") (drop (i64.rem_u (i64.const 1) (i64.const 0))))
  (func (export "overflow") (param i32) (drop (i32.div_s (i32.const 0x80000000) (local.get 0))))
  (func (export "wide") (drop (i64.div_s (i64.const 0x8000000000000000) (i64.const -1))))
  (func (export "convert") (param f32) (drop (i32.trunc_f32_s (local.get 0))))
  (func (export "convert_wide") (param f64) (drop (i64.trunc_f64_u (local.get 0))))
  (func $recurse (export "recurse") (param i32) (call $recurse (i32.add (local.get 0) (i32.const 1)))
    (i32.store (i32.const 0) (local.get 0))))"""

_TOO_LARGE = (TrapKind.INTEGER_OVERFLOW, TrapKind.BAD_CONVERSION)


class Traps(Base):
    """Tests of every kind of trap."""

    @pytest.mark.parametrize(
        ("name", "arguments", "kinds"),
        [
            ("unreachable", (), (TrapKind.UNREACHABLE,)),
            ("load", (65533,), (TrapKind.OUT_OF_BOUNDS,)),
            ("load", (-1,), (TrapKind.OUT_OF_BOUNDS,)),
            ("load_far", (), (TrapKind.OUT_OF_BOUNDS,)),
            ("store", (65529,), (TrapKind.OUT_OF_BOUNDS,)),
            ("fill", (65528,), (TrapKind.OUT_OF_BOUNDS,)),
            ("copy", (65528,), (TrapKind.OUT_OF_BOUNDS,)),
            ("table", (), (TrapKind.TABLE_OUT_OF_BOUNDS,)),
            ("get", (), (TrapKind.TABLE_OUT_OF_BOUNDS,)),
            ("null", (), (TrapKind.INDIRECT_CALL,)),
            ("signature", (), (TrapKind.INDIRECT_CALL,)),
            ("divide", (0,), (TrapKind.DIVIDE_BY_ZERO,)),
            ("remainder", (), (TrapKind.DIVIDE_BY_ZERO,)),
            ("overflow", (-1,), (TrapKind.INTEGER_OVERFLOW,)),
            ("wide", (), (TrapKind.INTEGER_OVERFLOW,)),
            ("convert", (math.nan,), (TrapKind.BAD_CONVERSION,)),
            ("convert", (1e30,), _TOO_LARGE),
            ("convert", (-math.inf,), _TOO_LARGE),
            ("convert_wide", (-1.0,), _TOO_LARGE),
            ("recurse", (0,), (TrapKind.STACK_OVERFLOW,)),
        ],
    )
    def test_each_trap_has_its_kind(
        self, start: Start, name: str, arguments: tuple[float, ...], kinds: tuple[TrapKind, ...]
    ) -> None:
        guest = start(TRAPS)
        with pytest.raises(Trap) as caught:
            guest(name, *arguments)
        assert caught.value.kind in kinds
        assert caught.value.message == caught.value.kind.value
        guest("divide", 1)  # the instance can still be called

    def test_what_is_just_allowed_does_not_trap(self, start: Start) -> None:
        guest = start(TRAPS)
        for name, argument in ("load", 65532), ("store", 65528), ("fill", 65527), ("copy", 65527), ("overflow", 1):
            guest(name, argument)
        guest("convert", -(2.0**31))
        guest("convert_wide", -0.9)

    @requires("backtrace")
    def test_the_backtrace_is_innermost_first(self, start: Start) -> None:
        with pytest.raises(Trap) as caught:
            start(TRAPS)("unreachable")
        frames = caught.value.frames
        assert [frame.function for frame in frames] == ["inner", "deep"]
        bytecode = wasm(TRAPS)
        assert [bytecode[frame.offset or 0] for frame in frames] == [0x00, 0x10]  # unreachable, call

    @requires("backtrace")
    def test_a_function_without_a_name_has_its_number(self, start: Start) -> None:
        with pytest.raises(Trap) as caught:
            start('(module (func) (func (export "f") unreachable))')("f")
        assert [frame.function for frame in caught.value.frames] == ["<wasm function 1>"]

    @requires("backtrace")
    def test_the_backtrace_of_a_trap_within_a_host_call_is_that_of_the_inner_guest(self, start: Start) -> None:
        inner = start(TRAPS)
        outer = start(
            '(module (import "h" "f" (func $f)) (func $outer (export "f") (call $f)))', f=lambda: inner("unreachable")
        )
        with pytest.raises(Trap) as caught:
            outer("f")
        assert [frame.function for frame in caught.value.frames] == ["inner", "deep"]

    def test_the_stack_overflows_on_another_thread_as_well(self, start: Start) -> None:
        guest = start(TRAPS)
        kinds = []

        def run() -> None:
            try:
                guest("recurse", 0)
            except Trap as trap:
                kinds.append(trap.kind)

        thread = threading.Thread(target=run)
        thread.start()
        thread.join()
        assert kinds == [TrapKind.STACK_OVERFLOW]

    @pytest.mark.parametrize("size", [64, 256, 512, 1024])
    def test_a_small_stack_overflows_as_a_trap_or_is_refused(self, start: Start, size: int) -> None:
        guest = start(TRAPS)
        endings: list[object] = []

        def run() -> None:
            try:
                guest("recurse", 0)
            except Trap as trap:
                endings.append(trap.kind)
            except RuntimeError as error:
                endings.append("stack" in str(error) and "threading.stack_size" in str(error))

        before = threading.stack_size(size << 10)
        try:
            thread = threading.Thread(target=run)
            thread.start()
        finally:
            threading.stack_size(before)
        thread.join()
        assert endings in ([TrapKind.STACK_OVERFLOW], [True])
        with pytest.raises(Trap):
            guest("divide", 0)

    @requires("fork")
    @pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")
    @pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
    @pytest.mark.parametrize(
        "order", [("enable", "make"), ("make", "enable"), ("make", "trap", "enable"), ("enable", "make", "disable")]
    )
    def test_faulthandler_does_not_come_between(self, engine: Engine, order: Sequence[str]) -> None:
        """Traps and faulthandler may both use signals, and work in either order. A fault may end the process."""
        instances: list[Instance] = []

        def trap() -> None:
            for name, arguments in ("unreachable", ()), ("load", (-1,)), ("divide", (0,)), ("recurse", (0,)):
                function = instances[0].function(name)
                assert function is not None
                with pytest.raises(Trap):
                    function(*arguments)

        def child() -> None:
            faulthandler.disable()
            steps: dict[str, Callable[[], object]] = {
                "enable": lambda: faulthandler.enable(2),
                "disable": faulthandler.disable,
                "make": lambda: instances.append(instantiate(engine, TRAPS, print)),
                "trap": trap,
            }
            for step in [*order, "trap", "trap"]:
                steps[step]()

        assert in_a_child(child) == 0
