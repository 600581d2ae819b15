"""Modules whose harm is in how they are put together: they are refused, or fail, with a reason, and nobody else notices."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest

from tests.hostile.conftest import LONG, SHORT, Neighbourhood
from tests.support import wat

Run = Callable[..., str]
MIB = 1 << 20
PARTS = """(memory (export "memory") 2) (func (export "proxy_abi_version_0_2_1"))
  (func (export "proxy_on_memory_allocate") (param i32) (result i32) (i32.const 1024))"""
ALLOCATOR = '(func (export "proxy_on_memory_allocate") (param i32) (result i32) (i32.const 1024))'

TEXTS = {
    # what is in the module, and why it is refused or fails
    "data at the end of 4 GiB": (f'{PARTS} (data (i32.const -1) "abc")', "out of bounds"),
    "data beyond its memory": (f'{PARTS} (data (i32.const 131070) "abc")', "out of bounds"),
    "elements beyond their table": (f"{PARTS} (table 1 funcref) (elem (i32.const 4294967295) func 0)", "table|bounds"),
    "a start function that grows memory": (
        f"{PARTS} (func $s (loop $l (br_if $l (i32.ne (memory.grow (i32.const 16)) (i32.const -1))))) (start $s)",
        "^$",
    ),
    "a start function that fills all memory, again and again": (
        f"{PARTS} (func $s (loop $l (memory.fill (i32.const 0) (i32.const 7) (i32.const 131072)) (br $l))) (start $s)",
        "deadline of 0.25 s exceeded",
    ),
    "a callback of another type": (
        f'{PARTS} (func (export "proxy_on_request_headers") (param i64))',
        "proxy_on_request_headers",
    ),
    "an allocator of another type": (PARTS.replace("(param i32) (result i32)", "(param f64) (result i32)"), "allocate"),
    "a callback that is a memory": (f'{PARTS} (export "proxy_on_request_headers" (memory 0))', "proxy_on_request_headers|^$"),
    "a memory that is a function": (
        PARTS.replace('(memory (export "memory") 2)', '(memory 2) (func (export "memory"))'),
        "memory",
    ),
    "a callback that is a hostcall": (
        f"""(import "env" "proxy_log" (func $log (param i32 i32 i32) (result i32))) {PARTS}
        (export "proxy_on_request_headers" (func $log))""",
        "^$",
    ),
    "an initialiser that is a hostcall": (
        f"""(import "env" "proxy_done" (func $done (result i32))) {PARTS} (export "_initialize" (func $done))""",
        "restricted: proxy_done was called where it may not be",
    ),
    "data that was dropped": (
        f"""{PARTS} (data $d "abc") (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
        (data.drop $d) (memory.init $d (i32.const 0) (i32.const 0) (i32.const 3)) (i32.const 0))""",
        "out of bounds memory access",
    ),
    "an allocator that is a hostcall": (
        f"""(import "env" "proxy_set_tick_period_milliseconds" (func $tick (param i32) (result i32)))
        (import "env" "proxy_get_property" (func $get (param i32 i32 i32 i32) (result i32)))
        {PARTS.replace(ALLOCATOR, '')} (export "proxy_on_memory_allocate" (func $tick)) (data (i32.const 16) "plugin_name")
        (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
          (drop (call $get (i32.const 16) (i32.const 11) (i32.const 0) (i32.const 4))) (i32.const 0))""",
        "restricted|^$",
    ),
    "a hostcall through a table": (
        f"""(import "env" "proxy_log" (func $log (param i32 i32 i32) (result i32))) {PARTS}
        (table 1 funcref) (elem (i32.const 0) func $log) (func (export "proxy_on_request_headers") (param i32 i32 i32)
          (result i32) (drop (call_indirect (param i32 i32 i32) (result i32)
          (i32.const 99) (i32.const -1) (i32.const -1) (i32.const 0)))
          (call_indirect (result i32) (i32.const 0)))""",
        "indirect call|signature",
    ),
    "an end in the allocator": (
        f"""(import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
        (import "env" "proxy_get_property" (func $get (param i32 i32 i32 i32) (result i32)))
        {PARTS.replace('(i32.const 1024)', '(call $exit (i32.const 3)) (i32.const 1024)')} (data (i32.const 16) "plugin_name")
        (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
          (drop (call $get (i32.const 16) (i32.const 11) (i32.const 0) (i32.const 4))) (i32.const 0))""",
        "restricted|proc_exit|exit",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", TEXTS)
def test_what_a_module_is_made_of(name: str, neighbourhood: Neighbourhood) -> None:
    text, reason = TEXTS[name]
    told = neighbourhood.run(wat(f"(module {text})"), deadline=SHORT if "deadline" in reason else LONG)
    assert re.search(reason, told), told


def leb(value: int) -> bytes:
    return bytes([value]) if value < 0x80 else bytes([value & 0x7F | 0x80]) + leb(value >> 7)


def section(id: int, content: bytes) -> bytes:
    return bytes([id]) + leb(len(content)) + content


def custom(name: bytes, content: bytes) -> bytes:
    return section(0, leb(len(name)) + name + content)


GOOD = wat(f"(module {PARTS})")
HEAD, MANY = GOOD[:8], leb(0xFFFFFFFF)

def with_code(body: bytes, parts: str = PARTS) -> bytes:
    """A filter, a function of which begins so."""
    nops = max(len(body), 31)
    return wat(f"(module {parts} (func {'nop ' * nops}))").replace(b"\0" + b"\1" * nops, body.ljust(nops + 1, b"\1"))


LOOPS = b"\x1a\3\x40\3\x40\3\x40\1"
"""Three loops, in as many bytes as follow the opcode of f64.const (0x44)."""


BYTES = {
    # the module, and why it is refused
    "nothing": (b"", "not a WebAssembly module"),
    "a head alone": (HEAD, "ABI|proxy_abi_version"),
    "another version": (b"\0asm\2\0\0\0" + GOOD[8:], "version"),
    "a section that is longer than the module": (HEAD + b"\1" + MANY, "damaged|ends|torn|beyond|truncated|module"),
    "more types than there are bytes": (HEAD + section(1, MANY), "4294967295 types"),
    "more imports than there are bytes": (HEAD + section(2, MANY), "4294967295 imports"),
    "more functions than there are bytes": (HEAD + section(3, MANY), "4294967295 functions"),
    "more elements than there are bytes": (HEAD + section(4, b"\1\x70\0" + MANY), "4294967295 elements"),
    "more locals than there are": (
        with_code(b"\2" + MANY + b"\x7f" + MANY + b"\x7e"),
        "4294967296 parameters and locals",
    ),
    "more targets than there are bytes": (
        with_code(b"\0\x41\0\x0e" + MANY + b"\0"),
        "br_table of 4294967295 targets",
    ),
    # A reader that does not know of other memories takes the offset for an instruction, and so on.
    "loops behind the number of a memory": (
        with_code(b"\0" + (b"\x41\0\x28\x42\0\x44" + LOOPS) * 50 + b"\x0b" * 150),
        "a proposal .*multiple memories",
    ),
    "loops behind the type of a reference": (
        with_code(
            b"\0\xd0\x80\x0b\xd0\x80\x0b\x41\0\x1c\1\x63\x80\x0b\x1a" + LOOPS[1:] * 50 + b"\x0b" * 150,
            "(type (func))" * 1500 + PARTS,
        ),
        "150 nested loops",
    ),
    "numbers without end": (HEAD + section(1, b"\x80" * 100), "damaged|number|long|module"),
    "a name of 16 MiB": (
        HEAD + section(1, b"\1\x60\0\0") + section(2, b"\1\3env" + leb(16 * MIB) + b"a" * (16 * MIB) + b"\0\0"),
        "has a name of 16777216 letters",
    ),
    "an export twice": (
        wat(f'(module {PARTS} (func (export "first")) (func (export "other")))').replace(b"other", b"first"),
        "[Dd]uplicate|twice",
    ),
    "two sections of code": (GOOD + section(10, b"\0"), "section|order|twice|damaged"),
    "a custom section of 60 MiB": (GOOD + custom(b"x", b"\0" * (60 * MIB)), "^$"),
    "9,000 custom sections": (GOOD + custom(b"name", b"\1" + leb(6) + MANY + b"\0") * 9000, "names|^$"),
    "names that are torn": (GOOD + custom(b"name", b"\1" + MANY + MANY), "names|^$"),
}  # fmt: skip


@pytest.mark.parametrize("name", BYTES)
def test_bytes_that_claim_what_is_not_there(name: str, neighbourhood: Neighbourhood) -> None:
    module, reason = BYTES[name]
    told = neighbourhood.run(module)
    assert re.search(reason, told), told
    assert len(told) < 2000


def test_the_name_of_a_function_that_traps(neighbourhood: Neighbourhood) -> None:
    """It is in the backtrace of the failure, which stays short whatever the module says."""
    module = wat(
        f'(module {PARTS} (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32) unreachable))'
    )
    name = b"a\x1b[31m\n" * (2 * MIB)
    entry = leb(1) + leb(2) + leb(len(name)) + name
    told = neighbourhood.run(module + custom(b"name", b"\1" + leb(len(entry)) + entry))
    assert "unreachable" in told
    assert "\x1b" not in told
    assert len(told) < 20_000, len(told)
