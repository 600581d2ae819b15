"""``proxywasm bench``: what it counts is exact, what it times is there."""

from __future__ import annotations

import platform

import pytest

from tests.cli.conftest import AUTH, HEADERS, PANICS, PROBE

FEW = ("--requests", "25")


def test_as_json(proxywasm, engine):
    result = proxywasm("bench", HEADERS, *FEW, "--json")
    measured = result.json
    assert (result.code, result.err) == (0, "")
    assert list(measured) == [
        "request_us", "hostcalls", "callbacks", "crossings", "thread_hops", "load_ms", "memory_bytes", "engine", "python",
    ]  # fmt: skip
    assert list(measured["request_us"]) == ["median", "iqr"]
    assert measured["request_us"]["median"] > 0
    assert min(measured["load_ms"].values()) > 0
    if engine.capabilities.serialise:
        assert measured["load_ms"]["cold"] > measured["load_ms"]["cached"]
    assert measured["memory_bytes"] % 65536 == 0 < measured["memory_bytes"]
    assert (measured["engine"], measured["python"]) == (f"{engine.name} {engine.version}", platform.python_version())


def test_it_counts_each_crossing(proxywasm, module):
    path = module("""(module
      (import "env" "proxy_get_header_map_value" (func $get (param i32 i32 i32 i32 i32) (result i32)))
      (import "env" "proxy_add_header_map_value" (func $add (param i32 i32 i32 i32 i32) (result i32)))
      (memory (export "memory") 1)
      (data (i32.const 0) ":path")
      (func (export "proxy_abi_version_0_2_1"))
      (func (export "malloc") (param i32) (result i32) i32.const 1024)
      (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
        (drop (call $get (i32.const 0) (i32.const 0) (i32.const 5) (i32.const 64) (i32.const 68)))
        (drop (call $get (i32.const 0) (i32.const 0) (i32.const 4) (i32.const 64) (i32.const 68)))
        (call $add (i32.const 0) (i32.const 0) (i32.const 1) (i32.const 0) (i32.const 1)))
      (func (export "proxy_on_done") (param i32) (result i32) i32.const 1))""")
    measured = proxywasm("bench", path, *FEW, "--json").json
    callbacks, hostcalls, allocations = 2, 3, 1
    assert (measured["callbacks"], measured["hostcalls"]) == (callbacks, hostcalls)
    assert measured["crossings"] == callbacks + hostcalls + allocations
    assert measured["thread_hops"] == 0


def test_as_people_read_it(proxywasm, engine):
    result = proxywasm("bench", HEADERS, HEADERS, "http://example.com/", "-d", "x", *FEW)
    assert result.code == 0
    first, request, crossings, load, memory, on = result.lines
    assert first == "headers-1, headers-2"
    assert (request.startswith("request     "), "interquartile range" in request) == (True, True)
    assert crossings.startswith("crossings   ")
    assert crossings.endswith("16 callbacks, 20 hostcalls, 3 allocations")
    assert (load.startswith("load        "), memory.startswith("memory      ")) == (True, True)
    assert on == f"on          {engine.name} {engine.version}, Python {platform.python_version()}"


def test_a_local_response_is_timed_as_it_is(proxywasm):
    measured = proxywasm("bench", AUTH, "--config", "secret", "--trailer", "t: 1", *FEW, "--json").json
    assert measured["callbacks"] == 7


def test_callouts_are_answered(proxywasm):
    measured = proxywasm(
        "bench", AUTH, "--config", "callout:idp", "--callout", "idp=200", "--response-trailer", "t: 1", *FEW, "--json"
    ).json
    assert measured["callbacks"] == 8


@pytest.mark.parametrize("place", ["request_headers", "on_configure"])
def test_a_guest_that_traps_is_not_timed(proxywasm, place):
    result = proxywasm("bench", PANICS, "--config", place, *FEW, "--json")
    assert (result.code, result.out) == (5, "")
    assert f"unreachable in proxy_on_{place.removeprefix('on_')}" in result.complaint


def test_a_guest_that_traps_later_is_not_timed_either(proxywasm):
    script = "#\n@on_request_headers\nset a $a+1\nlog $a x\nif_status 2\ntrap\n"  # there are six levels
    result = proxywasm("bench", PROBE, "--config", script, *FEW)
    assert (result.code, result.out) == (5, "")
    assert "in proxy_on_request_headers" in result.complaint


def test_usage(command):
    assert "the filter is missing" in command("bench", "http://example.com/").err
    assert command("bench", HEADERS, "--requests", "1").code == 2
