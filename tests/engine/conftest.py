"""WebAssembly text made into bytes, and instances that are closed when a test is over."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache

import pytest
import wasmtime

from proxywasm_host.engine.protocol import Engine, Limits
from proxywasm_host.testing.guest import Guest, type_of

__all__ = ["Guest", "Start", "start", "type_of", "wasm"]

Start = Callable[..., Guest]


@cache
def wasm(text: str) -> bytes:
    """The module in binary form."""
    return bytes(wasmtime.wat2wasm(text))


@pytest.fixture
def start(engine: Engine) -> Iterator[Start]:
    """``start(text, limits=…, name=handler, …)`` makes an instance, which is closed at the end of the test."""
    guests: list[Guest] = []

    def start(text: str, limits: Limits = Limits(), **hosts: Callable[..., object]) -> Guest:  # noqa: B008
        guests.append(Guest(engine.compile(wasm(text)), limits, hosts))
        return guests[-1]

    yield start
    for guest in guests:
        guest.close()
