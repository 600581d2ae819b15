"""The ABI as data: one row for each hostcall and each callback, with the versions that have it.

All code that needs the shape of a hostcall reads it here: linking, marshalling, tracing, capability restriction,
``proxywasm inspect``, the tests and the reference in the docs. A row does not describe the effect of a hostcall: see
the handler of the same name in `proxywasm_host.abi.hostcalls`.

Parameters are in the order of the WebAssembly signature and include results, because the ABI returns results through
pointers. A range of bytes is two i32 (address, size); a result of bytes is two i32 (where to write the address, where
to write the size). The result of the function itself is the status.

Source: Proxy-Wasm specification 0.1.0, 0.2.0, 0.2.1; where its text is silent, Envoy's host (``exports.h``).
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum, IntEnum
from functools import cache
from typing import Final, NamedTuple

from proxywasm_host.abi.pairs import MAX_SIZE
from proxywasm_host.abi.types import (
    AbiVersion,
    Action,
    BufferType,
    DataAction,
    HeadersAction,
    LogLevel,
    MapType,
    MetricType,
    Status,
    StreamType,
    WasiErrno,
)

__all__ = [
    "CALLBACKS",
    "HOSTCALLS",
    "WASI",
    "WASI_MODULES",
    "Callback",
    "Hostcall",
    "Kind",
    "Param",
    "callbacks_of",
    "hostcalls_of",
]

V0_1_0, V0_2_0, V0_2_1, V0_2_100 = AbiVersion

NAME: Final = 64 << 10
"""Most bytes of a name, a key or a path. No deadline ends a hostcall, so limits on its inputs must bound its cost."""
LINE: Final = 256 << 10
"""Most bytes that are logged at once."""
TEXT: Final = 4 << 20
"""Most bytes of a value in a map; the map may accept fewer."""
DATA: Final = 16 << 20
"""Most bytes of a message, an argument, or a shared value."""
BODY: Final = 64 << 20
"""Most bytes of a body, which is copied but not parsed."""


class Kind(Enum):
    """The meaning of a parameter."""

    U32 = "u32"
    I32 = "i32"
    U64 = "u64"
    I64 = "i64"
    BYTES = "bytes"
    PAIRS = "pairs"
    IOVECS = "iovecs"
    """WASI: a table of ranges, gathered into one value."""
    U32_OUT = "u32 out"
    U64_OUT = "u64 out"
    BYTES_OUT = "bytes out"
    """Bytes in memory of the guest's allocator."""
    PAIRS_OUT = "pairs out"
    BYTES_AT = "bytes at"
    """WASI: bytes written to the address in the parameter."""
    STRINGS_AT = "strings at"
    """WASI: strings written one after the other at the second address, and their addresses at the first."""

    @property
    def types(self) -> tuple[str, ...]:
        """Its WebAssembly types."""
        if self in (Kind.U64, Kind.I64):
            return ("i64",)
        return ("i32", "i32") if self in TWO_SLOTS else ("i32",)

    @property
    def is_result(self) -> bool:
        """Whether the host writes it."""
        return self in RESULTS


TWO_SLOTS: Final = frozenset({Kind.BYTES, Kind.PAIRS, Kind.IOVECS, Kind.BYTES_OUT, Kind.PAIRS_OUT, Kind.STRINGS_AT})
RESULTS: Final = frozenset({Kind.U32_OUT, Kind.U64_OUT, Kind.BYTES_OUT, Kind.PAIRS_OUT, Kind.BYTES_AT, Kind.STRINGS_AT})


class Param(NamedTuple):
    """One parameter of a hostcall.

    `enum`: the values of a number. For a greater number the hostcall answers BAD_ARGUMENT before it reads any input.
    `early`: the result's slot is set to 0, which checks its address, before the handler is called.
    `optional`: an address of 0 means that the guest does not want the result.
    `most`: bytes that the guest may pass, or 0 for no limit. More are BAD_ARGUMENT; with `cut`, only the first `most`
    bytes are read; longer pairs are malformed.
    """

    name: str
    kind: Kind
    enum: type[IntEnum] | None = None
    early: bool = False
    optional: bool = False
    most: int = 0
    cut: bool = False

    @property
    def is_range(self) -> bool:
        """Whether it is a range of bytes that the guest passes."""
        return self.kind in (Kind.BYTES, Kind.PAIRS, Kind.IOVECS)


class Hostcall(NamedTuple):
    """One function that a module may import."""

    name: str
    params: tuple[Param, ...]
    since: AbiVersion = V0_1_0
    until: AbiVersion = V0_2_100
    returns: str | None = "i32"
    memory_error: int = Status.INVALID_MEMORY_ACCESS
    """Its answer to a bad address."""
    restricted: int = Status.INTERNAL_FAILURE
    """Its answer if the capability is not allowed."""

    @property
    def types(self) -> tuple[str, ...]:
        """WebAssembly types of its parameters."""
        return tuple(t for param in self.params for t in param.kind.types)

    @property
    def inputs(self) -> tuple[Param, ...]:
        """Parameters that a handler takes."""
        return tuple(param for param in self.params if not param.kind.is_result)

    @property
    def outputs(self) -> tuple[Param, ...]:
        """Results that a handler returns."""
        return tuple(param for param in self.params if param.kind.is_result)


class Callback(NamedTuple):
    """One function that a module may export for the host to call. All parameters and results are i32."""

    name: str
    params: tuple[str, ...]
    result: type[IntEnum | bool] | None = None
    since: AbiVersion = V0_1_0
    until: AbiVersion = V0_2_100

    @property
    def key(self) -> str:
        """`name` without ``proxy_``, as the host's code uses it."""
        return self.name.removeprefix("proxy_")


def u32(name: str, enum: type[IntEnum] | None = None) -> Param:
    """An unsigned number of 32 bits; with `enum`, traces show the name of the member."""
    return Param(name, Kind.U32, enum)


def i32(name: str) -> Param:
    """A signed number of 32 bits."""
    return Param(name, Kind.I32)


def i64(name: str) -> Param:
    """A signed number of 64 bits."""
    return Param(name, Kind.I64)


def u64(name: str) -> Param:
    """An unsigned number of 64 bits."""
    return Param(name, Kind.U64)


def name(of: str) -> Param:
    """Bytes of a name: at most `NAME` of them."""
    return Param(of, Kind.BYTES, most=NAME)


def text(name: str) -> Param:
    """Bytes of a value in a map: at most `TEXT` of them."""
    return Param(name, Kind.BYTES, most=TEXT)


def data(name: str) -> Param:
    """Bytes of a message or an argument: at most `DATA` of them."""
    return Param(name, Kind.BYTES, most=DATA)


def body(name: str) -> Param:
    """Bytes of a body: at most `BODY` of them."""
    return Param(name, Kind.BYTES, most=BODY)


def pairs(name: str) -> Param:
    """Header pairs that the guest passes, in the serialised form of the ABI."""
    return Param(name, Kind.PAIRS, most=MAX_SIZE)


def lines(name: str) -> Param:
    """Lines to log, cut off after `LINE` bytes."""
    return Param(name, Kind.BYTES, most=LINE, cut=True)


def iovecs(name: str) -> Param:
    """The input of WASI's ``fd_write``: addresses and lengths, cut off at `LINE` bytes."""
    return Param(name, Kind.IOVECS, most=LINE, cut=True)


def u32_out(name: str, *, early: bool = False) -> Param:
    """A number of 32 bits that the handler returns, written to the guest's address."""
    return Param(name, Kind.U32_OUT, early=early)


def u64_out(name: str) -> Param:
    """A number of 64 bits that the handler returns, written to the guest's address."""
    return Param(name, Kind.U64_OUT)


def data_out(name: str, *, optional: bool = False) -> Param:
    """Bytes that the handler returns, in memory of the guest's allocator; their address and length are written."""
    return Param(name, Kind.BYTES_OUT, optional=optional)


def pairs_out(name: str) -> Param:
    """Header pairs that the handler returns, in the serialised form of the ABI; otherwise as `data_out`."""
    return Param(name, Kind.PAIRS_OUT)


def at(name: str) -> Param:
    return Param(name, Kind.BYTES_AT)


MAP: Final = u32("map", MapType)
BUFFER: Final = u32("buffer", BufferType)


def row(
    name: str,
    *params: Param,
    since: AbiVersion = V0_1_0,
    until: AbiVersion = V0_2_100,
    returns: str | None = "i32",
) -> Hostcall:
    return Hostcall(name, params, since, until, returns)


def wasi(name: str, *params: Param, returns: str | None = "i32") -> Hostcall:
    return Hostcall(name, params, returns=returns, memory_error=WasiErrno.FAULT, restricted=WasiErrno.NOTCAPABLE)


HOSTCALLS: Final = (
    # Logging, time, status.
    row("proxy_log", u32("level", LogLevel), lines("message")),
    row("proxy_get_log_level", u32_out("level"), since=V0_2_1),
    row("proxy_get_current_time_nanoseconds", u64_out("time")),
    row("proxy_get_status", u32_out("code"), data_out("message")),
    row("proxy_set_tick_period_milliseconds", u32("period")),
    # Header maps.
    row("proxy_get_header_map_value", MAP, name("key"), data_out("value")),
    row("proxy_add_header_map_value", MAP, name("key"), text("value")),
    row("proxy_replace_header_map_value", MAP, name("key"), text("value")),
    row("proxy_remove_header_map_value", MAP, name("key")),
    row("proxy_get_header_map_pairs", MAP, pairs_out("pairs")),
    row("proxy_set_header_map_pairs", MAP, pairs("pairs")),
    row("proxy_get_header_map_size", MAP, u32_out("size")),
    # Buffers and configuration.
    row("proxy_get_buffer_bytes", BUFFER, u32("start"), u32("length"), data_out("data")),
    row("proxy_set_buffer_bytes", BUFFER, u32("start"), u32("length"), body("data")),
    row("proxy_get_buffer_status", BUFFER, u32_out("length"), u32_out("flags")),
    row("proxy_get_configuration", data_out("data"), until=V0_1_0),
    # Properties.
    row("proxy_get_property", name("path"), data_out("value")),
    row("proxy_set_property", name("path"), text("value")),
    # The stream.
    row(
        "proxy_send_local_response",
        u32("status"),
        name("details"),
        body("body"),
        pairs("headers"),
        i32("grpc_status"),
    ),
    row("proxy_continue_stream", u32("stream", StreamType), since=V0_2_0),
    row("proxy_close_stream", u32("stream", StreamType), since=V0_2_0),
    row("proxy_continue_request", until=V0_1_0),
    row("proxy_continue_response", until=V0_1_0),
    row("proxy_clear_route_cache", until=V0_1_0),
    row("proxy_set_effective_context", u32("context")),
    row("proxy_done"),
    # Shared data and queues.
    row("proxy_get_shared_data", name("key"), data_out("value"), u32_out("cas")),
    row("proxy_set_shared_data", name("key"), data("value"), u32("cas")),
    row("proxy_register_shared_queue", name("name"), u32_out("token")),
    row("proxy_resolve_shared_queue", name("vm_id"), name("name"), u32_out("token")),
    row("proxy_dequeue_shared_queue", u32("token"), data_out("data")),
    row("proxy_enqueue_shared_queue", u32("token"), data("data")),
    # Metrics.
    row("proxy_define_metric", u32("type", MetricType), name("name"), u32_out("metric")),
    row("proxy_increment_metric", u32("metric"), i64("offset")),
    row("proxy_record_metric", u32("metric"), u64("value")),
    row("proxy_get_metric", u32("metric"), u64_out("value")),
    # Callouts.
    row(
        "proxy_http_call",
        name("cluster"),
        pairs("headers"),
        body("body"),
        pairs("trailers"),
        i32("timeout"),
        u32_out("token", early=True),
    ),
    row(
        "proxy_grpc_call",
        name("cluster"),
        name("service"),
        name("method"),
        pairs("initial_metadata"),
        data("message"),
        u32("timeout"),
        u32_out("token"),
    ),
    row(
        "proxy_grpc_stream",
        name("cluster"),
        name("service"),
        name("method"),
        pairs("initial_metadata"),
        u32_out("token"),
    ),
    row("proxy_grpc_send", u32("token"), data("message"), u32("end_stream")),
    row("proxy_grpc_close", u32("token")),
    row("proxy_grpc_cancel", u32("token")),
    # Foreign functions.
    row("proxy_call_foreign_function", name("name"), data("arguments"), data_out("results", optional=True)),
    # Higress.
    row("proxy_redis_init", name("cluster"), name("username"), name("password"), u32("timeout"), since=V0_2_100),
    row("proxy_redis_call", name("cluster"), data("query"), u32_out("token"), since=V0_2_100),
    row("proxy_inject_encoded_data_to_filter_chain", body("data"), u32("end_stream"), since=V0_2_100),
    row("proxy_get_upstream_hosts", pairs_out("hosts"), since=V0_2_100),
    row("proxy_set_upstream_override_host", name("address"), since=V0_2_100),
    # Functions that some compilers import from the same module.
    row("emscripten_notify_memory_growth", u32("memory"), returns=None),
    row("pthread_equal", u32("left"), u32("right")),
)

WASI_MODULES: Final = ("wasi_snapshot_preview1", "wasi_unstable")

WASI: Final = (
    wasi("fd_write", u32("fd"), iovecs("data"), u32_out("written")),
    wasi("fd_pwrite", u32("fd"), iovecs("data"), u64("offset"), u32_out("written")),
    wasi("fd_read", u32("fd"), u32("iovecs"), u32("iovecs_length"), u32("read")),
    wasi("fd_pread", u32("fd"), u32("iovecs"), u32("iovecs_length"), u64("offset"), u32("read")),
    wasi("fd_seek", u32("fd"), u64("offset"), u32("whence"), u32("new_offset")),
    wasi("fd_close", u32("fd")),
    wasi("fd_fdstat_get", u32("fd"), at("stat")),
    wasi("fd_fdstat_set_flags", u32("fd"), u32("flags")),
    wasi("fd_fdstat_set_rights", u32("fd"), u64("base"), u64("inheriting")),
    wasi("fd_prestat_get", u32("fd"), u32("prestat")),
    wasi("fd_prestat_dir_name", u32("fd"), u32("path"), u32("path_length")),
    wasi("fd_filestat_get", u32("fd"), u32("stat")),
    wasi("fd_filestat_set_size", u32("fd"), u64("size")),
    wasi("fd_filestat_set_times", u32("fd"), u64("accessed"), u64("modified"), u32("flags")),
    wasi("fd_tell", u32("fd"), u64_out("offset")),
    wasi("fd_advise", u32("fd"), u64("offset"), u64("length"), u32("advice")),
    wasi("fd_allocate", u32("fd"), u64("offset"), u64("length")),
    wasi("fd_datasync", u32("fd")),
    wasi("fd_sync", u32("fd")),
    wasi("fd_readdir", u32("fd"), u32("buffer"), u32("buffer_length"), u64("cookie"), u32_out("used", early=True)),
    wasi("fd_renumber", u32("fd"), u32("to")),
    wasi(
        "path_open",
        *map(u32, ("fd", "dirflags", "path", "path_length", "oflags")),
        u64("rights"),
        u64("inheriting"),
        u32("fdflags"),
        u32("opened"),
    ),
    wasi("path_create_directory", *map(u32, ("fd", "path", "path_length"))),
    wasi("path_filestat_get", *map(u32, ("fd", "flags", "path", "path_length", "stat"))),
    wasi(
        "path_filestat_set_times",
        *map(u32, ("fd", "flags", "path", "path_length")),
        u64("accessed"),
        u64("modified"),
        u32("fst_flags"),
    ),
    wasi("path_link", *map(u32, ("old_fd", "flags", "old_path", "old_length", "new_fd", "new_path", "new_length"))),
    wasi("path_readlink", *map(u32, ("fd", "path", "path_length", "buffer", "buffer_length", "used"))),
    wasi("path_remove_directory", *map(u32, ("fd", "path", "path_length"))),
    wasi("path_rename", *map(u32, ("old_fd", "old_path", "old_length", "new_fd", "new_path", "new_length"))),
    wasi("path_symlink", *map(u32, ("old_path", "old_length", "fd", "new_path", "new_length"))),
    wasi("path_unlink_file", *map(u32, ("fd", "path", "path_length"))),
    wasi("sock_accept", *map(u32, ("fd", "flags", "accepted"))),
    wasi("sock_recv", *map(u32, ("fd", "data", "data_length", "flags", "received", "out_flags"))),
    wasi("sock_send", *map(u32, ("fd", "data", "data_length", "flags", "sent"))),
    wasi("sock_shutdown", u32("fd"), u32("how")),
    wasi("poll_oneoff", u32("subscriptions"), u32("events"), u32("count"), u32_out("nevents")),
    wasi("sched_yield"),
    wasi("proc_exit", u32("code"), returns=None),
    wasi("environ_get", Param("variables", Kind.STRINGS_AT)),
    wasi("environ_sizes_get", u32_out("count"), u32_out("size")),
    wasi("args_get", Param("arguments", Kind.STRINGS_AT)),
    wasi("args_sizes_get", u32_out("count"), u32_out("size")),
    wasi("clock_time_get", u32("clock"), u64("precision"), u64_out("time")),
    wasi("clock_res_get", u32("clock"), u64_out("resolution")),
    wasi("random_get", at("buffer"), u32("length")),
)


def cb(
    name: str,
    *params: str,
    result: type[IntEnum | bool] | None = None,
    since: AbiVersion = V0_1_0,
    until: AbiVersion = V0_2_100,
) -> Callback:
    return Callback("proxy_" + name, params, result, since, until)


CALLBACKS: Final = (
    # The plugin and its contexts.
    cb("on_context_create", "context", "parent"),
    cb("on_vm_start", "context", "vm_configuration_size", result=bool),
    cb("validate_configuration", "context", "configuration_size", result=bool),
    cb("on_configure", "context", "configuration_size", result=bool),
    cb("on_tick", "context"),
    cb("on_queue_ready", "context", "token"),
    cb("on_foreign_function", "context", "function", "arguments_size", since=V0_2_0),
    cb("on_done", "context", result=bool),
    cb("on_log", "context"),
    cb("on_delete", "context"),
    # HTTP streams.
    cb("on_request_headers", "context", "headers", result=HeadersAction, until=V0_1_0),
    cb("on_request_headers", "context", "headers", "end_of_stream", result=HeadersAction, since=V0_2_0),
    cb("on_request_body", "context", "size", "end_of_stream", result=DataAction),
    cb("on_request_trailers", "context", "trailers", result=Action),
    cb("on_request_metadata", "context", "elements", result=Action),
    cb("on_response_headers", "context", "headers", result=HeadersAction, until=V0_1_0),
    cb("on_response_headers", "context", "headers", "end_of_stream", result=HeadersAction, since=V0_2_0),
    cb("on_response_body", "context", "size", "end_of_stream", result=DataAction),
    cb("on_response_trailers", "context", "trailers", result=Action),
    cb("on_response_metadata", "context", "elements", result=Action),
    # TCP streams.
    cb("on_new_connection", "context", result=Action),
    cb("on_downstream_data", "context", "size", "end_of_stream", result=Action),
    cb("on_upstream_data", "context", "size", "end_of_stream", result=Action),
    cb("on_downstream_connection_close", "context", "peer"),
    cb("on_upstream_connection_close", "context", "peer"),
    # Callouts.
    cb("on_http_call_response", "context", "token", "headers", "body_size", "trailers"),
    cb("on_grpc_receive_initial_metadata", "context", "token", "elements"),
    cb("on_grpc_receive", "context", "token", "size"),
    cb("on_grpc_receive_trailing_metadata", "context", "token", "elements"),
    cb("on_grpc_close", "context", "token", "status"),
    cb("on_redis_call_response", "context", "token", "status", "size", since=V0_2_100),
)
"""Every callback. Parameters whose names end in ``end_of_stream`` are booleans; ``peer`` is a `PeerType`."""


@cache
def hostcalls_of(version: AbiVersion) -> Mapping[str, Hostcall]:
    """The rows of the ``env`` module that a module of this version may import, by name."""
    return {row.name: row for row in HOSTCALLS if row.since <= version <= row.until}


def callbacks_of(version: AbiVersion) -> dict[str, Callback]:
    """The rows of the callbacks that a module of this version may export, by name."""
    return {row.name: row for row in CALLBACKS if row.since <= version <= row.until}
