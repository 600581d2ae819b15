"""The start function, and the purpose of `bind`."""

from __future__ import annotations

import pytest

from proxywasm_host.engine.protocol import Engine, Instance, Limits, Trap, TrapKind

from .base import Base, instantiate, requires

_PLAIN = """(module (import "h" "hello" (func $hello (param i32)))
  (memory (export "memory") 1) (data (i32.const 8) "early")
  (func (export "double") (param i32) (result i32) (i32.shl (local.get 0) (i32.const 1)))
  (func $start (call $hello (i32.const 8)) (call $hello (i32.const 9))) (start $start))"""
_TRAPPING = """(module (import "h" "hello" (func $hello (param i32)))
  (func $start (call $hello (i32.const 8)) unreachable) (start $start))"""
_ENDLESS = """(module (import "h" "hello" (func $hello (param i32)))
  (func $start (call $hello (i32.const 8)) (loop $l (br $l))) (start $start))"""
_IMPORTED = '(module (import "h" "hello" (func $hello)) (start $hello))'


class Starting(Base):
    """Tests of start functions."""

    def test_memory_and_functions_can_be_used_while_it_runs(self, engine: Engine) -> None:
        seen: list[object] = []
        bound: list[Instance] = []

        def hello(at: int) -> None:
            instance = bound[0]
            double = instance.function("double")
            assert double is not None
            assert instance.memory is not None
            seen.append((bytes(instance.memory.view[at : at + 4]), double(at)))

        instance = instantiate(engine, _PLAIN, hello, bind=bound.append)
        assert seen == [(b"earl", 16), (b"arly", 18)]
        assert bound == [instance]
        instance.close()

    def test_it_may_be_a_host_function(self, engine: Engine) -> None:
        called: list[int] = []
        instantiate(engine, _IMPORTED, lambda: called.append(1)).close()
        assert called == [1]

    def test_without_a_start_function_bind_is_called_once_as_well(self, engine: Engine) -> None:
        bound: list[Instance] = []
        instance = instantiate(engine, "(module)", print, bind=bound.append)
        assert bound == [instance]

    @pytest.mark.parametrize("text", [_PLAIN, "(module)"])
    def test_what_bind_raises_ends_the_instantiation(self, engine: Engine, text: str) -> None:
        def bind(_: Instance) -> None:
            raise KeyError("of bind")

        with pytest.raises(KeyError, match="of bind"):
            instantiate(engine, text, lambda _: None, bind=bind)

    def test_a_trap_in_it_ends_the_instantiation(self, engine: Engine) -> None:
        with pytest.raises(Trap) as caught:
            instantiate(engine, _TRAPPING, lambda _: None)
        assert caught.value.kind is TrapKind.UNREACHABLE

    @requires("backtrace")
    def test_its_backtrace(self, engine: Engine) -> None:
        with pytest.raises(Trap) as caught:
            instantiate(engine, _TRAPPING, lambda _: None)
        assert caught.value.frames[0].function == "start"

    def test_what_a_host_function_raises_in_it_comes_out(self, engine: Engine) -> None:
        with pytest.raises(ZeroDivisionError):
            instantiate(engine, _PLAIN, lambda at: at // 0)

    @requires("deadline")
    def test_the_deadline_holds_for_it(self, engine: Engine) -> None:
        with pytest.raises(Trap) as caught:
            instantiate(engine, _ENDLESS, lambda _: None, limits=Limits(deadline=0.05))
        assert caught.value.kind is TrapKind.DEADLINE
