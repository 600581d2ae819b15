"""The table of the ABI against the specifications, which stand here as data, and against what real filters import.

``i`` is i32, ``I`` is i64; what a function returns stands behind the colon.
"""

from __future__ import annotations

import pytest

from proxywasm_host.abi.bytecode import Bytecode
from proxywasm_host.abi.hostcalls import HANDLERS, WASI_HANDLERS
from proxywasm_host.abi.marshal import highest
from proxywasm_host.abi.table import (
    CALLBACKS,
    HOSTCALLS,
    WASI,
    WASI_MODULES,
    Kind,
    callbacks_of,
    hostcalls_of,
)
from proxywasm_host.abi.types import AbiVersion, BufferType, MapType, Status, WasiErrno
from tests.abi.test_bytecode import NAMES, by_engine
from tests.support import code

V0_1_0, V0_2_0, V0_2_1, V0_2_100 = AbiVersion

ALL_VERSIONS = """
proxy_log iii:i
proxy_get_current_time_nanoseconds i:i
proxy_get_status iii:i
proxy_set_tick_period_milliseconds i:i
proxy_get_header_map_value iiiii:i
proxy_add_header_map_value iiiii:i
proxy_replace_header_map_value iiiii:i
proxy_remove_header_map_value iii:i
proxy_get_header_map_pairs iii:i
proxy_set_header_map_pairs iii:i
proxy_get_header_map_size ii:i
proxy_get_buffer_bytes iiiii:i
proxy_set_buffer_bytes iiiii:i
proxy_get_buffer_status iii:i
proxy_get_property iiii:i
proxy_set_property iiii:i
proxy_send_local_response iiiiiiii:i
proxy_set_effective_context i:i
proxy_done :i
proxy_get_shared_data iiiii:i
proxy_set_shared_data iiiii:i
proxy_register_shared_queue iii:i
proxy_resolve_shared_queue iiiii:i
proxy_dequeue_shared_queue iii:i
proxy_enqueue_shared_queue iii:i
proxy_define_metric iiii:i
proxy_increment_metric iI:i
proxy_record_metric iI:i
proxy_get_metric ii:i
proxy_http_call iiiiiiiiii:i
proxy_grpc_call iiiiiiiiiiii:i
proxy_grpc_stream iiiiiiiii:i
proxy_grpc_send iiii:i
proxy_grpc_close i:i
proxy_grpc_cancel i:i
proxy_call_foreign_function iiiiii:i
emscripten_notify_memory_growth i:
pthread_equal ii:i
"""
IMPORTS = {
    V0_1_0: ALL_VERSIONS
    + """
    proxy_get_configuration ii:i
    proxy_continue_request :i
    proxy_continue_response :i
    proxy_clear_route_cache :i
    """,
    V0_2_0: ALL_VERSIONS
    + """
    proxy_continue_stream i:i
    proxy_close_stream i:i
    """,
    V0_2_1: ALL_VERSIONS
    + """
    proxy_continue_stream i:i
    proxy_close_stream i:i
    proxy_get_log_level i:i
    """,
    V0_2_100: ALL_VERSIONS
    + """
    proxy_continue_stream i:i
    proxy_close_stream i:i
    proxy_get_log_level i:i
    proxy_redis_init iiiiiii:i
    proxy_redis_call iiiii:i
    proxy_inject_encoded_data_to_filter_chain iii:i
    proxy_get_upstream_hosts ii:i
    proxy_set_upstream_override_host ii:i
    """,
}

WASI_IMPORTS = """
args_get ii:i
args_sizes_get ii:i
environ_get ii:i
environ_sizes_get ii:i
clock_res_get ii:i
clock_time_get iIi:i
fd_advise iIIi:i
fd_allocate iII:i
fd_close i:i
fd_datasync i:i
fd_fdstat_get ii:i
fd_fdstat_set_flags ii:i
fd_fdstat_set_rights iII:i
fd_filestat_get ii:i
fd_filestat_set_size iI:i
fd_filestat_set_times iIIi:i
fd_pread iiiIi:i
fd_prestat_get ii:i
fd_prestat_dir_name iii:i
fd_pwrite iiiIi:i
fd_read iiii:i
fd_readdir iiiIi:i
fd_renumber ii:i
fd_seek iIii:i
fd_sync i:i
fd_tell ii:i
fd_write iiii:i
path_create_directory iii:i
path_filestat_get iiiii:i
path_filestat_set_times iiiiIIi:i
path_link iiiiiii:i
path_open iiiiiIIii:i
path_readlink iiiiii:i
path_remove_directory iii:i
path_rename iiiiii:i
path_symlink iiiii:i
path_unlink_file iii:i
poll_oneoff iiii:i
proc_exit i:
random_get ii:i
sched_yield :i
sock_accept iii:i
sock_recv iiiiii:i
sock_send iiiii:i
sock_shutdown ii:i
"""

CALLBACKS_OF_ALL = """
proxy_on_context_create ii:
proxy_on_vm_start ii:i
proxy_validate_configuration ii:i
proxy_on_configure ii:i
proxy_on_tick i:
proxy_on_queue_ready ii:
proxy_on_done i:i
proxy_on_log i:
proxy_on_delete i:
proxy_on_request_body iii:i
proxy_on_request_trailers ii:i
proxy_on_request_metadata ii:i
proxy_on_response_body iii:i
proxy_on_response_trailers ii:i
proxy_on_response_metadata ii:i
proxy_on_new_connection i:i
proxy_on_downstream_data iii:i
proxy_on_upstream_data iii:i
proxy_on_downstream_connection_close ii:
proxy_on_upstream_connection_close ii:
proxy_on_http_call_response iiiii:
proxy_on_grpc_receive_initial_metadata iii:
proxy_on_grpc_receive iii:
proxy_on_grpc_receive_trailing_metadata iii:
proxy_on_grpc_close iii:
"""
SINCE_0_2_0 = """
proxy_on_foreign_function iii:
proxy_on_request_headers iii:i
proxy_on_response_headers iii:i
"""
EXPORTS = {
    V0_1_0: CALLBACKS_OF_ALL + "proxy_on_request_headers ii:i\nproxy_on_response_headers ii:i",
    V0_2_0: CALLBACKS_OF_ALL + SINCE_0_2_0,
    V0_2_1: CALLBACKS_OF_ALL + SINCE_0_2_0,
    V0_2_100: CALLBACKS_OF_ALL + SINCE_0_2_0 + "proxy_on_redis_call_response iiii:",
}


def signatures(text: str) -> dict[str, str]:
    return dict(line.split(" ") for line in map(str.strip, text.splitlines()) if line)


def short(params, results) -> str:
    letters = {"i32": "i", "i64": "I"}
    return f"{''.join(letters[t] for t in params)}:{''.join(letters[t] for t in results)}"


def signature_of(row) -> str:
    return short(row.types, (row.returns,) if row.returns else ())


@pytest.mark.parametrize("version", AbiVersion, ids=str)
def test_imports(version):
    rows = hostcalls_of(version)
    assert {name: signature_of(row) for name, row in rows.items()} == signatures(IMPORTS[version])


def test_wasi_imports():
    assert {row.name: signature_of(row) for row in WASI} == signatures(WASI_IMPORTS)


@pytest.mark.parametrize("version", AbiVersion, ids=str)
def test_exports(version):
    rows = callbacks_of(version)
    found = {name: f"{'i' * len(row.params)}:{'i' if row.result else ''}" for name, row in rows.items()}
    assert found == signatures(EXPORTS[version])


@pytest.mark.parametrize("version", AbiVersion, ids=str)
def test_no_name_twice_in_one_version(version):
    for rows in (HOSTCALLS, WASI, CALLBACKS):
        names = [row.name for row in rows if row.since <= version <= row.until]
        assert len(names) == len(set(names))


def test_every_row_has_a_handler_and_every_handler_a_row():
    assert HANDLERS.keys() == {row.name for row in HOSTCALLS}
    assert WASI_HANDLERS.keys() == {row.name for row in WASI}


@pytest.mark.parametrize("row", (*HOSTCALLS, *WASI), ids=lambda row: row.name)
def test_names_of_parameters_can_be_those_of_a_function(row):
    names = [param.name for param in row.params]
    assert len(set(names)) == len(names)
    assert all(name.isidentifier() for name in names)
    assert row.inputs + row.outputs == tuple(sorted(row.params, key=lambda param: param.kind.is_result))


def test_statuses():
    assert {(row.memory_error, row.restricted) for row in HOSTCALLS} == {
        (Status.INVALID_MEMORY_ACCESS, Status.INTERNAL_FAILURE)
    }
    assert {(row.memory_error, row.restricted) for row in WASI} == {(WasiErrno.FAULT, WasiErrno.NOTCAPABLE)}


def test_kinds_that_look_alike_are_told_apart():
    assert len(set(Kind)) == len({kind.value for kind in Kind}) == 13
    assert Kind.U32 is not Kind.I32


def test_keys():
    assert {row.name.removeprefix("proxy_") for row in CALLBACKS} == {row.key for row in CALLBACKS}


@pytest.mark.parametrize(
    ("enum", "version", "top"),
    [
        (BufferType, V0_1_0, 8),
        (BufferType, V0_2_1, 8),
        (BufferType, V0_2_100, 9),
        (MapType, V0_1_0, 7),
        (MapType, V0_2_100, 7),
    ],
)
def test_the_last_member_that_a_version_has(enum, version, top):
    assert highest(enum, version) == top


# -- Real filters ------------------------------------------------------------------------------------------------

RESUME = {"proxy_continue_request", "proxy_continue_response", "proxy_clear_route_cache"}
"""Of 0.1.0; its SDKs declare them with or without a result."""


@pytest.mark.parametrize("filter", NAMES)
def test_filters_import_what_the_table_has(filter):
    env = hostcalls_of(Bytecode(code(filter)).abi_version)
    wasi = {row.name: row for row in WASI}
    for found in by_engine(filter).imports:
        if filter == "c/secrets" and found.name in ("proxy_get_secret", "proxy_kv_store_open"):
            continue  # an embedder has them, or nobody
        row = (wasi if found.module in WASI_MODULES else env)[found.name]
        wanted = {signature_of(row)} | ({f"{signature_of(row)[:-1]}"} if found.name in RESUME else set())
        assert short(map(str, found.type.params), map(str, found.type.results)) in wanted


@pytest.mark.parametrize("filter", NAMES)
def test_filters_export_what_the_table_has(filter):
    rows = callbacks_of(Bytecode(code(filter)).abi_version)
    for found in by_engine(filter).exports:
        if found.name in rows:
            row = rows[found.name]
            wanted = f"{'i' * len(row.params)}:{'i' if row.result else ''}"
            assert short(map(str, found.type.params), map(str, found.type.results)) == wanted


def test_filters_import_nearly_all_of_the_table():
    imported = {found.name for filter in NAMES for found in by_engine(filter).imports}
    assert {row.name for row in HOSTCALLS} - imported == {"pthread_equal", "emscripten_notify_memory_growth"}
