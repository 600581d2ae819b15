"""Values in both directions: every type with its extreme values and every bit."""

from __future__ import annotations

import math
import struct
from collections.abc import Callable
from typing import Any

import pytest

from .base import Base, Start

ECHO = """(module
  (import "h" "i32" (func $i32 (param i32) (result i32)))
  (import "h" "i64" (func $i64 (param i64) (result i64)))
  (import "h" "f32" (func $f32 (param f32) (result f32)))
  (import "h" "f64" (func $f64 (param f64) (result f64)))
  (import "h" "mixed" (func $mixed (param i32 i64 f32 f64 i32) (result i64)))
  (func (export "i32") (param i32) (result i32) (call $i32 (local.get 0)))
  (func (export "i64") (param i64) (result i64) (call $i64 (local.get 0)))
  (func (export "f32") (param f32) (result f32) (call $f32 (local.get 0)))
  (func (export "f64") (param f64) (result f64) (call $f64 (local.get 0)))
  (func (export "mixed") (param i32 f64 i64 f32) (result i64)
    (call $mixed (local.get 0) (local.get 2) (local.get 3) (local.get 1) (i32.const -1))))"""

_EDGES = sorted({sign * (1 << bits) + more for bits in (0, 7, 31, 32, 63) for sign in (-1, 1) for more in (-1, 0, 1)})
_INTEGERS = [value for value in _EDGES if -(1 << 63) <= value < 1 << 64] + [(1 << 64) - 1]
_FLOATS = [0.0, -0.0, 0.1, -1.5, math.inf, -math.inf, 5e-324, 2.2250738585072014e-308, 1.7976931348623157e308, 2.0**53]
_SINGLES = [0.0, -0.0, 0.5, -1.5, math.inf, -math.inf, 2.0**-149, 2.0**-126, 3.4028234663852886e38, 2.0**24]


class Values(Base):
    """Tests of values in both directions."""

    @pytest.fixture
    def seen(self) -> list[tuple[float, ...]]:
        """The arguments of the host functions of `echo`."""
        return []

    @pytest.fixture
    def echo(self, start: Start, seen: list[tuple[float, ...]]) -> object:
        """A guest that passes its arguments to the host, which returns the first one."""

        def keep(*values: float) -> float:
            seen.append(values)
            return values[0]

        return start(ECHO, i32=keep, i64=keep, f32=keep, f64=keep, mixed=keep)

    @pytest.mark.parametrize("value", _INTEGERS)
    def test_integers_are_unsigned_on_the_host(self, echo: Callable[..., Any], seen: list[object], value: int) -> None:
        assert echo("i32", value) == value % (1 << 32)
        assert echo("i64", value) == value % (1 << 64)
        assert seen == [(value % (1 << 32),), (value % (1 << 64),)]

    @pytest.mark.parametrize("value", _FLOATS)
    def test_floats_cross_unchanged(self, echo: Callable[..., Any], seen: list[tuple[float]], value: float) -> None:
        result = echo("f64", value)
        assert struct.pack("<2d", result, seen[0][0]) == struct.pack("<2d", value, value)

    @pytest.mark.parametrize("value", _SINGLES)
    def test_single_floats_cross_unchanged(
        self, echo: Callable[..., Any], seen: list[tuple[float]], value: float
    ) -> None:
        result = echo("f32", value)
        assert struct.pack("<2d", result, seen[0][0]) == struct.pack("<2d", value, value)

    def test_what_is_no_number_stays_so(self, echo: Callable[..., Any], seen: list[tuple[float]]) -> None:
        results = [echo("f32", math.nan), echo("f64", math.nan), *(value for (value,) in seen)]
        assert [isinstance(value, float) and math.isnan(value) for value in results] == [True] * 4

    def test_many_types_in_one_call(self, echo: Callable[..., Any], seen: list[object]) -> None:
        assert echo("mixed", -2, 1e300, -3, 0.5) == (1 << 32) - 2
        assert seen == [((1 << 32) - 2, (1 << 64) - 3, 0.5, 1e300, (1 << 32) - 1)]

    def test_a_wrong_number_of_arguments_is_a_type_error(self, echo: Callable[..., Any]) -> None:
        with pytest.raises(TypeError):
            echo("i32")
        with pytest.raises(TypeError):
            echo("i32", 1, 2)

    def test_no_result_is_none(self, start: Start) -> None:
        assert start('(module (func (export "f")))')("f") is None

    def test_a_host_function_that_forgets_its_result_is_told(self, start: Start) -> None:
        guest = start(
            '(module (import "h" "f" (func $f (result i32))) (func (export "f") (drop (call $f))))', f=lambda: None
        )
        with pytest.raises(TypeError):
            guest("f")

    def test_a_function_of_references_is_refused_by_name(self, start: Start) -> None:
        guest = start('(module (func (export "f") (param funcref)))')
        with pytest.raises(TypeError, match="f "):
            guest.instance.function("f")

    def test_many_parameters(self, start: Start) -> None:
        guest = start(
            """(module (type $many (func (param i32 i32 i32 i32 i32 i32 i32 i32 i32 i32
                i32 i32 i32 i32 i32 i32 i32 i32 i32 i32) (result i32)))
              (import "h" "sum" (func $sum (type $many)))
              (func (export "sum") (type $many) (call $sum
                (local.get 0) (local.get 1) (local.get 2) (local.get 3) (local.get 4)
                (local.get 5) (local.get 6) (local.get 7) (local.get 8) (local.get 9)
                (local.get 10) (local.get 11) (local.get 12) (local.get 13) (local.get 14)
                (local.get 15) (local.get 16) (local.get 17) (local.get 18) (local.get 19))))""",
            sum=lambda *values: sum(value << index for index, value in enumerate(values)),
        )
        assert guest("sum", *range(20)) == sum(value << value for value in range(20))
