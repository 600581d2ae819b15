"""Imports: each is linked to its host function, and an error names the import."""

from __future__ import annotations

import pytest

from proxywasm_host.engine.protocol import Engine, HostFunction, Instance, Limits, LinkError, Trap, TrapKind
from proxywasm_host.testing.guest import type_of

from .assembled import wasm
from .base import Base, Start

_TWICE = '(module (import "env" "log" (func (param i32))) (import "env" "log" (func (param i32))))'


def _log(type: str = "i32 ->", name: str = "log") -> HostFunction:
    return HostFunction("env", name, type_of(type), lambda *_: None)


def _link(engine: Engine, text: str, *functions: HostFunction) -> Instance:
    return engine.compile(wasm(text)).instantiate(functions, Limits())


class Linking(Base):
    """Tests of imports and host functions."""

    def test_the_same_import_twice_takes_two_functions(self, engine: Engine) -> None:
        _link(engine, _TWICE, _log(), _log()).close()

    def test_each_of_two_imports_of_one_name_has_its_own_function(self, engine: Engine) -> None:
        text = """(module (import "h" "f" (func $a (result i32))) (import "h" "f" (func $b (result i32)))
          (func (export "run") (result i32) (i32.sub (call $a) (call $b))))"""
        functions = [HostFunction("h", "f", type_of("-> i32"), lambda answer=answer: answer) for answer in (44, 2)]
        instance = _link(engine, text, *functions)
        run = instance.function("run")
        assert run is not None
        assert run() == 42
        instance.close()

    def test_a_missing_function_is_named(self, engine: Engine) -> None:
        with pytest.raises(LinkError, match=r"env\.log"):
            _link(engine, _TWICE, _log())

    def test_an_import_of_another_type_is_told_with_both(self, engine: Engine) -> None:
        with pytest.raises(LinkError, match=r"env\.log.*\(i32\) -> \(\).*\(i32\) -> \(i32\)"):
            _link(engine, _TWICE, _log(), _log("i32 -> i32"))

    def test_an_import_of_another_name_is_told(self, engine: Engine) -> None:
        with pytest.raises(LinkError, match=r"env\.log.*env\.lag"):
            _link(engine, _TWICE, _log(), _log(name="lag"))

    def test_too_many_functions_are_refused(self, engine: Engine) -> None:
        with pytest.raises(LinkError):
            _link(engine, _TWICE, _log(), _log(), _log())

    @pytest.mark.parametrize(
        "text",
        [
            '(module (import "js" "thing" (memory 1)))',
            '(module (import "js" "thing" (table 1 funcref)))',
            '(module (import "js" "thing" (global i32)))',
        ],
    )
    def test_only_functions_can_be_imported(self, engine: Engine, text: str) -> None:
        with pytest.raises(LinkError, match=r"js\.thing"):
            _link(engine, text, _log())

    def test_data_outside_of_memory_ends_the_instantiation(self, engine: Engine) -> None:
        with pytest.raises(Trap) as caught:
            _link(engine, '(module (memory 1) (data (i32.const 65530) "0123456789"))')
        assert caught.value.kind is TrapKind.OUT_OF_BOUNDS

    def test_elements_outside_of_a_table_end_the_instantiation(self, engine: Engine) -> None:
        with pytest.raises(Trap) as caught:
            _link(engine, "(module (table 1 funcref) (elem (i32.const 1) $f) (func $f))")
        assert caught.value.kind is TrapKind.TABLE_OUT_OF_BOUNDS

    def test_many_imports_and_exports(self, start: Start) -> None:
        """Each import calls its own host function and gets its result."""
        names = "abcdefghij"
        guest = start(
            """(module
              (import "h" "a" (func $a (result i32))) (import "h" "b" (func $b (result i32)))
              (import "h" "c" (func $c (result i32))) (import "h" "d" (func $d (result i32)))
              (import "h" "e" (func $e (result i32))) (import "h" "f" (func $f (result i32)))
              (import "h" "g" (func $g (result i32))) (import "h" "h" (func $h (result i32)))
              (import "h" "i" (func $i (result i32))) (import "h" "j" (func $j (result i32)))
              (func (export "a") (result i32) call $a) (func (export "b") (result i32) call $b)
              (func (export "c") (result i32) call $c) (func (export "d") (result i32) call $d)
              (func (export "e") (result i32) call $e) (func (export "f") (result i32) call $f)
              (func (export "g") (result i32) call $g) (func (export "h") (result i32) call $h)
              (func (export "i") (result i32) call $i) (func (export "j") (result i32) call $j))""",
            **{name: lambda number=number: number for number, name in enumerate(names)},
        )
        assert [guest(name) for name in reversed(names)] == list(reversed(range(10)))
