"""Calls while Python's stack is nearly full. Each succeeds or raises RecursionError, without further harm."""

from __future__ import annotations

import gc
import sys
from collections import deque
from collections.abc import Callable, Iterator
from functools import partial

import pytest

from proxywasm_host.engine.protocol import Engine, Trap
from proxywasm_host.testing.guest import Guest

from .base import Base, Start, instantiate
from .exceptions import LAYERS

__all__ = ["FullStack"]

_START = '(module (import "h" "hello" (func $hello)) (start $hello))'
_Fill = Callable[[int, Callable[[], object]], object]


def _fill(depth: int, last: Callable[[], object]) -> object:
    """Call `last` within `depth` calls."""
    return _fill(depth - 1, last) if depth else last()


def _fill_from_c(depth: int, last: Callable[[], object]) -> object:
    """As `_fill`, with C frames between the calls, which CPython ≥ 3.12 counts separately."""
    return next(map(_fill_from_c, (depth - 1,), (last,))) if depth else last()


def _depths(fill: _Fill, step: int = 1) -> Iterator[int]:
    """Depths of the stack, from a hundred calls before it is full to where no call is possible."""
    deepest = 0
    while _outcome(partial(fill, deepest, int)) == 0:
        deepest += 1
    yield 0
    yield from range(max(deepest - 100, 1), deepest + 1, step)


def _outcome(call: Callable[[], object]) -> object:
    try:
        return call()
    except (ZeroDivisionError, Trap) as error:
        return type(error)
    except Exception as error:
        if "recursion" not in repr(error).lower():  # ctypes and others replace RecursionError
            raise
        return RecursionError


class FullStack(Base):
    """Tests of calls on a nearly full stack."""

    @pytest.fixture
    def quiet_finalizers(self, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
        """Prevent finalizers of other garbage from running, as they fail on a full stack; silence the rest."""
        monkeypatch.setattr(sys, "unraisablehook", deque[object](maxlen=0).append)  # needs no stack
        gc.collect()
        gc.disable()
        yield
        gc.enable()

    @pytest.mark.usefixtures("quiet_finalizers")
    @pytest.mark.parametrize("fill", [_fill, _fill_from_c])
    @pytest.mark.parametrize(("name", "expected"), [("one", 42), ("two", ZeroDivisionError), ("boom", Trap)])
    def test_however_much_of_it_is_left_when_the_guest_is_entered(
        self, start: Start, name: str, expected: object, fill: _Fill
    ) -> None:
        guest = start(LAYERS, outer=lambda: _fill(3, lambda: 41), inner=lambda: 1 // 0)
        outcomes = set()
        for depth in _depths(fill):
            outcomes.add(_outcome(partial(fill, depth, partial(guest, name))))
            assert guest("fine") == 7
        assert outcomes == {expected, RecursionError}

    @pytest.mark.usefixtures("quiet_finalizers")
    def test_however_much_of_it_is_left_for_a_guest_within_a_guest(self, start: Start) -> None:
        def inner() -> int:
            return 1 + inner()

        depth = 0
        guest: Guest = start(LAYERS, outer=lambda: _fill(depth, partial(guest, "two")), inner=inner)
        for depth in _depths(_fill):  # noqa: B007 - it is used in `outer`
            assert _outcome(partial(guest, "one")) is RecursionError
            assert guest("fine") == 7

    @pytest.mark.usefixtures("quiet_finalizers")
    def test_however_much_of_it_is_left_when_an_instance_is_made(self, engine: Engine) -> None:
        called: list[int] = []
        outcomes = set()

        def made() -> None:
            instantiate(engine, _START, lambda: called.append(1)).close()

        for depth in _depths(_fill, step=3):
            outcomes.add(_outcome(partial(_fill, depth, made)))
        assert outcomes == {None, RecursionError}
        assert called
