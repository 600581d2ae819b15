"""Exceptions of host functions that pass through layers of guest and host."""

from __future__ import annotations

import traceback

import pytest

from proxywasm_host.engine.protocol import Trap, TrapKind
from proxywasm_host.testing.guest import Guest

from .base import Base, Start

LAYERS = """(module (import "h" "outer" (func $outer (result i32))) (import "h" "inner" (func $inner (result i32)))
  (memory (export "memory") 1)
  (func (export "one") (result i32) (i32.add (call $outer) (i32.const 1)))
  (func (export "two") (result i32) (i32.add (call $inner) (i32.const 1)))
  (func (export "boom") unreachable) (func (export "fine") (result i32) (i32.const 7)))"""


class Exceptions(Base):
    """Tests of exceptions in host functions."""

    def test_an_exception_comes_through_all_layers_as_it_is(self, start: Start) -> None:
        error = KeyError("deep down")

        def inner() -> int:
            raise error

        guest: Guest = start(LAYERS, outer=lambda: guest("two"), inner=inner)
        with pytest.raises(KeyError) as caught:
            guest("one")
        assert caught.value is error
        assert error.__context__ is None
        names = [frame.name for frame in traceback.extract_tb(error.__traceback__)]
        assert names[-1] == "inner"
        assert "<lambda>" in names
        assert guest("fine") == 7

    def test_one_that_is_caught_in_between_is_over(self, start: Start) -> None:
        def outer() -> int:
            with pytest.raises(ZeroDivisionError):
                guest("two")
            return 41

        guest = start(LAYERS, outer=outer, inner=lambda: 1 // 0)
        assert guest("one") == 42

    def test_a_trap_within_a_host_call_goes_out_unless_caught(self, start: Start) -> None:
        guest: Guest = start(LAYERS, outer=lambda: guest("boom"), inner=lambda: 0)
        with pytest.raises(Trap) as caught:
            guest("one")
        assert caught.value.kind is TrapKind.UNREACHABLE
        assert guest("fine") == 7

    @pytest.mark.parametrize(
        "kind",
        [KeyboardInterrupt, SystemExit, GeneratorExit, StopIteration, RecursionError, AssertionError, MemoryError],
    )
    def test_exceptions_of_any_kind(self, start: Start, kind: type[BaseException]) -> None:
        def raising() -> int:
            raise kind

        guest = start(LAYERS, outer=raising, inner=raising)
        with pytest.raises(kind):
            guest("one")
        assert guest("fine") == 7

    def test_endless_recursion_through_the_host_ends(self, start: Start) -> None:
        guest: Guest = start(LAYERS, outer=lambda: guest("one"), inner=lambda: 0)
        with pytest.raises((RecursionError, Trap)):
            guest("one")
        assert guest("fine") == 7
