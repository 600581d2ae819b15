"""Engines for these tests, and WebAssembly text made into bytes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache

import pytest
import wasmtime

from proxywasm_engine_wasmtime import WasmtimeEngine
from proxywasm_host.engine.protocol import Engine, FunctionType, HostFunction, Instance, Limits, Module

ROUTES = {
    "ctypes": lambda: WasmtimeEngine(route="ctypes"),
    "objects": lambda: WasmtimeEngine(route="objects"),
}


@cache
def wasm(text: str) -> bytes:
    """The module in binary form."""
    return bytes(wasmtime.wat2wasm(text))


def type_of(text: str) -> FunctionType:
    """``"i32 i64 -> i32"`` as a type."""
    params, _, results = text.partition("->")
    return FunctionType(tuple(params.split()), tuple(results.split()))


@pytest.fixture(scope="session", params=list(ROUTES))
def engine(request: pytest.FixtureRequest) -> Engine:
    """Each engine that the suite runs on."""
    return ROUTES[request.param]()


class Guest:
    """An instance, and short words for what tests do with it."""

    def __init__(self, module: Module, limits: Limits, hosts: dict[str, Callable[..., object]]) -> None:
        self.bound = 0
        self.instance: Instance | None = None
        self.instance = module.instantiate(
            [
                HostFunction(item.module, item.name, item.type or type_of(""), hosts[item.name])
                for item in module.imports
            ],
            limits,
            self._bind,
        )

    def _bind(self, instance: Instance) -> None:
        self.bound += 1
        self.instance = instance

    def __call__(self, name: str, *arguments: float) -> object:
        assert self.instance is not None
        call = self.instance.function(name)
        assert call is not None, name
        return call(*arguments)

    def read(self, at: int, size: int) -> bytes:
        assert self.instance is not None
        assert self.instance.memory is not None
        return bytes(self.instance.memory.view[at : at + size])

    def write(self, at: int, data: bytes) -> None:
        assert self.instance is not None
        assert self.instance.memory is not None
        self.instance.memory.view[at : at + len(data)] = data


Start = Callable[..., Guest]


@pytest.fixture
def start(engine: Engine) -> Iterator[Start]:
    """``start(text, limits=…, name=handler, …)`` makes an instance, which is closed at the end of the test."""
    guests: list[Guest] = []

    def start(text: str, limits: Limits = Limits(), **hosts: Callable[..., object]) -> Guest:  # noqa: B008
        guests.append(Guest(engine.compile(wasm(text)), limits, hosts))
        return guests[-1]

    yield start
    for guest in guests:
        if guest.instance is not None:
            guest.instance.close()
