"""What hostile guests leave behind in the process: nothing, however often they come."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap

import pytest

from tests.conftest import PARAMS

GET = '(import "env" "proxy_get_property" (func $get (param i32 i32 i32 i32) (result i32)))'
CALL = "(drop (call $get (i32.const 16) (i32.const 12) (i32.const 0) (i32.const 4)))"
GUESTS = {
    # what the allocator does, what the callback does
    "an allocator that grows": (
        """(local i32) (local.set 1 (memory.grow (i32.const 1)))
        (if (i32.lt_s (local.get 1) (i32.const 0)) (then unreachable)) (i32.shl (local.get 1) (i32.const 16))""",
        f"(loop $l {CALL} (br $l))",
    ),
    "stack exhaustion in the allocator": ("(i32.add (call $allocate (local.get 0)) (i32.const 1))", CALL),
    "stack exhaustion through the host": (f"{CALL} (i32.const 1024)", CALL),
    "a trap": ("(i32.const 1024)", f"{CALL} unreachable"),
}
MODULE = """(module {GET} (memory (export "memory") 4) (data (i32.const 16) "request\\00path")
  (func (export "proxy_abi_version_0_2_1"))
  (func $allocate (export "proxy_on_memory_allocate") (param i32) (result i32) {allocate})
  (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32) {body} (i32.const 0)))"""
PROGRAM = """
import gc, sys
from dataclasses import replace
from proxywasm_host import Host, Limits, Services, open_engine
from proxywasm_host.abi.profile import ENVOY
from tests.hostile.test_memory import CALL, GET, GUESTS, MODULE
from tests.support import REQUEST, Lines, wat

def resident():
    gc.collect()
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4

log = Lines()
profile = replace(ENVOY, restricted_allocator=False)  # so that an allocator may call the host
with Host(open_engine(sys.argv[1]), limits=Limits(4 << 20, 5), services=Services(log=log), profile=profile) as host:
    for name, (allocate, body) in GUESTS.items():
        code = wat(MODULE.format(GET=GET, allocate=allocate, body=body))
        def run():
            plugin = host.load_plugin(code)
            with host.http_stream([plugin]) as stream:
                stream.request_headers(REQUEST, True)
                assert stream.failure is not None
            plugin.close()
            log.take()
        for _ in range(30):
            run()
        grown = []
        for _ in range(3):
            before = resident()
            for _ in range(20):
                run()
            grown.append((resident() - before) / 20)
        print(min(grown), name)
"""


@pytest.mark.parametrize("engine", PARAMS)
def test_memory_is_flat(engine: str) -> None:
    """Of three times 20 guests, those grow the process least that come when all is warm: by less than a page each."""
    name, _, route = engine.partition(" ")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    if route:
        environment["PROXYWASM_V8_ROUTE"] = route
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(PROGRAM), name],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    grown = {
        what: float(kibibytes) for kibibytes, _, what in (line.partition(" ") for line in done.stdout.splitlines())
    }
    assert grown.keys() == GUESTS.keys()
    assert [what for what, kibibytes in grown.items() if kibibytes >= 4] == [], grown
