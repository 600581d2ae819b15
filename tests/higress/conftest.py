"""Production plugins of Higress, as the wheel ``gpustack-higress-plugins`` of our test group ships them: thirteen in
Go, one in Rust, all of ABI 0.2.100. Each test gets a host of its own on every engine; compiled modules are kept in the
default cache, so only the first run takes its time.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from proxywasm_host import Host, Plugin, Services
from proxywasm_host.engine.protocol import Engine
from proxywasm_host.services import InMemoryMetrics, ManualClock
from proxywasm_host.testing import FilterUnderTest, Harness
from tests.support import Lines

from .transcript import Exchange

ERROR = 4
CLUSTERS = {
    "outbound|80||auth.static",
    "outbound|80||decide.static",
    "outbound|80||gpustack.static",
    "outbound|80||redis.static",
}


@lru_cache(None)
def code(name: str) -> bytes:
    """The module of a plugin. The package is not imported: it wants a web framework."""
    package = find_spec("gpustack_higress_plugins")
    assert package is not None and package.origin is not None
    (version,) = (Path(package.origin).parent / "plugins" / name).iterdir()
    return (version / "plugin.wasm").read_bytes()


@pytest.fixture
def metrics() -> InMemoryMetrics:
    return InMemoryMetrics()


@pytest.fixture
def services(log: Lines, clock: ManualClock, metrics: InMemoryMetrics) -> Services:
    return Services(log=log, clock=clock, metrics=metrics, clusters=CLUSTERS)


@pytest.fixture
def host(engine: Engine, services: Services) -> Iterator[Host]:
    with Host(engine, services=services) as host:
        yield host


@pytest.fixture
def load(host: Host) -> Callable[..., Plugin]:
    """Load a plugin with a configuration: ``load("transformer", reqRules=[…])``."""

    def load(name: str, **configuration: Any) -> Plugin:
        return host.load_plugin(code(name), name=name, configuration=json.dumps(configuration))

    return load


@pytest.fixture
def exchange(host: Host) -> Callable[..., Exchange]:
    """Begin an HTTP exchange through plugins: ``exchange(first, second, route_name="…")``."""

    def exchange(*plugins: Plugin, buffer_limit: int = 1024 * 1024, **properties: Any) -> Exchange:
        known = {name.replace("__", "."): value for name, value in properties.items()}
        return Exchange(host, plugins, known, buffer_limit)

    return exchange


@pytest.fixture
def errors() -> list[str]:
    """Errors that a filter under test logs; to be filled in by tests of one that does."""
    return []


@pytest.fixture
def filter(engine: Engine, errors: list[str]) -> Iterator[Callable[..., FilterUnderTest]]:
    """A filter under test, with its configuration: ``filter("transformer", reqRules=[…])``. It logs no other errors."""
    with Harness(engine, profile="higress") as harness:

        def load(name: str, **configuration: Any) -> FilterUnderTest:
            return harness(code(name), configuration, name=name)

        yield load
        assert [line.message for line in harness.logs if line.level >= ERROR] == errors


@pytest.fixture(autouse=True)
def no_errors(log: Lines) -> Iterator[None]:
    """No plugin logs an error, unless the test has taken it from the log."""
    yield
    assert [line.message for line in log.lines if line.level >= ERROR] == []
