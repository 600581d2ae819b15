"""Calls between host and guest through the engine's own interface, without ABI and runtime."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import wasmtime

from benchmarks.timing import InProcess
from benchmarks.workloads.workload import Workload
from proxywasm_host import open_engine
from proxywasm_host.engine.protocol import FunctionType, HostFunction, Limits

LOOP = 1000
CODE = f"""(module
  (import "env" "one" (func $one (param i32 i32) (result i32)))
  (func (export "add") (param i32 i32) (result i32) (i32.add (local.get 0) (local.get 1)))
  (func (export "count") (result i32) (local $left i32) (local $sum i32)
    (local.set $left (i32.const {LOOP}))
    (loop $again
      (local.set $sum (i32.add (local.get $sum) (call $one (i32.const 1) (i32.const 2))))
      (br_if $again (local.tee $left (i32.sub (local.get $left) (i32.const 1)))))
    (local.get $sum)))"""


def _one(left: int, right: int) -> int:
    return 1


@contextmanager
def host_to_guest(engine: str) -> Iterator[InProcess]:
    module = open_engine(engine).compile(bytes(wasmtime.wat2wasm(CODE)))
    one = HostFunction("env", "one", FunctionType(("i32", "i32"), ("i32",)), _one)
    instance = module.instantiate([one], Limits())
    add = instance.function("add")
    assert add is not None
    assert add(1, 2) == 3
    yield InProcess(lambda: add(1, 2))
    instance.close()


@contextmanager
def guest_to_host(engine: str) -> Iterator[InProcess]:
    module = open_engine(engine).compile(bytes(wasmtime.wat2wasm(CODE)))
    one = HostFunction("env", "one", FunctionType(("i32", "i32"), ("i32",)), _one)
    instance = module.instantiate([one], Limits())
    count = instance.function("count")
    assert count is not None
    assert count() == LOOP
    yield InProcess(count, LOOP)
    instance.close()


WORKLOADS = (
    Workload("crossing", "host → guest", "a call of an exported function, two numbers in, one out", host_to_guest),
    Workload("crossing", "guest → host", "a call of an imported function, two numbers in, one out", guest_to_host),
)
