"""Each hostcall with each of its numbers wild: it answers, and the guest lives."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from proxywasm_host.abi.table import HOSTCALLS, WASI, Hostcall, Kind
from proxywasm_host.abi.types import AbiVersion
from tests.hostile.conftest import MEMORY

Run = Callable[..., str]
WILD = (0, 1, 131068, 131071, 131072, 0x7FFFFFFF, 0x80000000, 0xFFFFFFF0, 0xFFFFFFFF)
"""The memory has 131072 bytes."""
TAME = {Kind.BYTES: (1024, 3), Kind.PAIRS: (1024, 0), Kind.IOVECS: (2048, 1)}
ROWS = [
    row
    for row in (*HOSTCALLS, *WASI)
    if row.since <= AbiVersion.V0_2_1 <= row.until and row.name not in ("proxy_done", "proc_exit")
]


def tame(row: Hostcall) -> list[int]:
    """Numbers that are good."""
    values: list[int] = []
    for param in row.params:
        if param.is_range:
            values += TAME[param.kind]
        elif param.kind.is_result:
            values += [512 + 8 * (len(values) + n) for n in range(len(param.kind.types))]
        else:
            values += [0] * len(param.kind.types)
    return values


def calls(row: Hostcall) -> str:
    """The calls, each with one number that is wild, and one with all of them so."""
    given = [tame(row)]
    for at in range(len(row.types)):
        given += [[*given[0][:at], wild, *given[0][at + 1 :]] for wild in WILD]
    given += [[wild] * len(row.types) for wild in WILD]
    texts = []
    for values in given:
        numbers = " ".join(f"({kind}.const {value})" for kind, value in zip(row.types, values, strict=True))
        call = f"(call $h {numbers})"
        texts.append(f"(drop {call})" if row.returns else call)
    return "\n".join(texts)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_wild_numbers(row: Hostcall, guest: Run) -> None:
    module = "wasi_snapshot_preview1" if row in WASI else "env"
    type = f"(param {' '.join(row.types)}) " + (f"(result {row.returns})" if row.returns else "")
    assert guest(
        calls(row),
        imports=f'(import "{module}" "{row.name}" (func $h {type}))',
        more='(data (i32.const 1024) "abc") (data (i32.const 2048) "\\00\\04\\00\\00\\03\\00\\00\\00")',
    ) == ""  # fmt: skip


CALL = 'http_call up :method=GET&:path=/&:authority=a "" "" 0'
SCRIPTS = {
    "a local response in each phase, twice": "\n".join(
        f"@on_{phase}\nsend_local_response 403 a b c=d -1\nsend_local_response 0 a b c=d 99"
        for phase in (
            *("request_headers", "request_body", "request_trailers", "response_headers", "response_body"),
            *("response_trailers", "done", "log", "delete", "tick", "http_call_response"),
        )
    ),
    "a local response at the end": "@on_response_body\nsend_local_response 503 a b \"\" -1\n@on_log\nsend_local_response 1 a b \"\" 0",
    "resumed twice, and closed": "@on_request_headers\ncontinue_stream 0\ncontinue_stream 0\ncontinue_stream 1\nclose_stream 1\ncontinue_stream 9",
    "done where it is not asked": "@on_request_headers\nrepeat 20\ndone\n@on_done\ndone\nreturn 0\n@on_log\ndone\n@on_delete\ndone",
    "never done": "@on_done\nreturn 0",
    "contexts of others": "@on_request_headers\n"
    + "\n".join(f"set_effective_context {n}\nget_header_map_pairs 0" for n in (0, 1, 2, 3, 99, 0xFFFFFFFF)),
    "tokens that are not": "@on_request_headers\n"
    + "\n".join(
        f"grpc_send {n} x 1\ngrpc_close {n}\ngrpc_cancel {n}\ndequeue_shared_queue {n}\nenqueue_shared_queue {n} x"
        for n in (0, 1, 2, 3, 4, 77, 0xFFFFFFFF)
    ),
    "actions that are not": "\n".join(f"@on_{name}\nreturn {n}" for name, n in (("request_headers", 77), ("request_body", -1))),
    "pauses for ever": "@on_request_headers\nreturn 1",
    "names with everything": "@on_request_headers\n"
    + "\n".join(
        f"add_header_map_value 0 {key} {value}"
        for key, value in (("a%00b", "c"), ("a%0d%0ab", "c%0d%0ad"), ('""', '""'), ("%ff%fe", "%ff"), (":path", "%20"), (":nope", "x"))
    ),
    "every header away": "@on_request_headers\nset_header_map_pairs 0 pairs:\n@on_response_headers\nset_header_map_pairs 2 pairs:",
    "malformed pairs": "@on_request_headers\n"
    + "\n".join(f"set_header_map_pairs 0 raw:{raw}" for raw in ("%01", "%01%00%00%00", "%ff%ff%ff%ff", "%01%00%00%00%ff%ff%ff%7f%00%00%00%00a")),
    "metrics of all kinds": "@on_request_headers\n" + "\n".join(f"define_metric {n} m{n}\nrecord_metric $token -1\nincrement_metric $token -9223372036854775808\nget_metric $token" for n in range(4)),
    "ticks of nothing": "@on_request_headers\n" + "\n".join(f"set_tick_period_milliseconds {n}" for n in (0, 1, 0xFFFFFFFF)),
    "a queue that feeds itself": "@on_configure\nregister_shared_queue q\nenqueue_shared_queue $token a\n@on_queue_ready\nenqueue_shared_queue $1 a\nenqueue_shared_queue 1 a",
    "callouts again and again": '@on_configure\nhttp_call up :method=GET&:path=/&:authority=a "" "" 0\n@on_http_call_response\nhttp_call up :method=GET&:path=/&:authority=a "" "" 0',
    "proc_exit": "@on_configure\nproc_exit 1\n@on_request_headers\nproc_exit 0\n@on_log\nproc_exit 3",
    "closed at every time": "\n".join(
        f"@on_{phase}\nclose_stream 0\nclose_stream 1\nclose_stream 2\nclose_stream 3"
        for phase in ("request_headers", "request_body", "response_headers", "response_body", "done", "log", "delete")
    ),
    "done later for a stream, twice": "@on_configure\nset_tick_period_milliseconds 5\n@on_done\nreturn 0\n@on_tick\nset_effective_context $stream\ndone\ndone",
    "a reply that asks again, twice": f"@on_request_headers\nrepeat 20\n{CALL}\n@on_http_call_response\n{CALL}\n{CALL}",
    "a response of another context": '@on_request_headers\nset_effective_context $root\nsend_local_response 200 a b "" -1\nset_effective_context 0\nget_header_map_pairs 0\nset_effective_context $ctx\nreturn 1',
    "queues of others": "@on_request_headers\nregister_shared_queue q\nrepeat 300\nenqueue_shared_queue $token fill:x:60000\nrepeat 20\ndequeue_shared_queue $token\nresolve_shared_queue good q",
    "WASI with nothing behind it": "@on_request_headers\nfd_write 3 x\nfd_write -1 x\nfd_write 1 fill:%ff:100000\nrandom_get at:0:0xffffffff\npath_open\npoll_oneoff\nfd_read 0\nfd_close 1\nfd_seek 1\nclock_time_get 99\nclock_res_get -1\nargs_get\nenviron_get",
    "as much memory as there is": "@on_request_headers\nrepeat 400\ngrow 1",
}  # fmt: skip


@pytest.mark.parametrize("name", SCRIPTS)
def test_what_is_out_of_place(name: str, probe: Run) -> None:
    assert probe(SCRIPTS[name]) == ""


@pytest.mark.parametrize(
    ("memory", "reason"),
    [
        (f'(memory (export "memory") {(MEMORY >> 16) + 1})', "memory"),
        ('(memory (export "memory") 2) (table 20000000 funcref)', "table"),
        ('(memory (export "memory") 2) (memory 250)', "memor"),
        ("", "memory"),
    ],
    ids=["more than is allowed", "a large table", "two", "none"],
)
def test_memories_and_tables(memory: str, reason: str, guest: Run) -> None:
    assert reason in guest("", memory=memory)
