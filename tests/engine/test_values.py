"""Values cross unchanged, whatever they are, on every engine."""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxywasm_host import Limits, open_engine
from proxywasm_host.testing import Guest
from proxywasm_host.testing.compliance.values import ECHO
from tests.conftest import ENGINES
from tests.support import wat

Echo = tuple[list[tuple[float, ...]], Callable[..., Any]]


@pytest.fixture(scope="module", params=[*[(name, {}) for name in ENGINES], ("wasmtime", {"route": "objects"})], ids=str)
def echo(request: pytest.FixtureRequest) -> Iterator[Echo]:
    """What the host was given, and a guest that hands it on and back."""
    seen: list[tuple[float, ...]] = []

    def keep(*values: float) -> float:
        seen.append(values)
        return values[0]

    name, options = request.param
    module = open_engine(name, **options).compile(wat(ECHO))
    guest = Guest(module, Limits(), {item.name: keep for item in module.imports})
    yield seen, guest
    guest.close()


@given(value=st.integers(-(1 << 63), (1 << 64) - 1))
def test_integers_are_unsigned_on_the_host(echo: Echo, value: int) -> None:
    seen, call = echo
    assert call("i32", value) == value % (1 << 32)
    assert call("i64", value) == value % (1 << 64)
    assert seen[-2:] == [(value % (1 << 32),), (value % (1 << 64),)]


@given(value=st.floats())
def test_floats_cross_unchanged(echo: Echo, value: float) -> None:
    _, call = echo
    result = call("f64", value)
    assert struct.pack("<d", result) == struct.pack("<d", value) or math.isnan(value)
    assert math.isnan(result) == math.isnan(value)


@given(value=st.floats(width=32))
def test_single_floats_cross_unchanged(echo: Echo, value: float) -> None:
    _, call = echo
    result = call("f32", value)
    assert struct.pack("<d", result) == struct.pack("<d", value) or math.isnan(value)
    assert math.isnan(result) == math.isnan(value)
