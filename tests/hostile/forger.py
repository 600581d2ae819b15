"""A guest that puts line breaks and control characters wherever the host may show its words."""

from __future__ import annotations

from proxywasm_host.abi.table import HOSTCALLS
from tests.support import wat

WORDS = "x\r\nFORGED \x1b[2K\x1b]0;title\x07\x9b31m\u2028FORGED\u202e".encode()
"""A line of its own, ESC and the like in both forms, a line separator, and text from right to left."""


def forger(more: str = "", *, stub: bool = True) -> bytes:
    """The module; it has `more` in it, as text of WebAssembly, and an import that no host knows, if it may be a stub."""
    text = "".join(f"\\{byte:02x}" for byte in WORDS)
    at, size = "(i32.const 64)", f"(i32.const {len(WORDS)})"
    calls = {
        "proxy_log": f"(i32.const 2) {at} {size}",
        "proxy_http_call": f"{at} {size} (i32.const 512) (i32.const 120) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 9) (i32.const 32)",
        "proxy_call_foreign_function": f"{at} {size} {at} {size} (i32.const 32) (i32.const 36)",
        "proxy_get_property": f"{at} {size} (i32.const 32) (i32.const 36)",
        "proxy_set_shared_data": f"{at} {size} {at} {size} (i32.const 9)",
        "proxy_resolve_shared_queue": f"{at} {size} {at} {size} (i32.const 32)",
        "proxy_define_metric": f"(i32.const 0) {at} {size} (i32.const 32)",
        "proxy_get_header_map_value": f"(i32.const 0) {at} {size} (i32.const 32) (i32.const 36)",
        "proxy_add_header_map_value": f"(i32.const 0) {at} {size} {at} {size}",
    }
    rows = {row.name: row for row in HOSTCALLS}
    imports = "".join(
        f'(import "env" "{name}" (func ${name} (param {" ".join(rows[name].types)}) (result i32)))' for name in calls
    )
    made = "".join(f"(drop (call ${name} {arguments}))" for name, arguments in calls.items())
    return wat(f"""(module (@name "{text}") {imports}
      {'(import "env" "proxy_unheard_of" (func $stub (result i32)))' if stub else ''}
      (import "wasi_snapshot_preview1" "fd_write" (func $fd_write (param i32 i32 i32 i32) (result i32)))
      (memory (export "memory") 1)
      (data (i32.const 64) "{text}")
      (data (i32.const 16) "\\40\\00\\00\\00\\{len(WORDS):02x}\\00\\00\\00")
      (func (export "proxy_abi_version_0_2_1"))
      (func (export "malloc") (param i32) (result i32) (i32.const 1024))
      (func $fall (@name "{text}") unreachable)
      (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
        {made} {'(drop (call $stub))' if stub else ''}
        (drop (call $fd_write (i32.const 1) (i32.const 16) (i32.const 1) (i32.const 40)))
        (drop (call $fd_write (i32.const 2) (i32.const 16) (i32.const 1) (i32.const 40)))
        (call $fall) (i32.const 0))
      {more})""")
