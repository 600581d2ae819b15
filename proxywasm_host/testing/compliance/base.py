"""The engine under test and its fixtures."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from importlib import import_module
from typing import Any, ClassVar, TypeVar

import pytest

from proxywasm_host.engine.protocol import Engine, HostFunction, Instance, Limits, Memory
from proxywasm_host.engine.registry import open_engine
from proxywasm_host.testing.guest import Guest, type_of

from .assembled import wasm

__all__ = ["Base", "Start", "instantiate", "is_remade", "requires"]

Start = Callable[..., Guest]
_Test = TypeVar("_Test", bound=Callable[..., None])
_opened: dict[object, Engine] = {}


def requires(*capabilities: str) -> Callable[[_Test], _Test]:
    """Mark a test for engines with these `Capabilities`. It is skipped on others."""

    def mark(test: _Test) -> _Test:
        test.requires = capabilities  # type: ignore[attr-defined]
        return test

    return mark


class Base:
    """Base class of the tests, with their fixtures."""

    engine: ClassVar[Any] = None
    """The engine: ``"package.module:Class"``, the class, or a name in the registry. Or override the fixture."""
    options: ClassVar[Mapping[str, Any]] = {}
    """Options for opening the engine."""

    @pytest.fixture(name="engine")
    def _engine(self) -> Engine:
        """The engine, opened once."""
        key = self.engine, repr(sorted(self.options.items()))
        if key not in _opened:
            _opened[key] = _open(self.engine, self.options)
        return _opened[key]

    @pytest.fixture(autouse=True)
    def _capable(self, request: pytest.FixtureRequest, engine: Engine) -> None:
        for capability in getattr(request.function, "requires", ()):
            if not getattr(engine.capabilities, capability):
                pytest.skip(f"{engine.name} does not declare the capability {capability!r}")

    @pytest.fixture
    def start(self, engine: Engine) -> Iterator[Start]:
        """A function ``start(text, limits, name=handler, …)`` that makes an instance, closed at the end of the test."""
        guests: list[Guest] = []

        def start(text: str, limits: Limits = Limits(), **hosts: Callable[..., object]) -> Guest:  # noqa: B008
            guests.append(Guest(engine.compile(wasm(text)), limits, hosts))
            return guests[-1]

        yield start
        for guest in guests:
            guest.close()


def instantiate(engine: Engine, text: str, handler: Callable[..., object], **options: Any) -> Instance:
    """An instance with `handler` as the host function of all imports. `options` are ``limits`` and ``bind``."""
    module = engine.compile(wasm(text))
    functions = [HostFunction(item.module, item.name, item.type or type_of(""), handler) for item in module.imports]
    return module.instantiate(functions, options.pop("limits", Limits()), **options)


def is_remade(memory: Memory) -> bool:
    """Whether `view` is a new object each time, so that memory may move when it grows (see `Memory`)."""
    return isinstance(getattr(type(memory), "view", None), property)


def _open(target: Any, options: Mapping[str, Any]) -> Engine:
    if target is None:
        raise TypeError('set the engine to test: engine = "package.module:Class"')
    if isinstance(target, str) and ":" not in target:
        return open_engine(target, **options)
    if isinstance(target, str):
        module, _, name = target.partition(":")
        target = getattr(import_module(module), name)
    engine: Engine = target(**options)
    return engine
