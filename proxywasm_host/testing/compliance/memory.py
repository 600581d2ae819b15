"""Memory that guest and host share while it grows, and nested calls that allocate in it."""

from __future__ import annotations

from proxywasm_host.testing.guest import Guest

from .base import Base, Start, is_remade

_MEMORY = """(module (import "h" "during" (func $during))
  (memory (export "memory") 1 5) (data (i32.const 16) "hello")
  (func (export "load") (param i32) (result i32) (i32.load8_u (local.get 0)))
  (func (export "grow") (param i32) (result i32) (memory.grow (local.get 0)))
  (func (export "grow_and_call") (drop (memory.grow (i32.const 1)))
    (i32.store8 (i32.const 70000) (i32.const 99)) (call $during)))"""
_NESTING = """(module
  (import "h" "ask" (func $ask (param i32 i32) (result i32)))
  (memory (export "memory") 1) (global $top (mut i32) (i32.const 1024))
  (func (export "allocate") (param i32) (result i32)
    (global.get $top) (global.set $top (i32.add (global.get $top) (local.get 0))))
  (func $run (export "run") (param i32 i32) (result i32)
    (i32.add (call $ask (local.get 0) (local.get 1)) (i32.load8_u (local.get 1)))))"""


class Memories(Base):
    """Tests of access to memory and its growth."""

    def test_both_sides_see_what_the_other_writes(self, start: Start) -> None:
        guest = start(_MEMORY, during=lambda: None)
        assert guest.read(16, 5) == b"hello"
        guest.write(20, b"!")
        assert guest("load", 20) == ord("!")

    def test_growth_is_seen_after_a_refresh(self, start: Start) -> None:
        guest = start(_MEMORY, during=lambda: None)
        memory = guest.memory
        assert (len(memory.view), memory.view.format, memory.view.readonly) == (65536, "B", False)
        guest.write(3, b"a")
        before = memory.view
        assert guest("grow", 2) == 1
        assert memory.refresh()
        assert not memory.refresh()
        assert len(memory.view) == 3 * 65536
        assert guest.read(3, 1) == b"a"
        if not is_remade(memory):
            before[3] = 77  # an older view shows the same bytes
            assert memory.view[3] == 77
            assert guest("load", 3) == 77

    def test_growth_is_seen_in_the_middle_of_a_host_call(self, start: Start) -> None:
        seen: list[int] = []

        def during() -> None:
            guest.memory.refresh()
            seen.extend((len(guest.memory.view), guest.memory.view[70000]))

        guest = start(_MEMORY, during=during)
        guest("grow_and_call")
        assert seen == [2 * 65536, 99]

    def test_growth_beyond_the_modules_own_bound_answers_minus_one(self, start: Start) -> None:
        assert start(_MEMORY, during=lambda: None)("grow", 5) == 0xFFFFFFFF

    def test_new_pages_are_empty_and_writable_to_their_end(self, start: Start) -> None:
        guest = start(_MEMORY, during=lambda: None)
        assert guest("grow", 1) == 1
        guest.memory.refresh()
        assert guest.read(65536, 65536) == bytes(65536)
        guest.write(2 * 65536 - 1, b"z")
        assert guest("load", 2 * 65536 - 1) == ord("z")


class Nesting(Base):
    """Tests of nested calls."""

    def test_the_host_allocates_in_the_guest_within_a_call(self, start: Start) -> None:
        def ask(size: int, _: int) -> int:
            at: int = guest("allocate", size)
            guest.write(at, b"x" * size)
            return at

        guest = start(_NESTING, ask=ask)
        assert guest("run", 10, 1024) == 1024 + ord("x")
        assert guest("run", 10, 5000) == 1034

    def test_a_function_within_itself_keeps_arguments_and_results_apart(self, start: Start) -> None:
        def ask(depth: int, marker: int) -> int:
            inner: int = guest("run", depth - 1, marker + 1) if depth else 0
            return inner * 10 + marker

        guest = start(_NESTING, ask=ask)
        assert guest("run", 3, 1) == ((4 * 10 + 3) * 10 + 2) * 10 + 1

    def test_two_guests_call_each_other(self, start: Start) -> None:
        first: Guest = start(_NESTING, ask=lambda depth, marker: second("run", depth - 1, marker) if depth else marker)
        second: Guest = start(_NESTING, ask=lambda depth, marker: first("run", depth - 1, marker) if depth else marker)
        assert first("run", 4, 9) == 9
