"""A guest on V8, and programs that run in a process of their own."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from proxywasm_engine_v8 import V8Engine
from proxywasm_host.engine.protocol import HostFunction, Instance, Limits
from proxywasm_host.testing.guest import type_of
from tests.support import wat

ROUTES = ["in-thread", "mini-racer"]
WAYS: dict[str, dict[str, Any]] = {
    "C": {"route": "in-thread"},
    "ctypes": {"route": "in-thread", "native": False},
    "mini-racer": {"route": "mini-racer"},
}
"""Ways into V8, as options."""
_VARIABLE = "TESTED_WAY_INTO_V8"


def take_way(way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have `v8` take this way, here and in other processes."""
    monkeypatch.setenv(_VARIABLE, way)


TEXT = """(module (import "h" "f" (func $f (param i32) (result i32))) (memory (export "memory") 1)
  (func (export "calls") (param i32) (result i32) (local i32)
    (loop $l (local.set 1 (call $f (local.get 0)))
      (br_if $l (local.tee 0 (i32.sub (local.get 0) (i32.const 1))))) (local.get 1))
  (func $spin (export "spin") (loop $l (br $l)))
  (func $recurse (export "recurse") (param i32)
    (call $recurse (i32.add (local.get 0) (i32.const 1))) (i32.store (i32.const 0) (local.get 0)))
  (func (export "one") (result i32) (i32.const 1))
  (func (export "grow") (result i32) (memory.grow (i32.const 1))))"""

TRAPS = """(module (memory (export "memory") 1) (func (export "unreachable") unreachable)
  (func (export "load") (drop (i32.load (i32.const 65533))))
  (func (export "divide") (param i32) (drop (i32.div_s (i32.const 1) (local.get 0))))
  (func $recurse (export "recurse") (param i32)
    (call $recurse (i32.add (local.get 0) (i32.const 1))) (i32.store (i32.const 0) (local.get 0))))"""


def v8() -> V8Engine:
    """V8, on the way that is taken."""
    return V8Engine(**WAYS[os.environ[_VARIABLE]])


def instantiate(handler: Callable[[int], object] = lambda a: a, limits: Limits = Limits()) -> Instance:  # noqa: B008
    module = v8().compile(wat(TEXT))
    return module.instantiate([HostFunction("h", "f", type_of("i32 -> i32"), handler)], limits)


def function(instance: Instance, name: str) -> Callable[..., object]:
    found = instance.function(name)
    assert found is not None
    return found


def run(program: str) -> subprocess.CompletedProcess[str]:
    """Run a program in a process of its own, with ``instantiate`` and ``function`` at hand."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    head = (
        "import os, signal, sys, time\n"
        "from proxywasm_host.engine.protocol import *\n"
        "from tests.engines.v8.support import *\n"
    )
    return subprocess.run(
        [
            sys.executable,
            "-X",
            "faulthandler",
            "-W",
            "ignore::DeprecationWarning",
            "-c",
            head + textwrap.dedent(program),
        ],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
    )


def in_background(call: Callable[..., object], *arguments: object) -> None:
    """Have `call` under way on a thread that the process does not wait for."""
    threading.Thread(target=call, args=arguments, daemon=True).start()
    time.sleep(0.1)
