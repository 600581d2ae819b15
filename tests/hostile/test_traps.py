"""Traps and endless loops, everywhere where a guest runs."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest

from tests.hostile.conftest import LONG, SHORT

Run = Callable[..., str]
SECTIONS = (
    *("on_vm_start", "on_configure", "on_context_create", "on_tick", "on_queue_ready", "on_http_call_response"),
    *("on_request_headers", "on_request_body", "on_request_trailers"),
    *("on_response_headers", "on_response_body", "on_response_trailers", "on_done", "on_log", "on_delete"),
)
SET_UP = """@on_configure
set_tick_period_milliseconds 10
register_shared_queue hostile
enqueue_shared_queue $token x
http_call up :method=GET&:path=/&:authority=a "" "" 0
"""
ENDS = {
    "trap": "unreachable",
    "divide": "integer division by zero",
    "oob": "out of bounds memory access",
    "recurse": "call stack exhausted",
    "loop": "deadline of 0.25 s exceeded",
}


@pytest.mark.parametrize("how", ENDS)
@pytest.mark.parametrize("section", SECTIONS[1:])
def test_in_each_callback(section: str, how: str, probe: Run) -> None:
    script = f"{SET_UP}{how}" if section == "on_configure" else f"{SET_UP}@{section}\n{how}"
    told = probe(script, SHORT if how == "loop" else LONG)
    assert ENDS[how] in told, told
    assert f"in proxy_{section}" in told


INSTRUCTIONS = {
    "remainder by zero": ("(drop (i32.rem_u (i32.const 1) (local.get 2)))", "division by zero"),
    "overflow": (
        "(drop (i32.div_s (i32.const 0x80000000) (i32.sub (local.get $n) (i32.const 1))))",
        "integer overflow",
    ),
    "NaN to integer": ("(drop (i32.trunc_f32_s (f32.const nan)))", "invalid conversion|integer overflow"),
    "too much for an integer": ("(drop (i32.trunc_f64_u (f64.const 1e30)))", "invalid conversion|integer overflow"),
    "a load at the edge": ("(drop (i32.load (i32.const 131069)))", "out of bounds"),
    "a load with an offset": ("(drop (i64.load offset=4294967295 (i32.const -1)))", "out of bounds"),
    "a store at the edge": ("(i64.store (i32.const 131065) (i64.const 1))", "out of bounds"),
    "a fill": ("(memory.fill (i32.const 131071) (i32.const 0) (i32.const 2))", "out of bounds"),
    "a fill of nothing far away": ("(memory.fill (i32.const -1) (i32.const 0) (i32.const 0))", "out of bounds"),
    "a fill that wraps": ("(memory.fill (i32.const 131071) (i32.const 0) (i32.const -1))", "out of bounds"),
    "a copy": ("(memory.copy (i32.const 0) (i32.const 131071) (i32.const 2))", "out of bounds"),
    "a large copy": ("(memory.copy (i32.const 0) (i32.const 1) (i32.const 131072))", "out of bounds"),
    "data that was dropped": (
        "(data.drop $d) (memory.init $d (i32.const 0) (i32.const 0) (i32.const 1))",
        "out of bounds",
    ),
    "a table's end": ("(drop (table.get $t (i32.const 9)))", "table"),
    "a fill of a table": ("(table.fill $t (i32.const 2) (ref.null func) (i32.const 99))", "table"),
    "elements beyond": ("(table.init $t $e (i32.const 0) (i32.const 0) (i32.const 5))", "table"),
    "an indirect call of another type": (
        "(drop (call_indirect $t (result i64) (i32.const 1)))",
        "indirect call|signature",
    ),
    "an indirect call of nothing": ("(call_indirect $t (i32.const 0))", "indirect call|null"),
    "an indirect call beyond": ("(call_indirect $t (i32.const 99))", "table|undefined"),
    "large frames": ("(drop (call $large (i64.const 1)))", "call stack exhausted"),
    "through an indirect call": ("(call_indirect $t (i32.const 2))", "call stack exhausted"),
}
MORE = (
    """(table $t 3 funcref) (elem (table $t) (i32.const 1) func $nothing $again) (elem $e func $nothing) (data $d "x")
  (func $nothing) (func $again (call_indirect $t (i32.const 2)) (call $nothing))
  (func $large (param i64) (result i64) """
    + " ".join(f"(local $l{n} i64)" for n in range(400))
    + """
    """
    + " ".join(f"(local.set $l{n} (i64.add (local.get 0) (i64.const {n})))" for n in range(400))
    + """
    (drop (call $large (local.get $l399)))
    """
    + "(i64.const 0) "
    + " ".join(f"(i64.add (local.get $l{n}))" for n in range(400))
    + ")"
)


@pytest.mark.parametrize("name", INSTRUCTIONS)
def test_an_instruction(name: str, guest: Run) -> None:
    body, reason = INSTRUCTIONS[name]
    assert re.search(reason, guest(body, more=MORE)), name


PROPERTY = '(import "env" "proxy_get_property" (func $get (param i32 i32 i32 i32) (result i32)))'
LOG = '(import "env" "proxy_log" (func $log (param i32 i32 i32) (result i32)))'
FOREIGN = '(import "env" "proxy_call_foreign_function" (func $foreign (param i32 i32 i32 i32 i32 i32) (result i32)))'
SHARE = '(import "env" "proxy_set_shared_data" (func $share (param i32 i32 i32 i32 i32) (result i32)))'
PATH = '(data (i32.const 16) "request\\00path") (data (i32.const 64) "compress")'
BIG = '(memory (export "memory") 100)'
ENDLESS = {
    "nothing": ("", "", ""),
    "a cheap hostcall": ("(drop (call $get (i32.const 16) (i32.const 12) (i32.const 0) (i32.const 4)))", PROPERTY, ""),
    "one with a bad address": (
        "(drop (call $get (i32.const -9) (i32.const 12) (i32.const 0) (i32.const 4)))",
        PROPERTY,
        "",
    ),
    "the longest path": (
        "(drop (call $get (i32.const 99) (i32.const 65536) (i32.const 0) (i32.const 4)))",
        PROPERTY,
        BIG,
    ),
    "the longest line": ("(drop (call $log (i32.const 2) (i32.const 99) (i32.const 262144)))", LOG, BIG),
    "a line that is too long": ("(drop (call $log (i32.const 2) (i32.const 99) (i32.const 6000000)))", LOG, BIG),
    "compressing": (
        "(drop (call $foreign (i32.const 64) (i32.const 8) (i32.const 99) (i32.const 1048576) (i32.const 0) (i32.const 0)))",
        FOREIGN,
        BIG,
    ),
    "sharing": (
        "(drop (call $share (i32.const 0) (i32.const 9) (i32.const 99) (i32.const 6000000) (i32.const 0)))",
        SHARE,
        BIG,
    ),
    "filling": ("(memory.fill (i32.const 0) (i32.const 0) (i32.const 6553600))", "", BIG),
    "growing": ("(drop (memory.grow (i32.const 1)))", "", ""),
    "growing by nothing": ("(drop (memory.grow (i32.const 0)))", "", ""),
}


@pytest.mark.parametrize("name", ENDLESS)
def test_endless(name: str, guest: Run) -> None:
    body, imports, memory = ENDLESS[name]
    data = PATH if "env" in imports else ""
    memory = memory or '(memory (export "memory") 2)'
    told = guest(f"(loop $l {body} (br $l))", imports=imports, memory=memory, more=data, deadline=SHORT)
    assert "deadline of 0.25 s exceeded" in told, told


CLOCK = '(import "env" "proxy_get_current_time_nanoseconds" (func $time (param i32) (result i32)))'
SLEEP = '(import "wasi_snapshot_preview1" "poll_oneoff" (func $sleep (param i32 i32 i32 i32) (result i32)))'
TABLE = "(table $t 1 funcref)"
LOOPS = {
    # code, imports, and what the module has beside it
    "vectors": ("(v128.store (i32.const 0) (i16x8.mul (v128.load (i32.const 0)) (v128.load (i32.const 16))))", "", ""),
    "slow division": (
        "(f64.store (i32.const 0) (f64.sqrt (f64.div (f64.const 4.9e-324) (f64.load (i32.const 8)))))",
        "",
        "",
    ),
    "an indirect call": ("(call_indirect $t (i32.const 0))", "", f"{TABLE} (elem (i32.const 0) $f) (func $f)"),
    "a large br_table": (
        "(block " * 100
        + f"(br_table {' '.join(str(n % 100) for n in range(3000))} 100"
        + " (i32.and (local.tee $n (i32.add (local.get $n) (i32.const 1))) (i32.const 4095)))"
        + ")" * 100,
        "",
        "",
    ),
    "copies that overlap": ("(memory.copy (i32.const 1) (i32.const 0) (i32.const 6000000))", "", ""),
    "growing beyond the limit": ("(drop (memory.grow (i32.const 30000)))", "", ""),
    "a table that grows": ("(drop (table.grow $t (ref.null func) (i32.const 1)))", "", TABLE),
    "a table that grows beyond the limit": ("(drop (table.grow $t (ref.null func) (i32.const 1000000)))", "", TABLE),
    "references": ("(table.set $t (i32.const 0) (table.get $t (i32.const 0)))", "", TABLE),
    "globals": (
        "(global.set 0 (i64.add (global.get 999) (i64.const 1)))",
        "",
        "(global (mut i64) (i64.const 0))" * 1000,
    ),
    "the clock": ("(drop (call $time (i32.const 0)))", CLOCK, ""),
    "sleeping": ("(drop (call $sleep (i32.const 0) (i32.const 128) (i32.const 1) (i32.const 200)))", SLEEP, ""),
}


@pytest.mark.parametrize("name", LOOPS)
def test_a_loop_of(name: str, guest: Run) -> None:
    body, imports, more = LOOPS[name]
    told = guest(
        f"(loop $l {body} (br $l))", imports=imports, memory='(memory (export "memory") 100)', more=more, deadline=SHORT
    )
    assert "deadline of 0.25 s exceeded" in told, told


@pytest.mark.parametrize("name", ["start", "_initialize", "_start", "main"])
@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("unreachable", "unreachable"),
        ("(loop $l (br $l))", "deadline of 0.25 s exceeded"),
        ("(call $f) (drop (i32.load (i32.const 0)))", "call stack exhausted"),
    ],
    ids=["trap", "loop", "recursion"],
)
def test_before_anything(name: str, body: str, reason: str, guest: Run) -> None:
    if name == "start":
        more = f"(start $f) (func $f {body})"
    elif name == "main":
        more = (
            f'(func (export "_initialize")) (func $f (export "main") (param i32 i32) (result i32) {body} (i32.const 0))'
        )
        more = more.replace("(call $f)", "(drop (call $f (i32.const 0) (i32.const 0)))")
    else:
        more = f'(func $f (export "{name}") {body})'
    told = guest("", more=more, deadline=SHORT if "loop" in body else LONG)
    assert reason in told, told


ALLOCATORS = {
    # code, and why the guest fails, if it does
    "gives 0": ("(i32.const 0)", ""),
    "gives -1": ("(i32.const -1)", ""),
    "gives the last byte": ("(i32.const 131071)", ""),
    "gives its own data": ("(i32.const 16)", ""),
    "gives what is odd": ("(i32.const 1021)", ""),
    "grows": ("(i32.shl (memory.grow (i32.const 1)) (i32.const 16))", ""),
    "traps": ("unreachable", "unreachable"),
    "loops": ("(loop $l (br $l)) (i32.const 0)", "deadline"),
    "recurses": ("(i32.add (call $allocate (local.get 0)) (i32.const 1))", "call stack exhausted"),
    "calls the host": (
        "(drop (call $get (i32.const 16) (i32.const 12) (i32.const 0) (i32.const 4))) (i32.const 1024)",
        "restricted",
    ),
}


@pytest.mark.parametrize("name", ALLOCATORS)
def test_an_allocator_that(name: str, guest: Run) -> None:
    allocate, reason = ALLOCATORS[name]
    call = "(drop (call $get (i32.const 16) (i32.const 12) (i32.const 0) (i32.const 4)))"
    deadline = SHORT if "loop" in allocate else LONG
    told = guest(call * 3, imports=PROPERTY, more=PATH, allocate=allocate, deadline=deadline)
    assert (reason in told) if reason else told == "", told
