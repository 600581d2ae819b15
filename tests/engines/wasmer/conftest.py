"""Wasmer as the only engine, and instances that are closed when a test is over."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from proxywasm_engine_wasmer import WasmerEngine
from proxywasm_host.engine.protocol import Engine, Limits
from proxywasm_host.testing.guest import Guest
from tests.support import wat

Start = Callable[..., Guest]


@pytest.fixture(scope="session")
def engine() -> Engine:
    """Wasmer."""
    return WasmerEngine()


@pytest.fixture
def start(engine: Engine) -> Iterator[Start]:
    """``start(text, limits=…, name=handler, …)`` makes an instance, which is closed at the end of the test."""
    guests: list[Guest] = []

    def start(text: str, limits: Limits = Limits(), **hosts: Callable[..., object]) -> Guest:  # noqa: B008
        guests.append(Guest(engine.compile(wat(text)), limits, hosts))
        return guests[-1]

    yield start
    for guest in guests:
        guest.close()
