"""Counters at the beginnings of functions: what they count, on each engine, and that a module does the same with them."""

from __future__ import annotations

import json

import pytest

from proxywasm_host.errors import ModuleError
from proxywasm_host.testing import Harness
from proxywasm_host.testing.function_counters import READER, counting, namespace
from proxywasm_host.wasm import (
    CODE,
    CUSTOM,
    EXPORT,
    FUNCTION,
    GLOBAL,
    TYPE,
    Binary,
)
from tests.cli.conftest import PANICS, command, proxywasm
from tests.support import FILTERS, code, wat

__all__ = ["command", "proxywasm"]

START = 8
SMALL = """
(module
  (type $f (func (param i32 i32) (result i32)))
  (import "env" "proxy_log" (func $log (param i32 i32 i32) (result i32)))
  (import "env" "proxy_get_header_map_value" (func $get (param i32 i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 1 2)
  (table 3 funcref)
  (elem (i32.const 0) $twice $allocate)
  (data (i32.const 16) "hello")
  (start $begin)
  (func $begin (call $twice (i32.const 1) (i32.const 2)) drop)
  (func $twice (type $f) (local i64 f32) (call $once (local.get 0)) (call $once (local.get 1)) i32.add)
  (func $once (param i32) (result i32) (local.get 0))
  (func $never (result i32) (i32.const 7))
  (func $allocate (export "proxy_on_memory_allocate") (param i32) (result i32) (i32.const 1024))
  (func (export "proxy_abi_version_0_2_1"))
  (func $create (export "proxy_on_context_create") (param i32 i32)
    (call_indirect (type $f) (i32.const 3) (i32.const 4) (i32.const 0)) drop
    (call $log (i32.const 2) (i32.const 16) (i32.const 5)) drop))
"""
"""No global of its own, and no type of a function from i32 to i32 but what the allocator has; a table, a start function."""
WITH_GLOBALS = """
(module
  (import "env" "proxy_get_log_level" (func (param i32) (result i32)))
  (global $count (mut i32) (i32.const 300))
  (memory (export "memory") 1)
  (func $allocate (export "proxy_on_memory_allocate") (param i32) (result i32) (i32.const 1024))
  (func (export "proxy_abi_version_0_2_1"))
  (func $log (export "proxy_on_context_create") (param i32 i32)
    (global.set $count (i32.add (global.get $count) (i32.const 1)))))
"""


def sections(module: bytes) -> dict[int | str, bytes]:
    """What stands in each section; custom ones by name."""
    binary = Binary(module)
    found: dict[int | str, bytes] = {}
    for section, start, end in binary.sections:
        name = f"{binary.data[start + 1 : start + 5]!r}" if section == CUSTOM else section
        found[name] = module[start:end]
    return found


@pytest.mark.parametrize("module", [wat(SMALL), wat(WITH_GLOBALS), code("rust/panics"), code("c/probe_0_2_1")])
def test_all_else_stays_in_the_module(module):
    before, after = sections(module), sections(counting(module))
    changed = {TYPE, FUNCTION, GLOBAL, EXPORT, CODE}
    assert {name: content for name, content in after.items() if name not in changed} == {
        name: content for name, content in before.items() if name not in changed
    }
    was, now = Binary(module), Binary(counting(module))
    assert now.exports == [*was.exports, (READER, "function", (("i32",), ("i32",)))]
    assert (now.imports, now.tables, now.memory) == (was.imports, was.tables, was.memory)
    assert [*now.functions[:-1]] == [*was.functions]
    assert now.types[: len(was.types)] == was.types
    assert counting(counting(module)) == counting(module)


def test_each_function_is_counted(engine):
    with Harness(engine) as harness:
        harness.count_functions = True
        filter = harness(wat(SMALL))
        with filter.stream():
            pass
        assert filter.logs.info == ["hello", "hello"]
        counts = harness.function_counters[filter.plugins[0]].take()
    names = {name: times for name, times in counts.items() if not name.startswith("function ")}
    assert names == {"begin": 1, "twice": 3, "once": 6, "never": 0, "allocate": 0, "create": 2}


def test_a_trap_keeps_what_was_counted_and_a_new_guest_counts_on(engine):
    with Harness(engine) as harness:
        harness.count_functions = True
        filter = harness(PANICS, "request_headers", failure_policy="fail_reload", reload_interval=0.0)
        plugin = filter.plugins[0]
        for times in (1, 2):
            assert filter.get().status == 503
            assert harness.function_counters[plugin].take()["panics::panic_as_told"] == times
            harness.clock.advance(1)


@pytest.mark.parametrize("filter", ["rust/panics", "c/probe_0_2_1"])
def test_a_filter_does_the_same_with_counters(engine, filter):
    """What can be seen of a request, and each hostcall."""
    seen = []
    for counts in (False, True):
        with Harness(engine) as harness:
            harness.count_functions = counts
            under_test = harness(FILTERS / f"{filter}.wasm", "response_headers")
            outcome = under_test.post("/x", {"a": "b"}, "body")
            seen.append((outcome.lines(), harness.transcript(), under_test.plugins[0]._vm.memory_bytes))
    assert seen[0] == seen[1]


@pytest.mark.parametrize("name", ["rust/auth", "go/headers"])
def test_a_module_without_names_stays_as_it_is(name):
    assert counting(code(name)) == code(name)


def test_what_is_no_module_is_for_the_host_to_say(engine):
    with Harness(engine) as harness:
        harness.count_functions = True
        with pytest.raises(ModuleError, match="not a WebAssembly module"):
            harness(b"no module at all")


@pytest.mark.parametrize(
    ("function", "whose"),
    [
        ("auth::Auth::check", "auth"),
        ("<auth::Auth as proxy_wasm::traits::HttpContext>::on_http_request_headers", "auth"),
        ("<&u8 as core::fmt::Debug>::fmt", "core"),
        ("main.(*httpContext).OnHttpRequestHeaders", "main"),
        ("(*main.httpContext).OnHttpRequestHeaders", "main"),
        ("github.com/tetratelabs/proxy.Call", "github.com/tetratelabs/proxy"),
        ("assembly/index/Filter#onRequestHeaders", "assembly"),
        ("~lib/string/String#concat", "~lib"),
        ("memcpy", ""),
    ],
)
def test_whose_a_function_is(function, whose):
    assert namespace(function) == whose


def test_a_suite_tells_of_functions(proxywasm, tmp_path):
    suite = tmp_path / "a.suite.yaml"
    suite.write_text(f"filter: {PANICS}\ntests: [{{name: a}}]\n")
    told, page = tmp_path / "coverage.json", tmp_path / "coverage.html"
    result = proxywasm("test", suite, "--coverage", "--coverage-json", told, "--coverage-html", page)
    assert "#   functions: 58 of 435 entered" in result.out.splitlines()
    assert "#     panics: 13 of 119; never panics::loop_for_ever, panics::panic_as_told, " in result.out
    functions = json.loads(told.read_text())["panics"]["functions"]
    assert functions["<panics::Plan>::reach"] == 6
    assert functions["panics::loop_for_ever"] == 0
    assert "<summary>functions of core: 6 of 73</summary>" in page.read_text()
