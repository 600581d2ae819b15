"""The cost of each hostcall with the largest arguments: ``python -m benchmarks.longest`` writes it into docs/limits.md.

A scripted filter makes the hostcall once, and 21 times; the difference is the cost of twenty. Where the content matters
more than the crossing, the host's part is timed alone, with the worst content that we know.
"""

from __future__ import annotations

import logging
import random
import re
import time
from collections.abc import Callable
from pathlib import Path

from proxywasm_host import Host, Services
from proxywasm_host.abi import table
from proxywasm_host.abi.table import HOSTCALLS, LINE, WASI, Hostcall
from proxywasm_host.services import GuestLog, StandardLogging
from proxywasm_host.services.foreign import MAX_ARGUMENT, compress

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "limits.md"
BEGIN, END = "<!-- measured by python -m benchmarks.longest -->", "<!-- end -->"
REQUEST = [(b":authority", b"a"), (b":path", b"/"), (b":method", b"GET"), (b":scheme", b"http")]
NAME, VALUE = "fill:%ff:65536", "at:100000:4194304"
DATA, BODY = f"at:100000:{table.DATA}", f"at:100000:{table.BODY}"
START = f"""@on_configure
grow 2000
register_shared_queue q
set_shared_data fill:k:65536 {DATA} 0
"""
JOINED = "&".join(["via=" + "x" * 10] * 1000)
CALLS = {
    "proxy_get_header_map_value": "get_header_map_value 0 " + NAME,
    "proxy_add_header_map_value": f"add_header_map_value 0 {NAME} {VALUE}",
    "proxy_replace_header_map_value": "replace_header_map_value 0 x at:100000:1000000",
    "proxy_remove_header_map_value": "remove_header_map_value 0 " + NAME,
    "proxy_set_header_map_pairs": "set_header_map_pairs 0 " + JOINED,
    "proxy_set_buffer_bytes": f"set_buffer_bytes 0 0 1000 {BODY}",
    "proxy_get_property": "get_property " + NAME,
    "proxy_set_property": f"set_property {NAME} {VALUE}",
    "proxy_send_local_response": f"send_local_response 200 {NAME} {BODY} a=b -1",
    "proxy_get_shared_data": "get_shared_data fill:k:65536",
    "proxy_set_shared_data": f"set_shared_data fill:k:65536 {DATA} 0",
    "proxy_register_shared_queue": "register_shared_queue " + NAME,
    "proxy_resolve_shared_queue": f"resolve_shared_queue {NAME} {NAME}",
    "proxy_enqueue_shared_queue": f"enqueue_shared_queue 1 {DATA}",
    "proxy_define_metric": "define_metric 0 " + NAME,
    "proxy_http_call": f"http_call upstream :method=GET&:path=/&:authority=x {BODY} a=b 1000",
    "proxy_grpc_call": f"grpc_call fill:%0a%02a:65536 {NAME} {NAME} a=b {DATA} 1000",
    "proxy_grpc_stream": f"grpc_stream {NAME} {NAME} {NAME} a=b",
}
UNITS = ((1 << 20, "MiB"), (1 << 10, "KiB"))


def size(number: int) -> str:
    """A number of bytes as text."""
    unit, name = next(each for each in UNITS if number >= each[0])
    return f"{number // unit} {name}"


def takes(row: Hostcall) -> str:
    """The limits of a hostcall's arguments, as text."""
    return ", ".join(f"{param.name} {size(param.most)}" for param in row.params if param.most)


def bounded() -> list[Hostcall]:
    """The hostcalls with arguments that can be large."""
    return [row for row in (*HOSTCALLS, *WASI) if any(param.most for param in row.params)]


def seconds(host: Host, call: str) -> float:
    """The least seconds of processor time for one such call."""
    times = []
    for repeat in (1, 21):
        section = "on_request_headers" if "header_map" in call else "on_request_body"
        script = f"{START}@{section}\nrepeat {repeat}\n{call}\n"
        plugin = host.load_plugin(ROOT / "tests/filters/c/probe_0_2_1.wasm", name="probe", configuration=script)
        took = []
        for _ in range(3):
            with host.http_stream([plugin]) as stream:
                before = time.process_time()
                stream.request_headers(REQUEST)
                stream.request_body(b"body", end_stream=True)
                took.append(time.process_time() - before)
        times.append(min(took))
        plugin.close()
    return max(0.0, times[1] - times[0]) / 20


def of_python(work: Callable[[], object]) -> float:
    """The least seconds of processor time for `work`, a part of the host."""
    times = []
    for _ in range(5):
        before = time.process_time()
        work()
        times.append(time.process_time() - before)
    return min(times)


def log() -> None:
    """Log a line of the most expensive kind."""
    StandardLogging().log(GuestLog("longest", 2, (b"\xff" * LINE).decode("utf-8", "replace")))


TEXT = bytes(random.Random(1).choices(b"acgt", k=MAX_ARGUMENT))
OF_PYTHON: dict[str, Callable[[], object]] = {
    "proxy_log": log,
    "fd_write": log,
    "proxy_call_foreign_function": lambda: compress(TEXT),
}


def main() -> None:
    logging.getLogger("proxywasm_host").addHandler(logging.NullHandler())
    logging.getLogger("proxywasm_host").propagate = False
    lines = ["| hostcall | takes at most | the longest |", "|---|---|--:|"]
    for row in bounded():
        cost = "as others"
        if row.name in OF_PYTHON:
            cost = f"{1000 * of_python(OF_PYTHON[row.name]):.1f} ms"
        elif row.name in CALLS:
            with Host(services=Services(clusters={"upstream"})) as host:
                cost = f"{1000 * seconds(host, CALLS[row.name]):.1f} ms"
        lines.append(f"| `{row.name}` | {takes(row)} | {cost} |")
        print(lines[-1])
    text, rows = PAGE.read_text(encoding="utf-8"), "\n".join(lines)
    PAGE.write_text(re.sub(f"{BEGIN}.*{END}", f"{BEGIN}\n{rows}\n{END}", text, flags=re.DOTALL), encoding="utf-8")


if __name__ == "__main__":
    main()
