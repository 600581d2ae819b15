"""Compiling in a process of its own: the same code, and limits that hold for the compiler."""

import subprocess
import sys

import pytest

from proxywasm_host import Host, ModuleCache, ModuleError, ModuleLimits, open_engine
from proxywasm_host.engine import compile_process
from proxywasm_host.engine.compile_process import compile_apart
from proxywasm_host.engine.protocol import Engine, InvalidModule, Limits
from tests.support import code, wat

ENGINES = ["wasmtime", "wasmer", "v8"]
SMALL = wat('(module (func (export "f") (result i32) (i32.const 7)))')


def _hard(functions: int) -> str:
    """What takes compilers long: many indirect calls in a function."""
    body = "(call_indirect (i32.const 0))" * 20_000
    return "(table 1 funcref)" + f"(func {body})" * functions


@pytest.fixture(params=["wasmtime", "wasmer"])
def serialising(request: pytest.FixtureRequest) -> Engine:
    pytest.importorskip(f"proxywasm_engine_{request.param}")
    return open_engine(request.param)


def _elsewhere(monkeypatch: pytest.MonkeyPatch, engine: Engine) -> None:
    """Let the engine compile nothing in this process."""

    def compile(bytecode: bytes) -> None:
        raise InvalidModule("compiled here")

    monkeypatch.setattr(engine, "compile", compile)


def test_what_another_process_has_compiled_runs_here(serialising: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    _elsewhere(monkeypatch, serialising)
    function = compile_apart(serialising, SMALL, 60, 1 << 30).instantiate([], Limits()).function("f")
    assert function is not None and function() == 7


def test_an_engine_that_keeps_nothing_compiles_here(engine: Engine) -> None:
    if not engine.capabilities.serialise:
        function = compile_apart(engine, SMALL, 60, 1 << 30).instantiate([], Limits()).function("f")
        assert function is not None and function() == 7
    else:
        assert engine.compile_options  # type: ignore[attr-defined]


def test_invalid_code_is_told_as_here(serialising: Engine) -> None:
    invalid = wat("(module (func nop))").replace(b"\3\0\1\x0b", b"\3\0\x6a\x0b")
    with pytest.raises(InvalidModule) as here:
        serialising.compile(invalid)
    with pytest.raises(InvalidModule) as there:
        compile_apart(serialising, invalid, 60, 1 << 30)
    assert str(there.value) == str(here.value)


def test_time_is_limited(serialising: Engine) -> None:
    with pytest.raises(InvalidModule, match=r"^compiling takes more than 1 s of processor time$"):
        compile_apart(serialising, wat(f"(module {_hard(20)})"), 1, None)


def test_a_process_that_only_waits_is_ended(serialising: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compile_process, "_PROGRAM", "import sys, time; sys.stdout.write('+'); time.sleep(3600)")
    monkeypatch.setattr(compile_process, "_PATIENCE", 0.5)
    with pytest.raises(InvalidModule, match=r"^compiling did not end within 0.5 s$"):
        compile_apart(serialising, SMALL, 1, None)


def test_memory_is_limited(serialising: Engine) -> None:
    with pytest.raises(InvalidModule, match=r"^compiling takes more than 64 MiB of memory$"):
        compile_apart(serialising, wat(f"(module {_hard(4)})"), None, 64 << 20)


@pytest.mark.parametrize("executable", ["", "/nowhere/python3", "/bin/false"])
def test_without_an_interpreter_it_is_compiled_here(
    serialising: Engine, monkeypatch: pytest.MonkeyPatch, executable: str
) -> None:
    monkeypatch.setattr(sys, "executable", executable)
    _elsewhere(monkeypatch, serialising)
    with pytest.raises(InvalidModule, match="compiled here"):
        compile_apart(serialising, SMALL, 60, 1 << 30)


def test_another_engine_there_is_no_answer(serialising: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """One whose code could not be loaded here."""
    _elsewhere(monkeypatch, serialising)
    monkeypatch.setattr(serialising, "fingerprint", "another")
    with pytest.raises(InvalidModule, match="compiled here"):
        compile_apart(serialising, SMALL, 60, 1 << 30)


def test_large_filters_are_compiled_apart(serialising: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    _elsewhere(monkeypatch, serialising)
    with Host(serialising, cache=ModuleCache(None)) as host:
        host.load_plugin(code("go/headers"))
        with pytest.raises(ModuleError, match="compiled here"):
            host.load_plugin(code("rust/headers"))


def test_limits_of_a_host(serialising: Engine) -> None:
    parts = """(memory (export "memory") 1) (func (export "proxy_abi_version_0_2_1"))
               (func (export "malloc") (param i32) (result i32) (i32.const 0))"""
    module = wat(f"(module {parts} {_hard(20)})")
    limits = ModuleLimits(calls=None, optimising=None, all_optimising=None, compile_seconds=1)
    with Host(serialising, cache=ModuleCache(None), module_limits=limits) as host:
        with pytest.raises(ModuleError, match=r"cannot compile the module: compiling takes more than 1 s of"):
            host.load_plugin(module)
        host.load_plugin(code("rust/headers"))


def test_a_compiler_that_ends_its_process() -> None:
    done = subprocess.CompletedProcess([], -11, b"+", b"first line\nsecond line")
    assert compile_process._reason(done, None, None) == ("the compiler's process ended with exit code -11: first line")


TYPES = """
import sys
from proxywasm_host import open_engine
from proxywasm_host.engine.protocol import InvalidModule
engine = open_engine(sys.argv[1])
for line in sys.stdin.read().split():
    try:
        print(len(engine.compile(bytes.fromhex(line)).exports))
    except InvalidModule as error:
        print("refused")
"""


def test_no_type_ends_the_process(engine: Engine) -> None:
    """An engine by itself takes any type of an import or an export, or refuses it in words."""
    values = ["v128", "externref", "funcref", "(ref func)", "exnref", "anyref", "(ref null extern)"]
    shapes = ['(func (export "f") (param {}) unreachable)', '(func (export "f") (result {} {}) unreachable)',
              '(import "a" "b" (func (param {})))', '(import "a" "b" (global {}))', '(import "a" "b" (table 1 funcref))',
              "(func (param {}))"]  # fmt: skip
    modules = [wat(f"(module {shape.format(value, value)})") for value in values for shape in shapes]
    done = subprocess.run(
        [sys.executable, "-c", TYPES, engine.name],
        input="\n".join(module.hex() for module in modules),
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    answers = done.stdout.split()
    assert len(answers) == len(modules) and set(answers) <= {"refused", "0", "1"}


def test_a_small_module_whose_branches_bring_much_together_is_compiled_apart(
    serialising: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With 5000 blocks it has 15 KiB, and Wasmtime takes 4 GiB for it; here are 1200."""
    values = "i32 " * 90
    blocks = f"(func {'(i32.const 0)' * 90} {'(block (type $m) ' * 1200} {')' * 1200} {'drop ' * 90})"
    parts = """(memory (export "memory") 1) (func (export "proxy_abi_version_0_2_1"))
               (func (export "malloc") (param i32) (result i32) (i32.const 0))"""
    module = wat(f"(module (type $m (func (param {values}) (result {values}))) {blocks} {parts})")
    _elsewhere(monkeypatch, serialising)
    with Host(serialising, cache=ModuleCache(None)) as host:
        host.load_plugin(module)
