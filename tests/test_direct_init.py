"""Frozen dataclasses whose ``__init__`` sets slots directly are what `dataclass` makes, but quicker to make."""

from __future__ import annotations

import inspect
import pickle
from dataclasses import FrozenInstanceError, dataclass, field, replace

import pytest

from proxywasm_host.direct_init import direct_init


@dataclass(frozen=True, slots=True)
class Written:
    name: str
    size: int = 3
    seen: bool = field(default=False, init=False)


@direct_init
@dataclass(frozen=True, slots=True)
class Direct:
    name: str
    size: int = 3
    seen: bool = field(default=False, init=False)


def test_it_takes_and_holds_the_same():
    assert inspect.signature(Direct) == inspect.signature(Written)
    for args, named in ((("a",), {}), (("a", 4), {}), ((), {"size": 5, "name": "b"})):
        assert repr(Direct(*args, **named)) == repr(Written(*args, **named)).replace("Written", "Direct")
    with pytest.raises(TypeError, match=r"Direct.__init__\(\) missing 1 required positional argument: 'name'"):
        Direct()


def test_it_is_a_frozen_value():
    one = Direct("a", 4)
    with pytest.raises(FrozenInstanceError):
        one.size = 5
    assert one == Direct("a", 4) != replace(one, size=5) == Direct("a", 5)
    assert pickle.loads(pickle.dumps(one)) == one
    assert len({one, Direct("a", 4)}) == 1


def test_a_default_factory_is_refused():
    @dataclass(frozen=True, slots=True)
    class Listed:
        items: list[int] = field(default_factory=list)

    with pytest.raises(TypeError, match=r"Listed\.items has a default factory"):
        direct_init(Listed)
