"""Fixtures: every test that needs an engine gets each usable one in turn."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from importlib.metadata import entry_points
from importlib.util import find_spec
from typing import Any

import pytest

from proxywasm_host import Host, Plugin, Services, open_engine
from proxywasm_host.engine.protocol import Engine
from proxywasm_host.services import ManualClock
from tests.support import Lines, Trace, code

# The tests of an engine that is not installed here are not collected.
collect_ignore = [
    name for name in ("engine_v8", "engine_wasmer") if find_spec(name.replace("engine", "proxywasm_engine")) is None
]

# Names only: an engine that is opened before pytest has set up its faulthandler would lose its signal handlers to it.
ENGINES = sorted({entry.name for entry in entry_points(group="proxywasm_host.engines")})


# Beside them, V8 as it runs where it cannot be in the calling thread.
PARAMS = [*ENGINES, *("v8 mini-racer" for name in ENGINES if name == "v8")]


@pytest.fixture(scope="session", autouse=True)
def _wasmtime_comes_first() -> None:
    """Its README: tests use the package `wasmtime` by itself, and other engines, before they use ours on it."""
    open_engine("wasmtime")


@pytest.fixture(params=PARAMS)
def engine(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Engine:
    name, _, route = request.param.partition(" ")
    if route:
        monkeypatch.setenv(f"PROXYWASM_{name.upper()}_ROUTE", route)
    return open_engine(name)


@pytest.fixture
def log() -> Lines:
    """What guests log."""
    return Lines()


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def trace() -> Trace:
    """The callbacks and hostcalls of `host`."""
    return Trace()


@pytest.fixture
def services(log: Lines, clock: ManualClock) -> Services:
    return Services(log=log, clock=clock, clusters={"upstream"})


@pytest.fixture
def host(engine: Engine, services: Services, trace: Trace) -> Iterator[Host]:
    with Host(engine, services=services, listener=trace) as host:
        yield host


@pytest.fixture
def probe(host: Host) -> Callable[..., Plugin]:
    r"""Load the scripted filter of ``tests/filters/c/probe.c``: ``probe("@on_request_headers\\n…")``."""

    def load(script: str = "", version: str = "0_2_1", name: str = "probe", **options: Any) -> Plugin:
        return host.load_plugin(code(f"c/probe_{version}"), name=name, configuration=script, **options)

    return load
