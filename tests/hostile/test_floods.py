"""Guests that make the host keep things: each kind has its end, is given back, and leaves others theirs."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from proxywasm_host import Host, Limits, Services
from proxywasm_host.abi.marshal import Call
from proxywasm_host.abi.types import Status
from proxywasm_host.engine.protocol import Engine
from proxywasm_host.runtime.effects import RequestHeaders
from tests.support import REQUEST, RESPONSE, Lines, code, wat

MIB = 1 << 20
MEMORY = 16 * MIB
NUMBERED = """(func $name (param i32) (local $at i32) (local.set $at (i32.const 4096))
  (loop $l (i32.store8 (local.get $at) (i32.add (i32.const 97) (i32.rem_u (local.get 0) (i32.const 26))))
    (local.set 0 (i32.div_u (local.get 0) (i32.const 26))) (local.set $at (i32.add (local.get $at) (i32.const 1)))
    (br_if $l (i32.lt_u (local.get $at) (i32.const 4104)))))"""
"""Writes a name of eight letters for a number."""
FILTER = """(module {imports} (memory (export "memory") 200) (func (export "proxy_abi_version_0_2_1"))
  (func (export "proxy_on_memory_allocate") (param i32) (result i32) (i32.const 1024))
  {numbered}
  (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32) (local $n i32)
    (loop $l (call $name (local.get $n))
      (if {call} (then (return (i32.const 0))))
      (br_if $l (i32.lt_u (local.tee $n (i32.add (local.get $n) (i32.const 1))) (i32.const {most})))) (i32.const 0)))"""
FLOODS = {
    # hostcall, its type, what it is given, and how often before it has to be refused
    "metrics": ("define_metric", "i32 i32 i32 i32", "(i32.const 0) (i32.const 4096) (i32.const 60000) (i32.const 0)", 2000),
    "shared data": (
        "set_shared_data", "i32 i32 i32 i32 i32",
        "(i32.const 4096) (i32.const 8) (i32.const 0) (i32.const 1000000) (i32.const 0)", 500,
    ),
    "names of queues": ("register_shared_queue", "i32 i32 i32", "(i32.const 4096) (i32.const 60000) (i32.const 0)", 10_000),
    "headers": ("add_header_map_value", "i32 i32 i32 i32 i32", "(i32.const 0) (i32.const 4096) (i32.const 8) (i32.const 0) (i32.const 0)", 2000),
    "properties": ("set_property", "i32 i32 i32 i32", "(i32.const 4096) (i32.const 8) (i32.const 0) (i32.const 60000)", 2000),
    "callouts": (
        "http_call", "i32 i32 i32 i32 i32 i32 i32 i32 i32 i32",
        "(i32.const 64) (i32.const 2) (i32.const 80) (i32.const 61) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0)",
        2000,
    ),
    "local responses": (
        "send_local_response", "i32 i32 i32 i32 i32 i32 i32 i32",
        "(i32.const 200) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 9000000) (i32.const 0) (i32.const 0) (i32.const -1)",
        2000,
    ),
}  # fmt: skip
CALLOUT = (
    '(data (i32.const 64) "up") (data (i32.const 80) "\\03\\00\\00\\00\\07\\00\\00\\00\\03\\00\\00\\00\\05\\00\\00\\00'
    '\\01\\00\\00\\00\\0a\\00\\00\\00\\01\\00\\00\\00:method\\00GET\\00:path\\00/\\00:authority\\00a\\00")'
)


def flood(name: str) -> bytes:
    """The filter that floods in its callback on request headers, until it is refused."""
    hostcall, types, given, most = FLOODS[name]
    imports = f'(import "env" "proxy_{hostcall}" (func $h (param {types}) (result i32)))'
    numbered = NUMBERED + (CALLOUT if name == "callouts" else "")
    return wat(FILTER.format(imports=imports, numbered=numbered, call=f"(call $h {given})", most=most))


def resident() -> int:
    """Bytes of this process that are in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.parametrize("name", FLOODS)
def test_a_flood_is_refused(name: str, engine: Engine) -> None:
    """With a status, in each of two VMs of its own, and the process stays within what docs say is kept."""
    log = Lines()
    with Host(engine, services=Services(log=log, clusters={"up"}), limits=Limits(MEMORY, 30)) as host:
        good = host.load_plugin(code("rust/headers"), name="good", configuration="good")
        before = resident()
        bad = [host.load_plugin(flood(name), name=f"bad{n}", vm_id=f"vm{n}") for n in range(2)]
        for plugin in bad:
            with host.http_stream([plugin]) as stream:
                stream.request_headers(REQUEST, end_stream=True)
                assert stream.failure is None
                last = Call(*list(plugin._vm.calls)[-1])
                assert (last.row.name, last.status) == (f"proxy_{FLOODS[name][0]}", Status.INTERNAL_FAILURE)
        assert resident() - before < 640 * MIB
        with host.http_stream([good]) as stream:
            (out,) = [effect for effect in stream.request_headers(REQUEST, True) if isinstance(effect, RequestHeaders)]
            assert out.headers[-1] == (b"x-wasm", b"good")
            assert stream.response_headers(RESPONSE, True)
