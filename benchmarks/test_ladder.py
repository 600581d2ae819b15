"""Each way does the work. ``--benchmark-enable`` measures its cost."""

from __future__ import annotations

import shutil
from collections.abc import Iterator

import pytest

from benchmarks.contenders.envoy import FURTHER, Listener, envoy
from benchmarks.headers import CHANGED_RESPONSE, check
from benchmarks.ladder import CONTENDERS, Contender
from benchmarks.timing import InProcess

BUILT_WITH_CARGO = {"rust", "kong-rust"}


@pytest.mark.parametrize("contender", CONTENDERS, ids=[contender.name for contender in CONTENDERS])
def test_contender(contender: Contender, benchmark) -> None:
    if contender.name in BUILT_WITH_CARGO and shutil.which("cargo") is None:
        pytest.skip("there is no cargo, and make was told so")
    with contender.open() as timed:
        check(timed.result())
        if isinstance(timed, InProcess):
            benchmark(timed.call)
        else:
            assert benchmark(timed.seconds, 1) > 0


@pytest.fixture(scope="module")
def listeners() -> Iterator[dict[str, Listener]]:
    with envoy() as running:
        yield running


@pytest.mark.parametrize("way", ["wasm", "python", "lua", "native"])
def test_envoy(listeners: dict[str, Listener], way: str) -> None:
    check(listeners[way].result())
    assert listeners[way].seconds(1) > 0


def test_a_chain_in_envoy(listeners: dict[str, Listener]) -> None:
    _, response = listeners["chain"].result()
    assert sorted(set(response)) == sorted(CHANGED_RESPONSE)
    assert response.count((b"x-wasm", b"hello")) == 1 + FURTHER
