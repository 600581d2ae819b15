"""What V8 compiles when a module is loaded and when an instance is made, and what in the midst of calls."""

from __future__ import annotations

import re

import pytest

from proxywasm_engine_v8.binary import EARLY, VERY_LARGE, Binary
from proxywasm_engine_v8.reader import section
from proxywasm_host.engine.protocol import Limits
from tests.support import wat

from .support import WAYS, function, run, take_way, v8

ADD = "(local.set 0 (i32.add (local.get 0) (i32.const 1)))"  # seven bytes
SIZES = {"small": EARLY - 100, "large": EARLY + 100, "very_large": VERY_LARGE + 100}
FUNCTIONS = " ".join(
    f'(func (export "{name}") (param i32) (result i32) {ADD * (size // 7)} (local.get 0))'
    for name, size in SIZES.items()
)
TEXT = f'(module (memory 1) {FUNCTIONS} (func (export "function 2 0")))'
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
    assert sorted(told[:2]) == ["large by Liftoff", "very_large by Liftoff"]
    assert told[2:] == ["compiled", "very_large by TurboFan", "instantiated", "small by Liftoff", results, results]


def test_what_is_added_for_it_is_not_seen(way: str) -> None:
    module = v8().compile(hinted())
    assert [item.name for item in module.exports] == [*SIZES, "function 2 0"]
    assert list(module.binary.very_large) == ["function 2 1"], "a name that is not taken"
    instance = module.instantiate([], Limits())
    assert instance.function("function 2 1") is None
    assert function(instance, "function 2 0")() is None


def test_a_module_gives_v8_no_hints_of_its_own() -> None:
    code = wat('(module (func (export "f")))')
    assert Binary(code[:8] + HINT + code[8:]).rewritten == code
