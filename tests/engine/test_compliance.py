"""What every engine has to do. It asks for capabilities, never for an engine's name."""

from __future__ import annotations

import gc
import math
import resource
import struct
import sys
import threading
import time
import traceback
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxywasm_host.engine.protocol import (
    Engine,
    Export,
    HostFunction,
    Import,
    Instance,
    InvalidModule,
    Limits,
    LinkError,
    Trap,
    TrapKind,
)

from .conftest import Guest, Start, type_of, wasm

Echo = tuple[list[tuple[float, ...]], dict[str, Callable[..., Any]]]

ECHO = """(module
  (import "h" "i32" (func $i32 (param i32) (result i32)))
  (import "h" "i64" (func $i64 (param i64) (result i64)))
  (import "h" "f32" (func $f32 (param f32) (result f32)))
  (import "h" "f64" (func $f64 (param f64) (result f64)))
  (import "h" "mixed" (func $mixed (param i32 i64 f32 f64 i32) (result i64)))
  (func (export "i32") (param i32) (result i32) (call $i32 (local.get 0)))
  (func (export "i64") (param i64) (result i64) (call $i64 (local.get 0)))
  (func (export "f32") (param f32) (result f32) (call $f32 (local.get 0)))
  (func (export "f64") (param f64) (result f64) (call $f64 (local.get 0)))
  (func (export "mixed") (param i32 f64 i64 f32) (result i64)
    (call $mixed (local.get 0) (local.get 2) (local.get 3) (local.get 1) (i32.const -1))))"""

TRAPS = """(module
  (table 2 2 funcref)
  (memory (export "memory") 1)
  (type $none (func)) (type $one (func (param i32)))
  (elem (i32.const 0) $takes_one)
  (func $takes_one (param i32))
  (func $deep (export "unreachable") (call $inner)) (func $inner unreachable)
  (func (export "load") (drop (i32.load (i32.const 65533))))
  (func (export "table") (call_indirect (type $none) (i32.const 7)))
  (func (export "null") (call_indirect (type $none) (i32.const 1)))
  (func (export "signature") (call_indirect (type $none) (i32.const 0)))
  (func (export "divide") (param i32) (drop (i32.div_s (i32.const 1) (local.get 0))))
  (func (export "overflow") (param i32) (drop (i32.div_s (i32.const 0x80000000) (local.get 0))))
  (func (export "convert") (param f32) (drop (i32.trunc_f32_s (local.get 0))))
  (func $recurse (export "recurse") (param i32) (call $recurse (i32.add (local.get 0) (i32.const 1)))
    (i32.store (i32.const 0) (local.get 0))))"""


class TestModules:
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
            except InvalidModule as error:
                refused += 1
                assert str(error)
        assert refused > 10

    def test_a_body_of_the_wrong_type_is_refused_saying_where(self, engine: Engine) -> None:
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
        assert guest.instance is not None
        assert guest.instance.function("g") is None
        assert guest.instance.function("memory") is None

    def test_without_an_exported_memory_there_is_none(self, start: Start) -> None:
        guest = start('(module (memory (export "other") 1))')
        assert guest.instance is not None
        assert guest.instance.memory is None


class TestLinking:
    TEXT = '(module (import "env" "log" (func (param i32))) (import "env" "log" (func (param i32))))'

    def instantiate(self, engine: Engine, text: str, *functions: HostFunction) -> Instance:
        return engine.compile(wasm(text)).instantiate(functions, Limits())

    def log(self, type: str = "i32 ->", name: str = "log") -> HostFunction:
        return HostFunction("env", name, type_of(type), lambda *_: None)

    def test_the_same_import_twice_takes_two_functions(self, engine: Engine) -> None:
        self.instantiate(engine, self.TEXT, self.log(), self.log()).close()

    def test_a_missing_function_is_named(self, engine: Engine) -> None:
        with pytest.raises(LinkError, match=r"env\.log"):
            self.instantiate(engine, self.TEXT, self.log())

    def test_another_type_is_told_with_both(self, engine: Engine) -> None:
        with pytest.raises(LinkError, match=r"env\.log.*\(i32\) -> \(\).*\(i32\) -> \(i32\)"):
            self.instantiate(engine, self.TEXT, self.log(), self.log("i32 -> i32"))

    def test_another_name_is_told(self, engine: Engine) -> None:
        with pytest.raises(LinkError, match=r"env\.log.*env\.lag"):
            self.instantiate(engine, self.TEXT, self.log(), self.log(name="lag"))

    def test_too_many_functions_are_refused(self, engine: Engine) -> None:
        with pytest.raises(LinkError):
            self.instantiate(engine, self.TEXT, self.log(), self.log(), self.log())

    @pytest.mark.parametrize("what", ["(memory 1)", "(table 1 funcref)", "(global i32)"])
    def test_only_functions_can_be_imported(self, engine: Engine, what: str) -> None:
        with pytest.raises(LinkError, match=r"js\.thing"):
            self.instantiate(engine, f'(module (import "js" "thing" {what}))', self.log())

    def test_data_outside_of_memory_ends_the_instantiation(self, engine: Engine) -> None:
        with pytest.raises(Trap) as caught:
            self.instantiate(engine, '(module (memory 1) (data (i32.const 65530) "0123456789"))')
        assert caught.value.kind is TrapKind.OUT_OF_BOUNDS


@pytest.fixture(scope="module")
def echo(engine: Engine) -> Iterator[Echo]:
    """What the host was given, and the guest functions of `ECHO`."""
    seen: list[tuple[float, ...]] = []

    def keep(*values: float) -> float:
        seen.append(values)
        return values[0]

    module = engine.compile(wasm(ECHO))
    instance = module.instantiate(
        [HostFunction("h", item.name, item.type or type_of(""), keep) for item in module.imports], Limits()
    )
    yield seen, {item.name: function for item in module.exports if (function := instance.function(item.name))}
    instance.close()


class TestValues:
    @given(st.integers(-(1 << 63), (1 << 64) - 1))
    def test_integers_are_unsigned_on_the_host(self, echo: Echo, value: int) -> None:
        seen, call = echo
        assert call["i32"](value) == value % (1 << 32)
        assert call["i64"](value) == value % (1 << 64)
        assert seen[-2:] == [(value % (1 << 32),), (value % (1 << 64),)]

    @given(st.floats())
    def test_floats_cross_unchanged(self, echo: Echo, value: float) -> None:
        _, call = echo
        assert struct.pack("<d", call["f64"](value)) == struct.pack("<d", value) or math.isnan(value)
        assert math.isnan(call["f64"](value)) == math.isnan(value)

    @given(st.floats(width=32))
    def test_single_floats_cross_unchanged(self, echo: Echo, value: float) -> None:
        _, call = echo
        assert call["f32"](value) == value or math.isnan(value)

    def test_many_types_in_one_call(self, echo: Echo) -> None:
        seen, call = echo
        assert call["mixed"](-2, 1e300, -3, 0.5) == (1 << 32) - 2
        assert seen[-1] == ((1 << 32) - 2, (1 << 64) - 3, 0.5, 1e300, (1 << 32) - 1)

    def test_a_wrong_number_of_arguments_is_a_type_error(self, echo: Echo) -> None:
        _, call = echo
        with pytest.raises(TypeError):
            call["i32"]()
        with pytest.raises(TypeError):
            call["i32"](1, 2)

    def test_no_result_is_none(self, start: Start) -> None:
        assert start('(module (func (export "f")))')("f") is None

    def test_a_host_function_that_forgets_its_result_is_told(self, start: Start) -> None:
        guest = start(
            '(module (import "h" "f" (func $f (result i32))) (func (export "f") (drop (call $f))))', f=lambda: None
        )
        with pytest.raises(TypeError):
            guest("f")

    def test_a_function_of_references_is_refused_by_name(self, start: Start) -> None:
        guest = start('(module (func (export "f") (param funcref)))')
        assert guest.instance is not None
        with pytest.raises(TypeError, match="f "):
            guest.instance.function("f")

    def test_many_parameters(self, start: Start) -> None:
        params = 20
        gets = "".join(f"(local.get {i})" for i in range(params))
        types = "i32 " * params
        guest = start(
            f"""(module (import "h" "sum" (func $sum (param {types}) (result i32)))
                (func (export "sum") (param {types}) (result i32) (call $sum {gets})))""",
            sum=lambda *values: sum(value << index for index, value in enumerate(values)),
        )
        assert guest("sum", *range(params)) == sum(value << value for value in range(params))


class TestMemory:
    TEXT = """(module (import "h" "during" (func $during))
      (memory (export "memory") 1 5) (data (i32.const 16) "hello")
      (func (export "load") (param i32) (result i32) (i32.load8_u (local.get 0)))
      (func (export "grow") (param i32) (result i32) (memory.grow (local.get 0)))
      (func (export "grow_and_call") (drop (memory.grow (i32.const 1)))
        (i32.store8 (i32.const 70000) (i32.const 99)) (call $during)))"""

    def test_both_sides_see_what_the_other_writes(self, start: Start) -> None:
        guest = start(self.TEXT, during=lambda: None)
        assert guest.read(16, 5) == b"hello"
        guest.write(20, b"!")
        assert guest("load", 20) == ord("!")

    def test_growth_is_seen_after_a_refresh(self, start: Start) -> None:
        guest = start(self.TEXT, during=lambda: None)
        assert guest.instance is not None
        memory = guest.instance.memory
        assert memory is not None
        assert (len(memory.view), memory.view.format, memory.view.readonly) == (65536, "B", False)
        before = memory.view
        assert guest("grow", 2) == 1
        assert memory.refresh()
        assert not memory.refresh()
        assert len(memory.view) == 3 * 65536
        before[3] = 77  # an older view shows the same bytes
        assert memory.view[3] == 77
        assert guest("load", 3) == 77

    def test_growth_is_seen_in_the_middle_of_a_host_call(self, start: Start) -> None:
        seen: list[tuple[object, ...]] = []

        def during() -> None:
            assert guest.instance is not None
            memory = guest.instance.memory
            assert memory is not None
            seen.append((len(memory.view), memory.refresh(), memory.view[70000]))

        guest = start(self.TEXT, during=during)
        guest("grow_and_call")
        assert seen == [(65536, True, 99)]

    def test_growth_beyond_the_modules_own_bound_answers_minus_one(self, start: Start) -> None:
        assert start(self.TEXT, during=lambda: None)("grow", 5) == 0xFFFFFFFF


class TestNesting:
    TEXT = """(module
      (import "h" "ask" (func $ask (param i32 i32) (result i32)))
      (memory (export "memory") 1) (global $top (mut i32) (i32.const 1024))
      (func (export "allocate") (param i32) (result i32)
        (global.get $top) (global.set $top (i32.add (global.get $top) (local.get 0))))
      (func $run (export "run") (param i32 i32) (result i32)
        (i32.add (call $ask (local.get 0) (local.get 1)) (i32.load8_u (local.get 1)))))"""

    def test_the_host_allocates_in_the_guest_within_a_call(self, start: Start) -> None:
        def ask(size: int, _: int) -> int:
            at = guest("allocate", size)
            assert isinstance(at, int)
            guest.write(at, b"x" * size)
            return at

        guest = start(self.TEXT, ask=ask)
        assert guest("run", 10, 1024) == 1024 + ord("x")
        assert guest("run", 10, 5000) == 1034

    def test_a_function_within_itself_keeps_arguments_and_results_apart(self, start: Start) -> None:
        def ask(depth: int, marker: int) -> int:
            inner = guest("run", depth - 1, marker + 1) if depth else 0
            assert isinstance(inner, int)
            return inner * 10 + marker

        guest = start(self.TEXT, ask=ask)
        assert guest("run", 3, 1) == ((4 * 10 + 3) * 10 + 2) * 10 + 1


class TestTraps:
    @pytest.mark.parametrize(
        ("name", "arguments", "kind"),
        [
            ("unreachable", (), TrapKind.UNREACHABLE),
            ("load", (), TrapKind.OUT_OF_BOUNDS),
            ("table", (), TrapKind.TABLE_OUT_OF_BOUNDS),
            ("null", (), TrapKind.INDIRECT_CALL),
            ("signature", (), TrapKind.INDIRECT_CALL),
            ("divide", (0,), TrapKind.DIVIDE_BY_ZERO),
            ("overflow", (-1,), TrapKind.INTEGER_OVERFLOW),
            ("convert", (math.nan,), TrapKind.BAD_CONVERSION),
            ("convert", (1e30,), TrapKind.INTEGER_OVERFLOW),
            ("recurse", (0,), TrapKind.STACK_OVERFLOW),
        ],
    )
    def test_each_has_its_kind(self, start: Start, name: str, arguments: tuple[float, ...], kind: TrapKind) -> None:
        guest = start(TRAPS)
        with pytest.raises(Trap) as caught:
            guest(name, *arguments)
        assert caught.value.kind is kind
        assert caught.value.message == kind.value
        guest("divide", 1)  # the instance can still be called

    def test_the_backtrace_is_innermost_first(self, engine: Engine, start: Start) -> None:
        if not engine.capabilities.backtrace:
            pytest.skip("the engine has no backtraces")
        with pytest.raises(Trap) as caught:
            start(TRAPS)("unreachable")
        frames = caught.value.frames
        assert [frame.function for frame in frames] == ["inner", "deep"]
        bytecode = wasm(TRAPS)
        assert [bytecode[frame.offset or 0] for frame in frames] == [0x00, 0x10]  # unreachable, call

    def test_a_function_without_a_name_has_its_number(self, engine: Engine, start: Start) -> None:
        if not engine.capabilities.backtrace:
            pytest.skip("the engine has no backtraces")
        with pytest.raises(Trap) as caught:
            start('(module (func) (func (export "f") unreachable))')("f")
        assert [frame.function for frame in caught.value.frames] == ["<wasm function 1>"]

    def test_the_stack_overflows_on_another_thread_as_well(self, start: Start) -> None:
        guest = start(TRAPS)
        kinds = []

        def run() -> None:
            try:
                guest("recurse", 0)
            except Trap as trap:
                kinds.append(trap.kind)

        thread = threading.Thread(target=run)
        thread.start()
        thread.join()
        assert kinds == [TrapKind.STACK_OVERFLOW]


class TestExceptions:
    TEXT = """(module (import "h" "outer" (func $outer (result i32))) (import "h" "inner" (func $inner (result i32)))
      (memory (export "memory") 1)
      (func (export "one") (result i32) (i32.add (call $outer) (i32.const 1)))
      (func (export "two") (result i32) (i32.add (call $inner) (i32.const 1)))
      (func (export "boom") unreachable) (func (export "fine") (result i32) (i32.const 7)))"""

    def test_it_comes_through_all_layers_as_it_is(self, start: Start) -> None:
        error = KeyError("deep down")

        def inner() -> int:
            raise error

        guest: Guest = start(self.TEXT, outer=lambda: guest("two"), inner=inner)
        with pytest.raises(KeyError) as caught:
            guest("one")
        assert caught.value is error
        assert error.__context__ is None
        names = [frame.name for frame in traceback.extract_tb(error.__traceback__)]
        assert names[-1] == "inner"
        assert "<lambda>" in names
        assert guest("fine") == 7

    def test_one_that_is_caught_in_between_is_over(self, start: Start) -> None:
        def outer() -> int:
            with pytest.raises(ZeroDivisionError):
                guest("two")
            return 41

        guest: Guest = start(self.TEXT, outer=outer, inner=lambda: 1 // 0)
        assert guest("one") == 42

    def test_a_trap_within_a_host_call_goes_out_unless_caught(self, start: Start) -> None:
        guest: Guest = start(self.TEXT, outer=lambda: guest("boom"), inner=lambda: 0)
        with pytest.raises(Trap) as caught:
            guest("one")
        assert caught.value.kind is TrapKind.UNREACHABLE
        assert guest("fine") == 7

    @pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit, GeneratorExit, StopIteration, RecursionError])
    def test_exceptions_of_any_kind(self, start: Start, kind: type[BaseException]) -> None:
        def raising() -> int:
            raise kind

        guest: Guest = start(self.TEXT, outer=raising, inner=raising)
        with pytest.raises(kind):
            guest("one")
        assert guest("fine") == 7

    def test_endless_recursion_through_the_host_ends(self, start: Start) -> None:
        guest: Guest = start(self.TEXT, outer=lambda: guest("one"), inner=lambda: 0)
        with pytest.raises((RecursionError, Trap)):
            guest("one")
        assert guest("fine") == 7


class TestStart:
    TEXT = """(module (import "h" "hello" (func $hello (param i32)))
      (memory (export "memory") 1) (data (i32.const 8) "early")
      (func (export "double") (param i32) (result i32) (i32.shl (local.get 0) (i32.const 1)))
      (func $start (call $hello (i32.const 8)) (call $hello (i32.const 9)) {more}) (start $start))"""

    def instantiate(self, engine: Engine, more: str, hello, bind=None, limits: Limits = Limits()) -> Instance:  # type: ignore[no-untyped-def] # noqa: B008
        module = engine.compile(wasm(self.TEXT.replace("{more}", more)))
        return module.instantiate([HostFunction("h", "hello", type_of("i32 ->"), hello)], limits, bind)

    def test_memory_and_functions_can_be_used_while_it_runs(self, engine: Engine) -> None:
        seen: list[object] = []
        bound: list[Instance] = []

        def hello(at: int) -> None:
            instance = bound[0]
            double = instance.function("double")
            assert double is not None
            assert instance.memory is not None
            seen.append((bytes(instance.memory.view[at : at + 4]), double(at)))

        instance = self.instantiate(engine, "", hello, bound.append)
        assert seen == [(b"earl", 16), (b"arly", 18)]
        assert bound == [instance]
        instance.close()

    def test_without_a_start_function_bind_is_called_once_as_well(self, engine: Engine) -> None:
        bound: list[Instance] = []
        instance = engine.compile(wasm("(module)")).instantiate([], Limits(), bound.append)
        assert bound == [instance]

    def test_what_bind_raises_ends_the_instantiation(self, engine: Engine) -> None:
        def bind(_: Instance) -> None:
            raise KeyError("of bind")

        with pytest.raises(KeyError, match="of bind"):
            self.instantiate(engine, "", lambda _: None, bind)
        with pytest.raises(KeyError, match="of bind"):
            engine.compile(wasm("(module)")).instantiate([], Limits(), bind)

    def test_a_trap_in_it_ends_the_instantiation(self, engine: Engine) -> None:
        with pytest.raises(Trap) as caught:
            self.instantiate(engine, "unreachable", lambda _: None)
        assert caught.value.kind is TrapKind.UNREACHABLE
        assert caught.value.frames[0].function == "start"

    def test_what_a_host_function_raises_in_it_comes_out(self, engine: Engine) -> None:
        with pytest.raises(ZeroDivisionError):
            self.instantiate(engine, "", lambda at: at // 0)

    def test_the_deadline_holds_for_it(self, engine: Engine) -> None:
        if not engine.capabilities.deadline:
            pytest.skip("the engine has no deadlines")
        with pytest.raises(Trap) as caught:
            self.instantiate(engine, "(loop $l (br $l))", lambda _: None, None, Limits(deadline=0.05))
        assert caught.value.kind is TrapKind.DEADLINE


class TestDeadline:
    TEXT = """(module (import "h" "pause" (func $pause))
      (memory (export "memory") 1)
      (func $spin (export "spin") (loop $l (br $l)))
      (func (export "one") (result i32) (i32.const 1))
      (func (export "calls") (loop $l (call $pause) (br $l))))"""

    @pytest.fixture(autouse=True)
    def _capable(self, engine: Engine) -> None:
        if not engine.capabilities.deadline:
            pytest.skip("the engine has no deadlines")

    def test_an_endless_loop_ends_in_time(self, start: Start) -> None:
        guest = start(self.TEXT, Limits(deadline=0.1), pause=lambda: None)
        for _ in range(2):
            began = time.monotonic()
            with pytest.raises(Trap) as caught:
                guest("spin")
            assert caught.value.kind is TrapKind.DEADLINE
            assert "0.1 s" in caught.value.message
            assert 0.09 < time.monotonic() - began < 2
        assert caught.value.frames[0].function == "spin"
        assert guest("one") == 1

    def test_a_loop_around_calls_of_the_host_ends_as_well(self, start: Start) -> None:
        guest: Guest = start(self.TEXT, Limits(deadline=0.05), pause=lambda: guest("one"))
        with pytest.raises(Trap) as caught:
            guest("calls")
        assert caught.value.kind is TrapKind.DEADLINE

    def test_another_instance_goes_on_meanwhile(self, start: Start) -> None:
        stopped, free = (start(self.TEXT, limits, pause=lambda: None) for limits in (Limits(deadline=0.2), Limits()))
        kinds = []

        def run() -> None:
            try:
                stopped("spin")
            except Trap as trap:
                kinds.append(trap.kind)

        thread = threading.Thread(target=run)
        thread.start()
        calls = 0
        while thread.is_alive():
            assert free("one") == 1
            calls += 1
        thread.join()
        assert kinds == [TrapKind.DEADLINE]
        assert calls > 10

    def test_a_short_call_after_a_long_rest_is_not_stopped(self, start: Start) -> None:
        guest = start(self.TEXT, Limits(deadline=0.05), pause=lambda: None)
        assert guest("one") == 1
        time.sleep(0.2)
        assert guest("one") == 1

    def test_entering_while_another_thread_is_inside_is_refused(self, start: Start) -> None:
        guest = start(self.TEXT, Limits(deadline=0.3), pause=lambda: None)

        def run() -> None:
            with pytest.raises(Trap):
                guest("spin")

        thread = threading.Thread(target=run)
        thread.start()
        time.sleep(0.1)
        with pytest.raises(RuntimeError, match="another thread"):
            guest("one")
        assert guest.instance is not None
        with pytest.raises(RuntimeError, match="another thread"):
            guest.instance.close()
        thread.join()
        assert guest("one") == 1


class TestMemoryLimit:
    TEXT = """(module (memory (export "memory") 2)
      (func (export "grow") (param i32) (result i32) (memory.grow (local.get 0))))"""

    @pytest.fixture(autouse=True)
    def _capable(self, engine: Engine) -> None:
        if not engine.capabilities.memory_limit:
            pytest.skip("the engine has no memory limits")

    def test_growth_beyond_it_answers_minus_one(self, start: Start) -> None:
        guest = start(self.TEXT, Limits(memory=4 * 65536))
        assert [guest("grow", 3), guest("grow", 2), guest("grow", 1)] == [0xFFFFFFFF, 2, 0xFFFFFFFF]

    def test_a_module_that_begins_beyond_it_is_not_started(self, start: Start) -> None:
        with pytest.raises(Trap) as caught:
            start(self.TEXT, Limits(memory=65536))
        assert caught.value.kind is TrapKind.MEMORY_LIMIT


class TestSerialise:
    TEXT = (
        '(module (import "h" "f" (func)) (memory (export "memory") 1) (func (export "f") (result i32) (i32.const 7)))'
    )

    @pytest.fixture(autouse=True)
    def _capable(self, engine: Engine) -> None:
        if not engine.capabilities.serialise:
            pytest.skip("the engine cannot serialise")

    def test_there_and_back(self, engine: Engine) -> None:
        module = engine.compile(wasm(self.TEXT))
        again = engine.deserialise(module.serialise())
        assert (again.imports, again.exports) == (module.imports, module.exports)
        instance = again.instantiate([HostFunction("h", "f", type_of(""), lambda: None)], Limits())
        call = instance.function("f")
        assert call is not None
        assert call() == 7
        instance.close()

    @pytest.mark.parametrize("foreign", [b"", b"\0asm\1\0\0\0", b"\x7fELF" + bytes(200), b"x" * 1000])
    def test_other_bytes_are_refused(self, engine: Engine, foreign: bytes) -> None:
        with pytest.raises(InvalidModule):
            engine.deserialise(foreign)

    def test_a_fingerprint_stays_the_same(self, engine: Engine) -> None:
        assert engine.fingerprint == type(engine)().fingerprint


class TestEnd:
    TEXT = """(module (import "h" "f" (func $f)) (memory (export "memory") 1)
      (func (export "call") (call $f)) (func (export "one") (result i32) (i32.const 1)))"""

    def instantiate(self, engine: Engine, handler=lambda: None) -> Instance:  # type: ignore[no-untyped-def]
        return engine.compile(wasm(self.TEXT)).instantiate([HostFunction("h", "f", type_of(""), handler)], Limits())

    def test_calls_are_refused_after_close(self, engine: Engine) -> None:
        instance = self.instantiate(engine)
        one, memory = instance.function("one"), instance.memory
        assert one is not None
        assert memory is not None
        view = memory.view
        instance.close()
        instance.close()
        with pytest.raises(RuntimeError, match="closed"):
            one()
        assert len(memory.view) == 0
        assert not memory.refresh()
        with pytest.raises(ValueError, match="released"):
            view[0]

    def test_closing_within_a_host_call_takes_effect_after_it(self, engine: Engine) -> None:
        def close_and_call() -> None:
            instance.close()
            with pytest.raises(RuntimeError, match="closed"):
                one()

        instance = self.instantiate(engine, close_and_call)
        one, call = (instance.function(name) or pytest.fail(name) for name in ("one", "call"))
        call()
        with pytest.raises(RuntimeError, match="closed"):
            call()

    def test_a_function_keeps_what_it_needs(self, engine: Engine) -> None:
        one = self.instantiate(engine).function("one")
        assert one is not None
        gc.collect()
        assert one() == 1

    def test_an_instance_that_is_dropped_is_collected(self, engine: Engine) -> None:
        class Witness:
            def __call__(self) -> None:
                pass

        witness = Witness()
        reference = weakref.ref(witness)
        instance = self.instantiate(engine, witness)
        call = instance.function("call")
        assert call is not None
        call()
        del instance, call, witness
        gc.collect()
        assert reference() is None

    def test_memory_stays_flat_over_thousands_of_instances(self, engine: Engine) -> None:
        module = engine.compile(wasm(self.TEXT))
        function = HostFunction("h", "f", type_of(""), lambda: None)

        def make(count: int) -> None:
            for _ in range(count):
                instance = module.instantiate([function], Limits())
                assert instance.memory is not None
                instance.memory.view[:] = b"x" * len(instance.memory.view)
                instance.close()

        make(200)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        make(2000)
        grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
        assert grown * (1 if sys.platform == "darwin" else 1024) < 32 << 20

    def test_instances_do_not_share_anything(self, engine: Engine) -> None:
        module = engine.compile(wasm('(module (memory (export "memory") 1))'))
        first, second = (module.instantiate([], Limits()) for _ in range(2))
        assert first.memory is not None
        assert second.memory is not None
        first.memory.view[0] = 1
        assert second.memory.view[0] == 0
        first.close()
        second.memory.view[0] = 2
        second.close()

    def test_threads_work_with_an_instance_each(self, engine: Engine) -> None:
        module = engine.compile(wasm(TestNesting.TEXT))
        wrong: list[int] = []

        def work(number: int) -> None:
            instance = module.instantiate(
                [HostFunction("h", "ask", type_of("i32 i32 -> i32"), lambda a, b: a + b + number)], Limits()
            )
            run = instance.function("run")
            assert run is not None
            wrong.extend(i for i in range(300) if run(i, 5) != i + 5 + number)
            instance.close()

        threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert wrong == []
