"""What V8 compiles when a module is loaded and when an instance is made, and what in the midst of calls."""

from __future__ import annotations

import re

import pytest

from proxywasm_engine_v8.binary import VERY_LARGE, Binary
from proxywasm_engine_v8.reader import section
from proxywasm_host.engine.protocol import Limits
from tests.support import wat

from .support import WAYS, function, run, take_way, v8

ADD = "(local.set 0 (i32.add (local.get 0) (i32.const 1)))"  # seven bytes
SIZES = {"large": VERY_LARGE - 100, "very_large": VERY_LARGE + 100}
FUNCTIONS = " ".join(
    f'(func (export "{name}") (param i32) (result i32) {ADD * (size // 7)} (local.get 0))'
    for name, size in SIZES.items()
)
TEXT = f'(module (memory 1) {FUNCTIONS} (func (export "function 1 0")))'
HINT = section(0, b"\x22metadata.code.compilation_priority\1\0\0\1\1")
"""Has V8 compile function 0 at once, if it gets to see it."""

PROGRAM = """
    import ctypes
    from proxywasm_engine_v8 import start
    from tests.engines.v8.test_compiling import SIZES, hinted

    def step(name):
        ctypes.CDLL(None).fflush(None)  # of V8's own
        print(name, flush=True)

    start.FLAGS = (*start.FLAGS, "--trace-wasm-compilation-times")
    module = v8().compile(hinted())
    step("compiled")
    instance = module.instantiate([], Limits())
    step("instantiated")
    step([function(instance, name)(1) for name in SIZES])
    other = module.instantiate([], Limits())
    step([function(other, name)(1) for name in SIZES])
"""


def hinted() -> bytes:
    code = wat(TEXT)
    return code[:8] + HINT + code[8:]


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    take_way(request.param, monkeypatch)
    return str(request.param)


def test_large_functions_are_compiled_before_they_are_called(way: str) -> None:
    done = run(PROGRAM)
    assert (done.stderr, done.returncode) == ("", 0)
    told, names = [], dict(enumerate(SIZES))
    for line in done.stdout.splitlines():
        if not line.startswith("Compiled function"):
            told.append(line)
        elif (found := re.search(r"#(\d) using (\w+), .* bodysize (\d+)", line)) and int(found[3]) > 1000:
            told.append(f"{names[int(found[1])]} by {found[2]}")
    results = str([size // 7 + 1 for size in SIZES.values()])
    assert told == [
        *("very_large by Liftoff", "compiled", "very_large by TurboFan", "instantiated"),
        *("large by Liftoff", results, results),
    ]


SLOW = f"""(module (memory (export "memory") 1) (func (export "proxy_abi_version_0_2_1"))
  (func $slow (export "slow") (param i32) (result i32) (local {"i32 " * 250}) {"(loop $l" * 90}
    {" ".join(f"(local.set {n} (i32.add (local.get {n - 1}) (i32.const 1)))" for n in range(1, 250))}
    {" ".join(f"(br_if {n} (local.get 250))" for n in range(90))} {")" * 90} (local.get 249))
  (func (export "hot") (param i32) (result i32) (local i32)
    (loop $l (local.set 1 (call $slow (local.get 0)))
      (br_if $l (local.tee 0 (i32.sub (local.get 0) (i32.const 1))))) (local.get 1))
  (func (export "malloc") (param i32) (result i32) (i32.const 0)))"""
"""A function of 3 KiB that takes V8 longer to optimise than one of 60."""
LOADED = """
    import ctypes
    from proxywasm_engine_v8 import start
    from proxywasm_host import Host
    from tests.engines.v8.test_compiling import SLOW, wat

    def step(name):
        ctypes.CDLL(None).fflush(None)  # of V8's own
        print(name, flush=True)

    start.FLAGS = (*start.FLAGS, "--trace-wasm-compilation-times")
    with Host(v8()) as host:
        plugin = host.load_plugin(wat(SLOW))
        step("loaded")
        step(plugin._vm.instance.function("hot")(100_000))
"""


def test_a_function_that_is_slow_to_optimise_is_not_optimised_in_the_midst_of_a_call(way: str) -> None:
    done = run(LOADED)
    assert (done.stderr, done.returncode) == ("", 0)
    told = []
    for line in done.stdout.splitlines():
        found = re.search(r"#1 using (\w+), .* bodysize (\d+)", line)
        if not line.startswith("Compiled function"):
            told.append(line)
        elif found and int(found[2]) > 2000:
            told.append(found[1])
    assert told == ["Liftoff", "TurboFan", "loaded", "250"]


def test_what_is_added_for_it_is_not_seen(way: str) -> None:
    module = v8().compile(hinted())
    assert [item.name for item in module.exports] == [*SIZES, "function 1 0"]
    assert list(module.binary.optimised) == ["function 1 1"], "a name that is not taken"
    instance = module.instantiate([], Limits())
    assert instance.function("function 1 1") is None
    assert function(instance, "function 1 0")() is None


def test_a_module_gives_v8_no_hints_of_its_own() -> None:
    code = wat('(module (func (export "f")))')
    assert Binary(code[:8] + HINT + code[8:]).rewritten == code
