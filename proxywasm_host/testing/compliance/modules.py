"""Loading modules, refusing other bytes, and describing modules without an instance."""

from __future__ import annotations

import pytest

from proxywasm_host.engine.protocol import Engine, Export, Import, InvalidModule
from proxywasm_host.testing.guest import type_of

from .assembled import wasm
from .base import Base, Start, requires
from .values import ECHO


class Modules(Base):
    """Tests of loading and refusing modules."""

    @pytest.mark.parametrize(
        "bytecode", [b"", b"\0", b"\0asm", b"\0asm\1\0\0", b"\0asm\2\0\0\0", b"(module)", b"MZ" * 99]
    )
    def test_garbage_is_refused(self, engine: Engine, bytecode: bytes) -> None:
        with pytest.raises(InvalidModule):
            engine.compile(bytecode)

    def test_every_truncation_is_refused_or_a_smaller_module(self, engine: Engine) -> None:
        whole = wasm(ECHO)
        refused = 0
        for size in range(8, len(whole), 7):
            try:
                assert len(engine.compile(whole[:size]).exports) < 5
            except InvalidModule as error:  # noqa: PERF203
                refused += bool(str(error))
        assert refused > 10

    @requires("validation")
    def test_a_body_of_the_wrong_type_is_refused_saying_why(self, engine: Engine) -> None:
        good = wasm('(module (func (export "f") (result i32) (i32.const 42)))')
        bad = good.replace(b"\x41\x2a\x0b", b"\x01\x01\x0b")  # nop nop end
        assert bad != good
        with pytest.raises(InvalidModule, match="type mismatch"):
            engine.compile(bad)

    def test_imports_and_exports_are_listed_without_an_instance(self, engine: Engine) -> None:
        module = engine.compile(
            wasm("""(module
              (import "env" "log" (func (param i32 i64) (result f64)))
              (import "env" "log" (func (param f32)))
              (import "env" "table" (table 1 funcref))
              (import "js" "memory" (memory 1))
              (import "env" "g" (global i32))
              (func (export "run") (param i32))
              (global (export "answer") i32 (i32.const 42))
              (export "memory" (memory 0)) (export "t" (table 0)))""")
        )
        assert list(module.imports) == [
            Import("env", "log", "function", type_of("i32 i64 -> f64")),
            Import("env", "log", "function", type_of("f32 ->")),
            Import("env", "table", "table"),
            Import("js", "memory", "memory"),
            Import("env", "g", "global"),
        ]
        assert list(module.exports) == [
            Export("run", "function", type_of("i32 ->")),
            Export("answer", "global"),
            Export("memory", "memory"),
            Export("t", "table"),
        ]

    def test_a_function_that_is_not_there_is_none(self, start: Start) -> None:
        guest = start('(module (memory (export "memory") 1) (func (export "f")))')
        assert guest.instance.function("g") is None
        assert guest.instance.function("memory") is None

    def test_without_a_memory_of_that_name_there_is_none(self, start: Start) -> None:
        assert start('(module (memory (export "other") 1))').instance.memory is None
