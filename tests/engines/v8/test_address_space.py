"""Under a limit of address space V8 would end the process: we say why, and do not ask it."""

import subprocess
import sys

import pytest

from tests.support import FILTERS

GIB = 1 << 30
START = """
import resource, sys
limit = int(sys.argv[1])
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
from proxywasm_host import EngineUnavailable, open_engine
try:
    open_engine("v8")
    print("opened")
except EngineUnavailable as error:
    print(error)
"""
LATER = """
import resource, sys
from proxywasm_host import Host, ModuleError, PluginError, open_engine
engine = open_engine("v8")
host = Host(engine)
if sys.argv[3] == "one before":
    host.load_plugin(sys.argv[1])
used = int(open("/proc/self/statm").read().split()[0]) * 4096
limit = used + int(sys.argv[2])
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
try:
    host.load_plugin(sys.argv[1], vm_id="another")
    print("loaded")
except (ModuleError, PluginError) as error:
    print(type(error).__name__, error)
"""


def _run(program: str, *arguments: object, route: str, **environment: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", program, *map(str, arguments)],
        env={"PROXYWASM_V8_ROUTE": route, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.strip()


@pytest.fixture(params=["in-thread", "mini-racer"])
def route(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.mark.parametrize("gib", [1, 64, 200, 1200])
@pytest.mark.parametrize("check", ["yes", "no"])
def test_no_room_to_start(route: str, gib: int, check: str, tmp_path: object) -> None:
    said = _run(START, gib * GIB, route=route, PROXYWASM_V8_SELF_CHECK=check, PROXYWASM_CACHE_DIR=str(tmp_path))
    assert said.startswith(
        f"engine 'v8' is not usable: V8 reserves 1424 GiB of address space, and of the {gib} GiB "
        "that this process may have (ulimit -v) "
    )
    assert said.endswith(" are left: remove the limit, or use another engine")


def test_room_to_start(route: str) -> None:
    assert _run(START, 1500 * GIB, route=route) == "opened"


@pytest.mark.parametrize("before", ["none before", "one before"])
def test_no_room_for_another_guest(route: str, before: str) -> None:
    said = _run(LATER, FILTERS / "c" / "hello.wasm", GIB, before, route=route)
    kind = (
        "ModuleError v8 cannot compile the module" if before == "none before" else "PluginError plugin 'hello' unable"
    )
    assert said.startswith(kind)
    assert "V8 reserves 2 GiB of address space, and of the 139" in said


def test_room_for_another_guest(route: str) -> None:
    assert _run(LATER, FILTERS / "c" / "hello.wasm", 8 * GIB, "none before", route=route) == "loaded"
