"""Hostcalls through marshaller and runtime, many of one kind in one callback."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks.headers import REQUEST
from benchmarks.timing import InProcess
from benchmarks.workloads.wat import NUMBER, Wat
from benchmarks.workloads.workload import Silent, Workload
from proxywasm_host import Host, Services
from proxywasm_host.abi.types import BufferType, LogLevel, MapType, MetricType
from proxywasm_host.runtime.effects import RequestBody, RequestHeaders
from proxywasm_host.services.shared import open_shared, with_shared
from tests.redis_server import Server

TIMES = 200
MAP = MapType.REQUEST_HEADERS
BODY = b"x" * 100

Call = tuple[Any, ...]
"""The name of a hostcall, and its inputs."""

METRIC = f"(i32.load (i32.const {NUMBER}))"  # the number that the definition has written there


@dataclass(frozen=True)
class Kind:
    """The hostcalls that the filter repeats, and those that it makes once, when it is configured."""

    again: Sequence[Call]
    once: Sequence[Call] = ()
    callback: str = "proxy_on_request_headers"
    shared: str = "memory"


def _shared(shared: str) -> dict[str, Kind]:
    """Kinds for shared data and a counter that are outside of this process."""
    where = {"processes": "between processes", "redis": "in Redis"}[shared]
    return {
        f"{name}, {where}": replace(KINDS[name], shared=shared)
        for name in ("read shared data", "write shared data", "increment a counter")
    }


KINDS: dict[str, Kind] = {
    "read a header": Kind([("proxy_get_header_map_value", MAP, b"user-agent")]),
    "replace a header": Kind([("proxy_replace_header_map_value", MAP, b"user-agent", b"curl/9")]),
    "add or remove a header": Kind(
        [("proxy_add_header_map_value", MAP, b"x-wasm", b"hello"), ("proxy_remove_header_map_value", MAP, b"x-wasm")]
    ),
    "read all 5 headers": Kind([("proxy_get_header_map_pairs", MAP)]),
    "size of a header map": Kind([("proxy_get_header_map_size", MAP)]),
    "read 100 bytes of a body": Kind(
        [("proxy_get_buffer_bytes", BufferType.HTTP_REQUEST_BODY, 0, len(BODY))], callback="proxy_on_request_body"
    ),
    "read a property": Kind([("proxy_get_property", b"request\0path")]),
    "set a property": Kind([("proxy_set_property", b"filter\0state", b"value")]),
    "log a line": Kind([("proxy_log", LogLevel.INFO, b"a line of some forty characters, as it happens")]),
    "log level": Kind([("proxy_get_log_level",)]),
    "time": Kind([("proxy_get_current_time_nanoseconds",)]),
    "read shared data": Kind(
        [("proxy_get_shared_data", b"key")], once=[("proxy_set_shared_data", b"key", b"value", 0)]
    ),
    "write shared data": Kind([("proxy_set_shared_data", b"key", b"value", 0)]),
    "increment a counter": Kind(
        [("proxy_increment_metric", METRIC, 1)], once=[("proxy_define_metric", MetricType.COUNTER, b"requests")]
    ),
}

KINDS |= _shared("processes") | _shared("redis")


@contextmanager
def services(shared: str) -> Iterator[Services]:
    """Empty services, shared in this way."""
    with ExitStack() as stack:
        directory = Path(stack.enter_context(TemporaryDirectory(prefix="proxywasm-")))
        if shared == "redis":
            server = Server(directory)
            stack.callback(server.stop)
            shared = f"{server.url}?timeout=5"
        opened = open_shared(f"processes:bench-{directory.name}" if shared == "processes" else shared)
        stack.callback(opened.close)
        yield with_shared(Services(log=Silent()), opened)


@contextmanager
def hostcall(engine: str, kind: Kind) -> Iterator[InProcess]:
    wat = Wat()
    wat.callback("proxy_on_configure", *(wat.call(*call) for call in kind.once), returns=1)
    wat.callback(kind.callback, *(wat.call(*call) for call in kind.again), times=TIMES // len(kind.again))
    with services(kind.shared) as given, Host(engine, services=given) as host:
        plugins = [host.load_plugin(wat.module(), name="hostcall")]

        def request() -> list[object]:
            stream = host.http_stream(plugins)
            effects = [*stream.request_headers(REQUEST, False), *stream.request_body(BODY, True)]
            stream.close()
            return effects

        headers, body = request()
        assert isinstance(headers, RequestHeaders), headers
        assert isinstance(body, RequestBody), body
        yield InProcess(request, TIMES)


WORKLOADS = tuple(
    Workload("hostcall", name, " and ".join(f"`{call[0]}`" for call in kind.again), partial(hostcall, kind=kind))
    for name, kind in KINDS.items()
)
